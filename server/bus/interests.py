"""Who wants to hear what: texts being written go only to processes where somebody listens.

A wish is a lease, renewed by who hears: what was lost, or whose owner died, is over by itself. A writer who knows of no
wish asks all at once, once per half a lease; who listens answers, and gets the text so far.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

__all__ = ["Interests"]

#: Sessions whose wishes are remembered; wishes for more are forgotten, and asked for when they matter.
_MOST_SESSIONS: Final = 100_000
#: Seconds before the text so far is asked for again, when it did not come.
_PATIENCE: Final = 0.5


class Interests:
    """The wishes of others, as far as they were heard, and our own, as far as they were said. Times are monotonic."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._wanted: dict[UUID, dict[UUID, float]] = {}
        self._probed: dict[UUID, float] = {}
        self._told: dict[tuple[UUID, UUID], float] = {}
        self._asked: dict[UUID, float] = {}

    # --- what others want

    def want(self, session_id: UUID, peer: UUID, now: float) -> None:
        """A process wants to hear the session."""
        if session_id in self._wanted or len(self._wanted) < _MOST_SESSIONS:
            self._wanted.setdefault(session_id, {})[peer] = now + self._lifetime

    def wanted_by(self, session_id: UUID) -> Collection[UUID]:
        """The processes that want to hear the session; those whose wish is over are struck out by `prune`."""
        return self._wanted.get(session_id, ())

    def should_probe(self, session_id: UUID, now: float) -> bool:
        """Whether it is time to ask who wants to hear the session; true once in a while."""
        if self._probed.get(session_id, now) > now:
            return False
        self._probed[session_id] = now + self._lifetime / 2
        return True

    # --- what we want

    def tell(self, session_id: UUID, peer: UUID, now: float) -> None:
        """A process is told that we want to hear the session."""
        self._told[session_id, peer] = now

    def should_renew(self, session_id: UUID, peer: UUID, now: float) -> bool:
        """Whether a process that tells us of the session should hear again that we want that."""
        return self._told.get((session_id, peer), -self._lifetime) + self._lifetime / 2 <= now

    def should_ask(self, session_id: UUID, now: float) -> bool:
        """Whether it is time to ask for the text so far; true once in a while."""
        if self._asked.get(session_id, now) > now:
            return False
        self._asked[session_id] = now + _PATIENCE
        return True

    # --- what is over

    def forget(self, peer: UUID) -> None:
        """The process is gone, or begins anew: what it wants, or knows, is to be found out again."""
        for session_id, peers in list(self._wanted.items()):
            peers.pop(peer, None)
            if not peers:
                del self._wanted[session_id]
        for told in [told for told in self._told if told[1] == peer]:
            del self._told[told]
        self._probed.clear()

    def prune(self, now: float) -> None:
        """Strike out what is over."""
        for session_id, peers in list(self._wanted.items()):
            for peer in [peer for peer, until in peers.items() if until <= now]:
                del peers[peer]
            if not peers:
                del self._wanted[session_id]
        self._probed = {key: until for key, until in self._probed.items() if until > now}
        self._told = {told: at for told, at in self._told.items() if at + self._lifetime > now}
        self._asked = {key: until for key, until in self._asked.items() if until > now}
