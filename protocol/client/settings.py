"""The client's numbers: how long it waits for what, and how much it holds."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from protocol.envelope import Encoding

__all__ = ["DEFAULT", "Options", "Timings", "Transport"]

#: What brings the events; commands go over the same WebSocket, or over POST.
Transport: TypeAlias = Literal["ws", "sse", "ndjson"]


class Timings(Struct, frozen=True, kw_only=True):
    """How patient a client is, and how much it holds; seconds, unless a field says otherwise.

    The defaults suit people at a screen.
    """

    #: Until a new connection shows its first frame, and until `async with` gives up.
    opening: float = 10.0
    #: The same for a WebSocket that has an alternative: a network may swallow what it does not know.
    opening_websocket: float = 4.0
    #: Until a command, or any other request, counts as unanswered.
    answer: float = 15.0
    #: For taking leave.
    closing: float = 1.0
    #: Of silence, beyond the two heartbeats that make a connection a lost one.
    grace: float = 2.0
    #: After which a connection has proved itself, and pauses begin small again.
    stable: float = 5.0
    #: Before a network that refused WebSocket is asked for it again.
    websocket_again: float = 300.0
    #: Pauses between tries: any time up to a limit that doubles from the first number to the second.
    shortest_pause: float = 0.5
    longest_pause: float = 20.0
    #: Events, and bytes of them, that wait for the caller; beyond, the connection is not read, and the server waits.
    waiting_events: int = 1000
    waiting_bytes: int = 8 << 20
    #: Bytes of one event, or of one answer.
    largest_event: int = 16 << 20


#: What clients use that were not told otherwise.
DEFAULT = Timings()


class Options(Struct, frozen=True, kw_only=True):
    """What `connect` was asked for; `transport` is None where the client is to find out."""

    client_id: str
    transport: Transport | None
    encoding: Encoding
    batch: bool
    timings: Timings
    concurrency: int = 8
