"""Messages: what people and models read."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from storage.pool import Database

__all__ = ["Messages", "StoredMessage"]


class StoredMessage(Struct, frozen=True):
    """One message; `seq` is that of the event that announced it, `tool_calls` the JSON of the calls it made."""

    message_id: UUID
    seq: int
    turn_id: UUID | None
    role: str
    content: str
    reasoning: str | None
    name: str | None
    call_id: UUID | None
    tool_calls: bytes | None
    agent_type: str | None
    finish_reason: str | None
    created_at: datetime


class Messages:
    """Reads messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, session_id: UUID, after_seq: int, limit: int) -> list[StoredMessage]:
        """The messages after a number, in order, at most `limit`."""
        return [StoredMessage(*row) for row in await self._database.fetch("message_page", session_id, after_seq, limit)]

    async def tail(self, session_id: UUID, limit: int) -> list[StoredMessage]:
        """The last messages, in order, at most `limit`."""
        return [StoredMessage(*row) for row in await self._database.fetch("message_tail", session_id, limit)]
