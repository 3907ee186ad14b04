"""How many streams there may be, and how a stopping server waits for the last of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

from protocol.errors import ErrorCode, ParleyError
from server.channel.settings import ChannelSettings
from server.channel.stats import Counters

__all__ = ["Admission"]

_RETRY_AFTER = 5.0


class Admission:
    """Counts the streams that exist, from before their transport is set up until after it has ended."""

    def __init__(self, settings: ChannelSettings, counters: Counters) -> None:
        self._settings = settings
        self._counters = counters
        self._sessions: Counter[UUID] = Counter()
        self._total = 0
        self._left = asyncio.Event()
        self._closed_for: float | None = None

    def enter(self, session_id: UUID) -> None:
        """Take a place. Raises ParleyError: RATE_LIMITED when there is none, SHUTDOWN when there are no more."""
        self._check(session_id)
        self._sessions[session_id] += 1
        self._total += 1
        self._counters.connections_opened += 1

    def leave(self, session_id: UUID) -> None:
        """Give a place back."""
        self._total -= 1
        self._sessions[session_id] -= 1
        if not self._sessions[session_id]:
            del self._sessions[session_id]
        self._left.set()

    def close(self, retry_after: float) -> None:
        """Refuse everybody from now on, with the advice to come back after so many seconds."""
        self._closed_for = retry_after

    @property
    def closed(self) -> bool:
        """Whether nobody is let in any more."""
        return self._closed_for is not None

    async def emptied(self) -> None:
        """Return when the last stream has ended."""
        while self._total:
            self._left.clear()
            await self._left.wait()

    def __len__(self) -> int:
        return self._total

    def _check(self, session_id: UUID) -> None:
        if self._closed_for is not None:
            raise ParleyError(ErrorCode.SHUTDOWN, "the server is stopping", retry_after=self._closed_for)
        full = None
        if self._total >= self._settings.max_connections:
            full = "the server has too many streams"
        elif self._sessions[session_id] >= self._settings.max_session_connections:
            full = "the session has too many streams"
        if full is not None:
            self._counters.refused += 1
            raise ParleyError(ErrorCode.RATE_LIMITED, full, retry_after=_RETRY_AFTER)
