"""The newest events of a channel, bounded by bytes: what spares a short lag a read of the log."""

from __future__ import annotations

from collections import deque
from itertools import islice

from protocol.envelope import Event

__all__ = ["Ring", "page_of"]


class Ring:
    """Durable events with consecutive sequence numbers, the oldest given up when `max_bytes` is exceeded."""

    __slots__ = ("_bytes", "_events", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._events: deque[Event] = deque()

    def append(self, event: Event) -> None:
        """Keep `event`, whose `seq` follows the last one's; the ring starts afresh when it does not."""
        if self._events and event.seq != _seq(self._events[-1]) + 1:
            self.clear()
        self._events.append(event)
        self._bytes += event.size
        while self._bytes > self._max_bytes:
            self._bytes -= self._events.popleft().size

    def after(self, seq: int, max_bytes: int) -> list[Event] | None:
        """The events that follow `seq`, at least one, about `max_bytes` of them; None when the ring cannot say."""
        if not self._events:
            return None
        skip = seq + 1 - _seq(self._events[0])
        if not 0 <= skip < len(self._events):
            return None
        return page_of(islice(self._events, skip, None), max_bytes)

    def clear(self) -> None:
        """Forget everything."""
        self._events.clear()
        self._bytes = 0

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._events)


def page_of(events: islice[Event], max_bytes: int) -> list[Event]:
    """The first events that fit into `max_bytes`, the very first one whatever its size."""
    page: list[Event] = []
    room = max_bytes
    for event in events:
        if page and event.size > room:
            break
        page.append(event)
        room -= event.size
    return page


def _seq(event: Event) -> int:
    assert event.seq is not None, "only durable events are kept"
    return event.seq
