"""Every route is described where its handler stands; the router and the OpenAPI document are made from that alone."""

from __future__ import annotations

from server.rest.openapi.parameters import IDEMPOTENCY_KEY, LAST_EVENT_ID
from server.rest.openapi.routes import JSON, OPERATIONS, Answer, Events, Operation, Routes, refusal

__all__ = [
    "IDEMPOTENCY_KEY",
    "JSON",
    "LAST_EVENT_ID",
    "OPERATIONS",
    "Answer",
    "Events",
    "Operation",
    "Routes",
    "refusal",
]
