"""The event log: every session's durable events by number."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from storage.pool import Database

__all__ = ["EventLog", "NewEvent", "StoredEvent"]


class NewEvent(Struct, frozen=True, gc=False):
    """An event that is about to be stored: its payload is encoded already, its number is not known yet."""

    event_type: str
    body: bytes


class StoredEvent(Struct, frozen=True, gc=False):
    """A durable event as the log has it; `body` is the payload's JSON, byte for byte as it was first sent."""

    seq: int
    event_type: str
    created_at: datetime
    body: bytes


class EventLog:
    """Reads the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self, session_id: UUID, after: int, *, limit: int = 500, max_bytes: int = 1 << 20
    ) -> list[StoredEvent]:
        """The events that follow number `after`, in order and without a gap.

        At most `limit` events and about `max_bytes` of payload, but at least one when there is one.
        """
        rows = await self._database.fetch("read_events", session_id, after, limit, max_bytes)
        return [StoredEvent(*row) for row in rows]
