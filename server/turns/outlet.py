"""Where turns show what they do: the hub, as far as turns know it."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from protocol.events import MessageDelta, Payload
from storage.commits import Committed

__all__ = ["Outlet"]


class Outlet(Protocol):
    """Takes what is committed and what is only streamed; never blocks, never fails."""

    def commit(self, committed: Committed, closes: UUID | None = None) -> None:
        """Show the events of a committed transaction; `closes` is the message that is now complete."""

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        """Show a piece of a message that is being written."""

    def transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        """Show something that is true only now."""

    def close_message(self, session_id: UUID, message_id: UUID) -> None:
        """A message that was being written goes on elsewhere, or its end is not at hand: forget its text."""

    def wake(self, session_id: UUID) -> None:
        """Something was committed whose events are not at hand: read the log."""
