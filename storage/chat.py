"""What simple chat clients ask: messages by their number on a page, the log by the clock, and counts."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

from storage.messages import MAX_BYTES
from storage.pool import Database

__all__ = ["Chat", "ChatMessage", "ChatPage", "ChatStats"]


class ChatMessage(Struct, frozen=True, kw_only=True):
    """Something that a user or an agent said."""

    message_id: UUID
    role: str
    content: str
    agent_type: str | None
    created_at: datetime


class ChatPage(NamedTuple):
    """Some of a session's messages, and how many there are in all."""

    page: list[ChatMessage]
    total: int


class ChatStats(Struct, frozen=True, kw_only=True):
    """What a user has in all; deleted sessions do not count."""

    sessions: int
    messages: int
    running_turns: int
    queued: int
    last_activity: datetime | None


class Chat:
    """Reads sessions as simple chat clients see them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def messages(self, session_id: UUID, *, limit: int, offset: int, max_bytes: int = MAX_BYTES) -> ChatPage:
        """What was said between user and agents, in order: at most `limit` messages and about `max_bytes` of them."""
        rows = await self._database.fetch("chat_messages", session_id, limit, offset, max_bytes)
        page = [
            ChatMessage(**{name: row[name] for name in ChatMessage.__struct_fields__})
            for row in rows
            if row["message_id"] is not None
        ]
        return ChatPage(page, rows[0]["total"])

    async def seq_at(self, session_id: UUID, moment: datetime) -> int:
        """The number of the last event that is not later than a time; 0 when all are."""
        row = await self._database.fetchrow("seq_at", session_id, moment)
        return 0 if row is None else int(row["seq"])

    async def stats(self, owner: str) -> ChatStats:
        """What a user has in all."""
        row = await self._database.fetchrow("chat_stats", owner)
        assert row is not None, "an aggregate is one row"
        return ChatStats(**row)
