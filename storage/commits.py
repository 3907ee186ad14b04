"""What a transaction leaves behind: the events that may be shown now, because they are committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from storage.log import NewEvent, StoredEvent

__all__ = ["Committed", "committed"]


class Committed(Struct, frozen=True):
    """The durable events of one committed transaction, in order."""

    session_id: UUID
    epoch: str
    events: tuple[StoredEvent, ...]


def committed(session_id: UUID, epoch: str, seq: int, now: datetime, events: Sequence[NewEvent]) -> Committed:
    """Number the events that a statement stored: the first one follows `seq`."""
    return Committed(
        session_id,
        epoch,
        tuple(
            StoredEvent(number, event.event_type, now, event.body) for number, event in enumerate(events, start=seq + 1)
        ),
    )
