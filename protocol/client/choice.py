"""Which transport to try next."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from protocol.client.settings import Transport

__all__ = ["Choice", "Memory", "Phase"]

#: How far a connection has come: `syncing` from its first frame on, `live` once the replay is over.
Phase: TypeAlias = Literal["opening", "syncing", "live"]

_REMEMBERED: Final = 256


class Memory:
    """The servers that WebSocket does not reach from here, and until when that is believed; shared in a process."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._until: dict[str, float] = {}

    def blocked_until(self, url: str) -> float:
        """When WebSocket is worth another try; now or earlier if nothing speaks against it."""
        return self._until.get(url, 0.0)

    def blocked(self, url: str, until: float) -> None:
        """Remember that it does not get through."""
        self._until.pop(url, None)
        self._until[url] = until
        if len(self._until) > _REMEMBERED:
            del self._until[next(iter(self._until))]

    def works(self, url: str) -> None:
        """Forget it: it does."""
        self._until.pop(url, None)


#: What the clients of this process have found out.
SHARED: Final = Memory()


class Choice:
    """WebSocket first, and SSE where it does not get through.

    WebSocket is given up when the upgrade fails, when nothing comes through it, or when it is cut again and again soon
    after; one that worked before gets more chances, because then it is more likely the server that is away. While
    neither works they take turns.
    """

    def __init__(self, fixed: Transport | None, url: str, again: float, memory: Memory | None = None) -> None:
        self._fixed = fixed
        self._url = url
        self._again = again
        self._memory = memory = SHARED if memory is None else memory
        self._strikes = 0
        self._proven = False
        self._not_before = memory.blocked_until(url)
        self._next: Transport = "sse" if memory.now() < self._not_before else "ws"

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self._fixed is not None

    def pick(self) -> Transport:
        """The one to try now."""
        return self._fixed or self._next

    def worked(self, transport: Transport) -> None:
        """It has brought a whole replay."""
        if self._fixed is not None:
            return
        if transport == "ws":
            self._proven = True
            self._memory.works(self._url)
        else:
            self._strikes = 0
            self._next = "sse"
            if self._proven:
                self._not_before = 0.0
            else:
                self._not_before = self._memory.now() + self._again
                self._memory.blocked(self._url, self._not_before)

    def proved(self) -> None:
        """A connection has lived long enough to forgive what went before."""
        self._strikes = 0

    def failed(self, transport: Transport, phase: Phase) -> bool:
        """A connection ended early and nobody said why; whether the other transport should be tried at once."""
        if self._fixed is not None:
            return False
        if transport != "ws":
            if phase != "live" or self._memory.now() >= self._not_before:
                self._next = "ws"
            return False
        self._strikes += 1
        allowed = 3 if self._proven or phase == "live" else 2 if phase == "syncing" else 1
        if self._strikes < allowed:
            return False
        self._strikes = 0
        self._next = "sse"
        return True

    def ended(self) -> None:
        """A connection ended for a known reason, or after a long life: nothing speaks against its transport."""
        if self._next == "sse" and self._memory.now() >= self._not_before:
            self._next = "ws"
