"""A gate per session, passed before the pool is asked for a connection.

All writers of a session queue on its row's lock. Without a gate each of them would wait there with a pooled connection
in hand, and one busy session would drain the pool for all the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final
from uuid import UUID

from protocol.errors import ErrorCode, ParleyError

__all__ = ["Gates"]

#: Writers of one session that may wait in this process; one more is told to come back.
MAX_WAITING: Final = 1024


class _Gate:
    """One session's gate: who holds it hands it over to who has waited longest. `users` are all of them."""

    __slots__ = ("_gates", "_session_id", "_waiting", "users")

    def __init__(self, gates: Gates, session_id: UUID) -> None:
        self._gates = gates
        self._session_id = session_id
        # Made when somebody has to wait: most gates are passed by one writer, and gone.
        self._waiting: deque[asyncio.Future[None]] | None = None
        self.users = 0

    async def __aenter__(self) -> None:
        if self.users >= MAX_WAITING:
            raise ParleyError(ErrorCode.RATE_LIMITED, "too many commands wait for this session", retry_after=1)
        self.users += 1
        if self.users > 1:
            await self._wait()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    async def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(turn)
        expiry = loop.call_later(self._gates.patience, _expire, turn)
        try:
            await turn
        except TimeoutError as error:
            self.users -= 1
            raise ParleyError(
                ErrorCode.UNAVAILABLE, "the session's other writers take too long", retry_after=1
            ) from error
        except asyncio.CancelledError:
            if turn.cancelled() or turn.exception() is not None:
                self.users -= 1
            else:
                # It was handed over, and its task cancelled before it could see that.
                self._leave()
            raise
        finally:
            expiry.cancel()

    def _leave(self) -> None:
        self.users -= 1
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._gates.forget(self._session_id)


def _expire(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(TimeoutError())


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
