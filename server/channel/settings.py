"""The numbers of the channel: how often, how much, how long. Seconds and bytes throughout."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

__all__ = ["ChannelSettings"]

Seconds: TypeAlias = Annotated[float, Meta(gt=0)]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Bytes: TypeAlias = Annotated[int, Meta(ge=1)]


class ChannelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and intervals of sessions' channels; every wait and every buffer of `server/channel` is bounded by one."""

    #: A `heartbeat` frame goes out this often; silence of two intervals is a lost connection.
    heartbeat_interval: Seconds = 15.0
    #: A peer none of whose bytes moved for this long is closed with `slow_consumer`.
    write_timeout: Seconds = 20.0
    #: What the farewell may take (close handshake, last chunk) before the connection is cut.
    close_timeout: Seconds = 5.0
    #: Bytes in a connection's write buffer beyond which it is served from the log instead of live.
    high_water: Bytes = 65_536
    #: What is read from ring or log, and written, at a time while a subscriber catches up.
    page_bytes: Bytes = 65_536
    #: Recent events that a channel keeps, so that a short lag is no database read.
    ring_bytes: Bytes = 262_144
    #: Events that wait in a channel for an earlier one; those beyond are dropped and read from the log.
    reorder_events: Count = 1_024

    #: How often the log's heads are compared with ours: the guarantee behind every notification.
    poll_interval: Seconds = 1.0
    #: How often connections are looked at for lost peers and stuck writes.
    sweep_interval: Seconds = 1.0
    #: Reads of the log that run at once for all channels, so that a reconnect storm leaves the pool to commands.
    log_readers: Count = 4
    #: What one read of the log may take before it counts as failed and is tried again.
    read_timeout: Seconds = 10.0
    #: The pause before a failed read is tried again; doubled each time up to `retry_longest`.
    retry_shortest: Seconds = 0.1
    #: The longest such pause.
    retry_longest: Seconds = 5.0

    #: What a command may take; then its sender is told to send it again (the id makes that harmless).
    command_timeout: Seconds = 30.0
    #: One command over WebSocket, or one request body over POST.
    max_command_bytes: Bytes = 1 << 20
    #: Levels of arrays and objects in a command.
    max_nesting: Count = 64
    #: Commands in one POST.
    max_commands: Count = 256
    #: This many malformed commands within `malformed_window` close a WebSocket with `protocol_error`.
    malformed_burst: Count = 20
    #: The time over which malformed commands are counted.
    malformed_window: Seconds = 10.0

    #: Streams (WebSocket, SSE, NDJSON) in this process.
    max_connections: Count = 10_000
    #: Streams of one session in this process.
    max_session_connections: Count = 1_000
