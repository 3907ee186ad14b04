"""A gate per session, passed before the pool is asked for a connection.

All writers of a session queue on its row's lock. Without a gate each of them would wait there with a pooled connection
in hand, and one busy session would drain the pool for all the others.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final
from uuid import UUID

from protocol.errors import ErrorCode, ParleyError

__all__ = ["Gates"]

#: Writers of one session that may wait in this process; one more is told to come back.
MAX_WAITING: Final = 1024


class _Gate:
    """One session's gate: a lock and the number of those who hold it or wait for it."""

    __slots__ = ("_gates", "_lock", "_session_id", "users")

    def __init__(self, gates: Gates, session_id: UUID) -> None:
        self._gates = gates
        self._session_id = session_id
        self._lock = asyncio.Lock()
        self.users = 0

    async def __aenter__(self) -> None:
        if self.users >= MAX_WAITING:
            raise ParleyError(ErrorCode.RATE_LIMITED, "too many commands wait for this session", retry_after=1)
        self.users += 1
        try:
            if self.users == 1:
                await self._lock.acquire()
            else:
                # Also when the lock is free: it may be promised to another, and only with a bound does anybody wait.
                async with asyncio.timeout(self._gates.patience):
                    await self._lock.acquire()
        except TimeoutError as error:
            self._leave()
            raise ParleyError(
                ErrorCode.UNAVAILABLE, "the session's other writers take too long", retry_after=1
            ) from error
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        self.users -= 1
        if not self.users:
            self._gates.forget(self._session_id)


class Gates:
    """The gates of all sessions that are being written to now; `patience` is the longest wait, in seconds."""

    def __init__(self, patience: float = 30) -> None:
        self.patience = patience
        self._open: dict[UUID, _Gate] = {}

    def __len__(self) -> int:
        return len(self._open)

    def hold(self, session_id: UUID) -> _Gate:
        """`async with gates.hold(id):` one writer of the session at a time, in the order in which they came.

        Raises ParleyError RATE_LIMITED when too many wait, UNAVAILABLE when the wait was too long.
        """
        gate = self._open.get(session_id)
        if gate is None:
            gate = self._open[session_id] = _Gate(self, session_id)
        return gate

    def forget(self, session_id: UUID) -> None:
        """Nobody uses the gate any more."""
        self._open.pop(session_id, None)
