"""Which agent gave a session to which, and why."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

from storage.pool import Database

__all__ = ["Switch", "SwitchCount", "Switches"]


class Switch(Struct, frozen=True):
    """A session went from one agent to another; `cause` says whether a client or an agent did it."""

    from_agent: str
    to_agent: str
    reason: str | None
    confidence: float | None
    cause: str
    switched_at: datetime


class SwitchCount(NamedTuple):
    """How often a session changed its agent, and when last."""

    switches: int
    last: datetime | None


class Switches:
    """Reads the switches of sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, session_id: UUID) -> SwitchCount:
        """How many there were."""
        row = await self._database.fetchrow("count_switches", session_id)
        assert row is not None, "a count is one row"
        return SwitchCount(*row)

    async def latest(self, session_id: UUID, limit: int) -> list[Switch]:
        """The last ones, in order."""
        rows = await self._database.fetch("switches_of_session", session_id, limit)
        return [Switch(*row) for row in reversed(rows)]
