"""The client's numbers: how long it waits for what, and how much it holds."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Timings"]


class Timings(Struct, frozen=True, kw_only=True):
    """How patient a client is; seconds, unless a field says otherwise. The defaults suit people at a screen."""

    #: Until a new connection shows its first frame, and until `async with` gives up.
    opening: float = 10.0
    #: Until a command, or any other request, counts as unanswered.
    answer: float = 15.0
    #: Of silence, beyond the two heartbeats that make a connection a lost one.
    grace: float = 2.0
    #: After which a connection has proved itself, and pauses begin small again.
    stable: float = 5.0
    #: Before a network that refused WebSocket is asked for it again.
    websocket_again: float = 300.0
    #: Pauses between tries: any time up to a limit that doubles from the first number to the second.
    shortest_pause: float = 0.5
    longest_pause: float = 20.0
    #: Events that wait for the caller; beyond, the connection is not read and the server slows down for us.
    waiting_events: int = 1000
    #: Bytes of one event.
    largest_event: int = 16 << 20


#: What clients use that were not told otherwise.
DEFAULT = Timings()
