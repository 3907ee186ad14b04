"""Bounds for what is done by many at once: one timer for all, as one for each is dearer than what it bounds."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final

__all__ = ["Limits"]

#: How often it is looked for what takes too long, in seconds; so much longer may it take.
_SWEEP: Final = 0.25


class _Limit:
    """What `asyncio.timeout` is, but for the timer."""

    __slots__ = ("_cancelling", "_expired", "_limits", "_task", "until")

    def __init__(self, limits: Limits, task: asyncio.Task[Any], until: float) -> None:
        self.until = until
        self._limits = limits
        self._task = task
        self._cancelling = task.cancelling()
        self._expired = False

    def __enter__(self) -> None:
        self._limits.open.add(self)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limits.open.discard(self)
        # Somebody else may have cancelled the task as well: then it is his.
        if self._expired and self._task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError:
            raise TimeoutError from exc

    def expire(self) -> None:
        self._expired = True
        self._limits.open.discard(self)
        self._task.cancel()


class Limits:
    """The limits of one event loop."""

    def __init__(self) -> None:
        self.open: set[_Limit] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def within(self, seconds: float) -> _Limit:
        """`with limits.within(10):` raises TimeoutError when what is awaited within takes about so long, or longer."""
        task = asyncio.current_task()
        assert task is not None, "a task awaits"
        loop = task.get_loop()
        if self._sweeper is None:
            self._sweeper = loop.call_later(_SWEEP, self._sweep, loop)
        return _Limit(self, task, loop.time() + seconds)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for limit in [limit for limit in self.open if limit.until <= now]:
            limit.expire()
        self._sweeper = loop.call_later(_SWEEP, self._sweep, loop) if self.open else None
