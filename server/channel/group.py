"""What a turn of the loop writes, and to whom: one write a subscriber, of the same bytes for all of a wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat

from protocol.envelope import Event
from protocol.events import MessageDelta
from server.channel.settings import ChannelSettings
from server.channel.subscriber import Socket, Subscriber, Wire

__all__ = ["Group", "Outbox"]


class Outbox:
    """What was emitted in a turn of the loop and is to be written when it is over."""

    __slots__ = ("controls", "items", "ping")

    def __init__(self) -> None:
        #: For all who are live.
        self.items: list[Event | MessageDelta] = []
        #: For one alone, after the items.
        self.controls: dict[Subscriber, list[Event]] = {}
        #: Whether WebSockets are pinged, too.
        self.ping = False


class Group:
    """All subscribers of one wire. Those that are live are written the same bytes, which are counted once."""

    __slots__ = ("_high_water", "_sockets", "live", "wire", "written")

    def __init__(self, wire: Wire, settings: ChannelSettings) -> None:
        self.wire = wire
        #: How many of them are live.
        self.live = 0
        #: Bytes that one was written which has been live all the time.
        self.written = 0
        self._high_water = settings.high_water
        self._sockets: dict[Subscriber, Socket | None] = {}

    def __len__(self) -> int:
        return len(self._sockets)

    def __iter__(self) -> Iterator[Subscriber]:
        return iter(self._sockets)

    def __contains__(self, subscriber: Subscriber) -> bool:
        return subscriber in self._sockets

    def add(self, subscriber: Subscriber) -> None:
        """Take in a subscriber, which is not live."""
        self._sockets[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        """Let a subscriber go."""
        self.rest(subscriber)
        del self._sockets[subscriber]

    def wake(self, subscriber: Subscriber) -> None:
        """Write to it from now on what all are written."""
        self._sockets[subscriber] = subscriber.socket
        self.live += 1
        subscriber.follow(self)

    def rest(self, subscriber: Subscriber) -> None:
        """No longer write to it, if it was live."""
        if self.is_live(subscriber):
            self._sockets[subscriber] = None
            self.live -= 1
            subscriber.follow(None)

    def is_live(self, subscriber: Subscriber) -> bool:
        """Whether it is in here and live."""
        return self._sockets.get(subscriber) is not None

    def write(self, data: bytes, tails: Mapping[Subscriber, bytes]) -> Sequence[Subscriber]:
        """Write whole frames to all that are live, to some with a tail of their own; who takes less than we write."""
        self.written += len(data)
        pieces: Iterable[bytes] = repeat(data)
        if tails:
            pieces = [data + tails.get(subscriber, b"") for subscriber in self._sockets]
        full = False
        # What stands in this loop is done for each subscriber of each event, and touches its socket alone.
        for socket, piece in zip(self._sockets.values(), pieces, strict=False):
            if socket is None:
                continue
            if not socket.is_closing():
                socket.write(piece)
            if socket.get_write_buffer_size() > self._high_water:
                full = True
        for subscriber, tail in tails.items():
            subscriber.count(len(tail))
        return [one for one in self._sockets if self.is_live(one) and one.congested()] if full else ()
