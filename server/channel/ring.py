"""The newest events of a channel, bounded by bytes: what spares a short lag a read of the log."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.envelope import Event

__all__ = ["Ring"]


class Ring:
    """Durable events with consecutive sequence numbers, the oldest given up when `max_bytes` is exceeded."""

    __slots__ = ("_bytes", "_events", "_max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        # No deque: an empty one has 0.7 KiB, in each session that says nothing, and the way into its middle is counted.
        # What is given up in front of a list moves some KiB of pointers.
        self._events: list[Event] = []

    def append(self, event: Event) -> None:
        """Keep `event`, whose `seq` follows the last one's; the ring starts afresh when it does not."""
        if self._events and event.seq != _seq(self._events[-1]) + 1:
            self.clear()
        self._events.append(event)
        self._bytes += event.size
        surplus = 0
        while self._bytes > self._max_bytes:
            self._bytes -= self._events[surplus].size
            surplus += 1
        del self._events[:surplus]

    def after(self, seq: int, max_bytes: int) -> list[Event] | None:
        """The events that follow `seq`, at least one, about `max_bytes` of them; None when the ring cannot say."""
        if not self._events:
            return None
        skip = seq + 1 - _seq(self._events[0])
        if not 0 <= skip < len(self._events):
            return None
        page: list[Event] = []
        for place in range(skip, len(self._events)):
            event = self._events[place]
            if page and event.size > max_bytes:
                break
            page.append(event)
            max_bytes -= event.size
        return page

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

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


def _seq(event: Event) -> int:
    assert event.seq is not None, "only durable events are kept"
    return event.seq
