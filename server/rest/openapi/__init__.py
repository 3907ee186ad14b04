"""Every route is described where its handler stands; the router and the OpenAPI document are made from that alone."""

from __future__ import annotations

from server.rest.openapi.routes import JSON, OPERATIONS, Answer, Operation, Routes

__all__ = ["JSON", "OPERATIONS", "Answer", "Operation", "Routes"]
