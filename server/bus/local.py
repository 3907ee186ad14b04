"""The bus of a process that has no others beside it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from protocol.events import MessageDelta, Payload
from server.bus.interface import BusState, BusStats, Ear

__all__ = ["LocalBus"]


def _nobody(turn_id: UUID) -> None:
    del turn_id


class LocalBus:
    """Says nothing and hears nothing."""

    def __init__(self) -> None:
        self.on_stir: Callable[[UUID], None] = _nobody

    def attach(self, ear: Ear) -> None:
        """Nobody will be told anything."""
        del ear

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    @property
    def state(self) -> BusState:
        """Always alone."""
        return "alone"

    @property
    def alone(self) -> bool:
        """Always."""
        return True

    def stats(self) -> BusStats:
        """Nothing was said."""
        return BusStats(state="alone")

    def hint(self, session_id: UUID, seq: int) -> None:
        """Nobody needs to know."""

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        """Nobody needs to know."""

    def closed(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        """Nobody needs to know."""

    def transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        """Nobody needs to know."""

    def stir(self, turn_id: UUID) -> None:
        """Nobody needs to know."""

    def follow(self, session_id: UUID) -> None:
        """There is nothing to hear."""
