"""Who did what, for whoever asks later."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN, format_timestamp
from server.auth import principal_of
from server.rest.inputs import query_of
from server.rest.openapi import Routes
from server.rest.places import place, place_of
from server.rest.responses import json_response
from server.rest.values import value_of
from server.services import SERVICES, Services
from storage.audit import AuditEntry, AuditKey
from storage.ids import as_uuid

__all__ = ["add_routes"]

ROUTES: Final = Routes("Audit", "Who did what in your sessions.")


class AuditView(Struct, frozen=True, kw_only=True):
    """Something that somebody did; `arguments` were asked for, `executed` ran."""

    id: int
    timestamp: str
    event_type: str
    session_id: UUID | None
    user_id: str | None
    client_id: str | None
    transport: str | None
    turn_id: UUID | None
    call_id: UUID | None
    tool: str | None
    decision: str | None
    cause: str | None
    arguments: Any
    executed: Any
    feedback: str | None
    rule: str | None

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditView:
        """An entry, its arguments as JSON."""
        fields = msgspec.structs.asdict(entry)
        fields["id"], fields["timestamp"] = fields.pop("audit_id"), format_timestamp(fields.pop("at"))
        return cls(**{**fields, "arguments": value_of(entry.arguments), "executed": value_of(entry.executed)})


class AuditFilters(Struct, frozen=True, kw_only=True):
    """What was asked for."""

    session_id: str | None
    event_type: str | None
    limit: int


class AuditLog(Struct, frozen=True, kw_only=True):
    """A page of the audit, the latest first; `next` is what `after` takes for the following one, which is older."""

    audit_log: list[AuditView]
    count: int
    filters: AuditFilters
    next: str | None


class AuditQuery(Struct, frozen=True):
    """What `GET /events/audit-log` takes."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    event_type: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@ROUTES.get("/events/audit-log", query=AuditQuery, answer=AuditLog)
async def _audit_log(request: web.Request) -> web.Response:
    """Read who did what in your sessions, those that are deleted too."""
    services = request.app[SERVICES]
    query = query_of(request, AuditQuery)
    before, owner = place_of(query.after, AuditKey), principal_of(request).user_id
    found: list[AuditEntry] = []
    session_id = await _audited(services, owner, query.session_id)
    if session_id is not None or query.session_id is None:
        found = await services.audit.page(
            owner, limit=query.limit + 1, session_id=session_id, event_type=query.event_type, before=before
        )
    page = found[: query.limit]
    return json_response(
        AuditLog(
            audit_log=[AuditView.of(entry) for entry in page],
            count=len(page),
            filters=AuditFilters(session_id=query.session_id, event_type=query.event_type, limit=query.limit),
            next=place(AuditKey(page[-1].audit_id)) if len(found) > len(page) else None,
        )
    )


async def _audited(services: Services, owner: str, reference: str | None) -> UUID | None:
    """The session meant: what was noted outlives it, so its id will do, also when it is deleted."""
    if reference is None:
        return None
    try:
        return (await services.sessions.resolve(owner, reference)).session_id
    except ParleyError as error:
        if error.code not in {ErrorCode.NOT_FOUND, ErrorCode.SESSION_GONE}:
            raise
        return as_uuid(reference)


def add_routes(app: web.Application) -> None:
    """Add the route of the audit."""
    ROUTES.add_to(app)
