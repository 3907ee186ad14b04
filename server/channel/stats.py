"""What the hub counts: connections, events and bytes sent, sessions with subscribers, and what went wrong how often."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

__all__ = ["Counters", "HubStats"]


class Counters:
    """Running totals since the process began."""

    __slots__ = (
        "bytes_sent",
        "catch_ups",
        "closed",
        "command_timeouts",
        "commands",
        "connections_opened",
        "events_sent",
        "fell_behind",
        "framings",
        "last_published",
        "log_reads",
        "malformed",
        "published",
        "read_failures",
        "refused",
    )

    def __init__(self) -> None:
        self.bytes_sent = 0
        self.catch_ups = 0
        #: Channels that the server ended, by the code it gave.
        self.closed: dict[str, int] = {}
        self.command_timeouts = 0
        self.commands = 0
        self.connections_opened = 0
        self.events_sent = 0
        self.fell_behind = 0
        self.framings = 0
        self.log_reads = 0
        #: When the last durable event was committed here.
        self.last_published: datetime | None = None
        self.malformed = 0
        #: Durable events that were committed here, whoever hears them.
        self.published = 0
        self.read_failures = 0
        self.refused = 0

    def sent(self, events: int, size: int) -> None:
        """So many events were handed to sockets, in so many bytes; each counts for each that got it."""
        self.events_sent += events
        self.bytes_sent += size


class HubStats(Struct, frozen=True, kw_only=True):
    """A picture of the hub. Counts of what is now, then totals since the process began.

    `connections` are streams by transport; `framings` how often events were put into bytes (once for all subscribers
    of a wire); `fell_behind` how often a connection was slower than its session; `closed` endings by code.
    """

    connections: dict[str, int]
    sessions_with_subscribers: int
    messages_being_written: int
    catching_up: int
    buffered_bytes: int

    connections_opened: int
    connections_refused: int
    events_sent: int
    bytes_sent: int
    framings: int
    fell_behind: int
    catch_ups: int
    log_reads: int
    read_failures: int
    commands: int
    malformed_commands: int
    command_timeouts: int
    closed: dict[str, int]
