"""Streams whose bytes are made for one connection alone.

The channel makes the bytes of a wire once for all connections that have it. What a connection is told here depends on
what it was told before, so each has a wire of its own; all else is as everywhere: the log as the buffer, slow readers,
heartbeats, limits, leaving.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol, Self

import msgspec

from protocol._override import override
from protocol.envelope import Event
from protocol.events import EVENTS, Payload
from protocol.framing import chunk
from server.channel.subscriber import Wire

__all__ = ["OwnWire", "Teller", "payload_of", "sse_message"]

_encoder: Final = msgspec.json.Encoder()


class Teller(Protocol):
    """Says what one connection is told."""

    def told(self, events: Sequence[Event]) -> Iterator[bytes]:
        """What it is told of these events, which come in order: whole messages of an event stream."""
        ...


class OwnWire(Wire):
    """The wire of one connection, as an event stream: equal to no other."""

    _teller: Teller

    def __new__(cls, teller: Teller, *, chunked: bool) -> Self:
        """Make the wire of a connection that is told what `teller` says."""
        wire = super().__new__(cls, "sse", chunked)
        wire._teller = teller
        return wire

    @override
    def frame(self, events: Sequence[Event]) -> bytes:
        """What the connection is told of these events; nothing, if that is nothing."""
        data = b"".join(self._teller.told(events))
        return chunk(data) if self.chunked else data

    @override
    def __eq__(self, other: object) -> bool:
        return self is other

    @override
    def __ne__(self, other: object) -> bool:
        return self is not other

    @override
    def __hash__(self) -> int:
        return id(self)


def sse_message(value: object, *, event: str | None = None, identity: str | None = None) -> bytes:
    """One message of an event stream, its data as JSON; an unnamed one reaches `onmessage`."""
    head = (f"id: {identity}\n" if identity is not None else "") + (f"event: {event}\n" if event is not None else "")
    return head.encode() + b"data: " + _encoder.encode(value) + b"\n\n"


def payload_of(event: Event) -> Payload | None:
    """What an event says; None if it is of a type that only a newer server knows."""
    known = EVENTS.get(event.event_type)
    if known is None:
        return None
    payload: Payload = msgspec.json.decode(event.payload, type=known.payload)
    return payload
