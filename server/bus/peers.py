"""The other processes: those that the database knows as alive, and those that were heard lately."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final
from uuid import UUID

__all__ = ["Peers"]

#: Processes that may be known: what is heard may be anything, and no one has so many.
_MOST: Final = 1_000


class Peers:
    """Who is there. Times are monotonic; `memory` is how long a sign of life, or a good-bye, counts by itself."""

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._seen: AbstractSet[UUID] = frozenset()
        self._heard: dict[UUID, float] = {}
        self._left: dict[UUID, float] = {}

    def __len__(self) -> int:
        return len(self._seen | self._heard.keys())

    def __contains__(self, peer: UUID) -> bool:
        return peer in self._seen or peer in self._heard

    def heard(self, peer: UUID, now: float) -> bool:
        """It said something; whether it is new."""
        new = peer not in self
        if not new or len(self) < _MOST:
            self._heard[peer] = now + self._memory
            self._left.pop(peer, None)
            return new
        return False

    def left(self, peer: UUID, now: float) -> None:
        """It said good-bye; the database may know it for a little longer."""
        self._heard.pop(peer, None)
        self._seen = self._seen - {peer}
        self._left[peer] = now + self._memory

    def seen(self, live: AbstractSet[UUID], now: float) -> AbstractSet[UUID]:
        """The database knows these as alive; those that are new."""
        self._heard = {peer: until for peer, until in self._heard.items() if until > now}
        self._left = {peer: until for peer, until in self._left.items() if until > now}
        live = live - self._left.keys()
        new = live - self._seen - self._heard.keys()
        self._seen = live
        return new
