"""Worker spaces: each user's turns run in a space of their own, so that one user's many hold up nobody else's.

    admit(claim, start)   the turn begins now, or when one of the user's others has ended
    done(claim)           it ended, or gave its claim up

Who waits is an entry in a queue: no task, no connection. A space is made when its user has something to run, and
forgotten when it had nothing for a while. Everything is of this process alone and happens at once, on one loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from server.clock import Clock
from server.turns.limits import LimitSettings

__all__ = ["Claimed", "SpaceStats", "Spaces"]


class Claimed(Protocol):
    """What is known of a turn that is to run; a `storage.turns.Claim` is one."""

    @property
    def owner(self) -> str:
        """Whose turn it is."""

    @property
    def turn_id(self) -> UUID:
        """Which turn it is."""


class SpaceStats(Struct, frozen=True, kw_only=True):
    """A user's space in one process; the totals are since `since`, when it was made."""

    running: int
    waiting: int
    tools_running: int
    begun: int
    waited: int
    ended: int
    since: datetime | None


class _Space:
    """What one user runs."""

    __slots__ = ("begun", "ended", "idle_since", "running", "since", "tools", "tools_running", "waited", "waiting")

    def __init__(self, since: datetime, tools: int) -> None:
        self.since = since
        self.idle_since = 0.0
        self.running: set[UUID] = set()
        self.waiting: OrderedDict[UUID, Callable[[], None]] = OrderedDict()
        self.tools = asyncio.Semaphore(tools)
        self.tools_running = 0
        self.begun = self.waited = self.ended = 0

    @property
    def idle(self) -> bool:
        return not (self.running or self.waiting or self.tools_running or self.tools.locked())


class Spaces:
    """The spaces of one process, by user. Synchronous but for `tool`; belongs to one loop."""

    def __init__(self, settings: LimitSettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        # The least recently used first: those that may be forgotten.
        self._spaces: OrderedDict[str, _Space] = OrderedDict()

    def __len__(self) -> int:
        return len(self._spaces)

    def admit(self, claim: Claimed, start: Callable[[], None]) -> None:
        """Call `start` as soon as the user has room for the turn: now, or within somebody's `done`.

        A turn that runs already is not begun again; one that waits keeps its place and gets the newer `start`, which
        must not raise.
        """
        space = self._space(claim.owner)
        if claim.turn_id in space.running:
            return
        if claim.turn_id in space.waiting or len(space.running) >= self.settings.turns:
            space.waited += claim.turn_id not in space.waiting
            space.waiting[claim.turn_id] = start
            return
        self._begin(space, claim.turn_id, start)

    def done(self, claim: Claimed) -> None:
        """The turn neither runs nor waits any more; whoever waited longest has its place. May be called again."""
        space = self._spaces.get(claim.owner)
        if space is None:
            return
        space.waiting.pop(claim.turn_id, None)
        if claim.turn_id in space.running:
            space.running.discard(claim.turn_id)
            space.ended += 1
        while space.waiting and len(space.running) < self.settings.turns:
            self._begin(space, *space.waiting.popitem(last=False))
        self._used(claim.owner, space)

    def waits(self, claim: Claimed) -> bool:
        """Whether the turn is admitted but has not begun."""
        space = self._spaces.get(claim.owner)
        return space is not None and claim.turn_id in space.waiting

    @asynccontextmanager
    async def tool(self, owner: str) -> AsyncIterator[None]:
        """`async with spaces.tool(owner):` one call of a tool of this server, when the user has room for it."""
        space = self._space(owner)
        async with space.tools:
            space.tools_running += 1
            try:
                yield
            finally:
                space.tools_running -= 1
                self._used(owner, space)

    def stats(self, owner: str) -> SpaceStats:
        """What the user's space holds now; all zero where there is none."""
        self._evict()
        space = self._spaces.get(owner)
        if space is None:
            return SpaceStats(running=0, waiting=0, tools_running=0, begun=0, waited=0, ended=0, since=None)
        return SpaceStats(
            running=len(space.running),
            waiting=len(space.waiting),
            tools_running=space.tools_running,
            begun=space.begun,
            waited=space.waited,
            ended=space.ended,
            since=space.since,
        )

    def _begin(self, space: _Space, turn_id: UUID, start: Callable[[], None]) -> None:
        space.running.add(turn_id)
        space.begun += 1
        start()

    def _space(self, owner: str) -> _Space:
        space = self._spaces.get(owner)
        if space is None:
            self._evict()
            space = self._spaces[owner] = _Space(self._clock.now(), self.settings.tools)
        self._used(owner, space)
        return space

    def _used(self, owner: str, space: _Space) -> None:
        space.idle_since = self._clock.monotonic()
        if self._spaces.get(owner) is space:
            self._spaces.move_to_end(owner)

    def _evict(self) -> None:
        """Forget the spaces in which nothing happened for long; those in use are passed by, and are as many as ran."""
        past = self._clock.monotonic() - self.settings.idle
        for owner, space in list(self._spaces.items()):
            if space.idle_since > past:
                # They are in the order of their last use.
                return
            if space.idle:
                del self._spaces[owner]
