"""The audit: who did what. Its rows are written with what they tell of, and outlive it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, NamedTuple
from uuid import UUID

from msgspec import Meta, Struct

from storage.pool import Database

__all__ = ["Audit", "AuditEntry", "AuditKey"]


class AuditEntry(Struct, frozen=True, kw_only=True):
    """Something that somebody did. `arguments` were asked for, `executed` ran; both are JSON texts."""

    audit_id: int
    at: datetime
    session_id: UUID | None
    event_type: str
    user_id: str | None
    client_id: str | None
    transport: str | None
    turn_id: UUID | None
    call_id: UUID | None
    tool: str | None
    decision: str | None
    cause: str | None
    arguments: str | None
    executed: str | None
    feedback: str | None
    rule: str | None


class AuditKey(NamedTuple):
    """Where an entry stands; in the bounds that the database keeps."""

    audit_id: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Audit:
    """Reads the audit, and notes what no other statement writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        owner: str,
        *,
        limit: int,
        session_id: UUID | None = None,
        event_type: str | None = None,
        before: AuditKey | None = None,
    ) -> list[AuditEntry]:
        """The owner's entries, the latest first: of one session, of one type, before an entry, where that is given."""
        arguments = (owner, event_type, None if before is None else before.audit_id, limit)
        if session_id is None:
            rows = await self._database.fetch("audit_of_owner", *arguments)
        else:
            rows = await self._database.fetch("audit_of_session", *arguments, session_id)
        return [AuditEntry(**row) for row in rows]

    async def note(
        self,
        owner: str,
        event_type: str,
        *,
        user_id: str,
        transport: str,
        now: datetime,
        session_id: UUID | None = None,
    ) -> None:
        """Note that a user did something."""
        await self._database.execute("add_audit", now, owner, session_id, event_type, user_id, transport, None)
