"""Messages: what people and models read."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from storage.pool import Database

__all__ = ["MAX_BYTES", "Messages", "StoredMessage"]

#: What is read at once, in bytes: a message may have a megabyte, and a thousand of them must not come together. It is
#: more than any model takes.
MAX_BYTES: Final = 4 << 20


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

    @property
    def size(self) -> int:
        """Its bytes as `max_bytes` counts them."""
        return len(self.content.encode()) + len((self.reasoning or "").encode()) + len(self.tool_calls or b"")


class Messages:
    """Reads messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, session_id: UUID, after_seq: int, limit: int, max_bytes: int = MAX_BYTES
    ) -> list[StoredMessage]:
        """The conversation after a number, in order: at most `limit`, about `max_bytes`, but one if there is any."""
        rows = await self._database.fetch("message_page", session_id, after_seq, limit, max_bytes)
        return [StoredMessage(*row) for row in rows]

    async def tail(
        self, session_id: UUID, limit: int, max_bytes: int = MAX_BYTES, thread: UUID | None = None
    ) -> list[StoredMessage]:
        """The last messages, in order: at most `limit`, and about `max_bytes`, but one when there is one.

        Those of the conversation, or with `thread` those that belong to that turn alone, which answers a call.
        """
        if thread is None:
            rows = await self._database.fetch("message_tail", session_id, limit, max_bytes)
        else:
            rows = await self._database.fetch("thread_tail", session_id, limit, max_bytes, thread)
        return [StoredMessage(*row) for row in rows]
