"""One connection that listens to a session: a cursor and a socket, and no queue.

Its lifecycle is the table `SUBSCRIBER` in `protocol/lifecycles.py`: opening, catching up, live, and back to catching
up whenever its socket takes less than is written. A live subscriber gets what the channel writes to all. One that
catches up is read to, at the pace of its socket, by `catchup.py`. What it has already is its `position` in the log and
its `marks` in the messages being written; nothing else is kept for it, however far it lags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from protocol.envelope import Event
from protocol.errors import ErrorCode
from protocol.events import Disconnect
from protocol.framing import Framing, chunk, frame_many
from protocol.lifecycles import SUBSCRIBER, SubscriberInput, SubscriberState, advance
from server.auth.grants import OWNER, Grant
from server.channel.live import NO_MARKS
from server.channel.settings import ChannelSettings

__all__ = ["Counted", "Socket", "Subscriber", "Transport", "Wire"]

_OVER: Final = frozenset({SubscriberState.CLOSING, SubscriberState.CLOSED})


class Wire(NamedTuple):
    """How events become bytes on a connection; all connections with the same wire get the same bytes.

    `chunked`: inside HTTP/1.1's chunked transfer coding (RFC 9112, section 7.1).
    """

    framing: Framing
    chunked: bool = False

    @property
    def is_websocket(self) -> bool:
        """Whether the other side is expected to speak, if only to answer a ping."""
        return self.framing.startswith("ws-")

    def frame(self, events: Sequence[Event]) -> bytes:
        """Events as one piece of bytes, whole frames only."""
        data = frame_many(events, self.framing)
        return chunk(data) if self.chunked else data


class Socket(Protocol):
    """The part of `asyncio.WriteTransport` through which a connection is written to.

    The channel calls it with nothing of ours in between: an object that is touched for each subscriber of each event
    costs more than all that is done with it, as the kernel's `send` has driven it out of the caches by then.
    """

    def write(self, data: bytes, /) -> None:
        """Hand over bytes."""
        ...

    def is_closing(self) -> bool:
        """Whether the connection is lost, or about to be."""
        ...

    def get_write_buffer_size(self) -> int:
        """Bytes that were handed over and that the kernel has not taken yet."""
        ...


class Transport(Protocol):
    """A connection as the channel needs it. Nothing in here waits except `drain`."""

    @property
    def name(self) -> str:
        """`websocket`, `sse` or `ndjson`: what statistics and other clients are told."""
        ...

    @property
    def wire(self) -> Wire:
        """How events are framed for it; never changes."""
        ...

    @property
    def socket(self) -> Socket:
        """Where whole frames are written; never changes."""
        ...

    async def drain(self) -> None:
        """Return when what is buffered went well below the high-water mark, or the connection is lost."""
        ...

    def end(self, code: ErrorCode, farewell: Disconnect) -> None:
        """Begin to end the connection in the way of its protocol; cut it when that takes too long. Idempotent."""
        ...


class Counted(Protocol):
    """Something that is written to many at once, and counts that once for all."""

    @property
    def written(self) -> int:
        """Bytes that one was written which has been there all the time."""
        ...


class _Backlog(NamedTuple):
    """Something is buffered: how many bytes had been taken, and since when it is not more (monotonic seconds)."""

    moved: int
    since: float


class Subscriber:
    """What the channel knows of one connection. Made by the transport, given to `Hub.subscribe`."""

    __slots__ = (
        "_backlog",
        "_group",
        "_settings",
        "_state",
        "_written",
        "busy",
        "client_id",
        "grant",
        "heard_at",
        "marks",
        "position",
        "remind",
        "socket",
        "synced",
        "transport",
    )

    def __init__(
        self, transport: Transport, client_id: str, settings: ChannelSettings, *, now: float, grant: Grant = OWNER
    ) -> None:
        self.transport = transport
        self.socket = transport.socket
        self.client_id = client_id
        #: Whose it is, what he may do, and until when it is served; a newer token renews it.
        self.grant = grant
        self._settings = settings
        self._state = SUBSCRIBER.initial
        #: The last event that was written, as far as it is not live.
        self.position = 0
        #: What it has of the messages being written, as far as it is not live.
        self.marks = NO_MARKS
        #: Whether the first replay is over.
        self.synced = False
        #: Whether it is to be told, after that, what is open.
        self.remind = False
        #: When the peer last gave a sign of life (monotonic seconds).
        self.heard_at = now
        #: One of its commands is being handled, so that nothing is read from it: its silence is ours.
        self.busy = False
        self._group: Counted | None = None
        self._written = 0
        #: What the last sweep found in the buffer, if anything.
        self._backlog: _Backlog | None = None

    @property
    def state(self) -> SubscriberState:
        """Where it is in its lifecycle."""
        return self._state

    @property
    def wire(self) -> Wire:
        """How events are framed for it."""
        return self.transport.wire

    @property
    def written(self) -> int:
        """Bytes handed to the socket, by itself and with its group."""
        return self._written + (0 if self._group is None else self._group.written)

    def closed(self) -> bool:
        """Whether nothing is written to it any more."""
        return self._state in _OVER

    def advance(self, step: SubscriberInput) -> None:
        """Go to the next state; raises when the lifecycle does not allow it."""
        self._state = advance(SUBSCRIBER, self._state, step)

    def follow(self, group: Counted | None) -> None:
        """Count what the group is written as written to this one too, from now on; with None, no more."""
        self._written = self.written - (0 if group is None else group.written)
        self._group = group

    def count(self, size: int) -> None:
        """So many bytes were handed to the socket for it alone."""
        self._written += size

    def write(self, data: bytes) -> bool:
        """Hand whole frames to the socket, for it alone; whether it takes less than we write."""
        self.count(len(data))
        if not self.lost():
            self.socket.write(data)
        return self.congested()

    def lost(self) -> bool:
        """Whether the connection is gone, or about to be."""
        return self.socket.is_closing()

    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""
        return self.socket.get_write_buffer_size()

    def congested(self) -> bool:
        """Whether its socket takes less than we write."""
        return self.buffered() > self._settings.high_water

    def verdict(self, now: float) -> ErrorCode | None:
        """Why it should be closed, if it should: nothing moved for too long, or nothing was heard.

        Called at every sweep; bytes that moved since the last one count as life, so a slow reader is never taken for
        a dead one.
        """
        buffered = self.buffered()
        moved = self.written - buffered
        before, self._backlog = self._backlog, None
        progress = before is not None and moved > before.moved
        if progress:
            self.heard_at = max(self.heard_at, now)
        if buffered:
            self._backlog = _Backlog(moved, now if before is None or progress else before.since)
            if now - self._backlog.since >= self._settings.write_timeout:
                return ErrorCode.SLOW_CONSUMER
        silence = 0.0 if self.busy or not self.wire.is_websocket else now - self.heard_at
        return ErrorCode.STALE if silence > 2 * self._settings.heartbeat_interval else None
