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
from protocol.events import AgentInfo, ClientInfo, Disconnect
from protocol.framing import Framing, chunk, frame_many
from protocol.lifecycles import SUBSCRIBER, SubscriberInput, SubscriberState, advance
from server.channel.live import Marks
from server.channel.settings import ChannelSettings

__all__ = ["Subscriber", "Transport", "Wire"]

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

    def write(self, data: bytes) -> int:
        """Hand over whole frames; a connection that is lost swallows them. Returns what `buffered` would."""
        ...

    def buffered(self) -> int:
        """Bytes that were handed over and that the kernel has not taken yet."""
        ...

    async def drain(self) -> None:
        """Return when what is buffered went well below the high-water mark, or the connection is lost."""
        ...

    def lost(self) -> bool:
        """Whether the connection is gone."""
        ...

    def close(self, code: ErrorCode, farewell: Disconnect) -> None:
        """Begin to end the connection in the way of its protocol; cut it when that takes too long. Idempotent."""
        ...


class Subscriber:
    """What the channel knows of one connection. Made by the transport's handler, given to `Hub.subscribe`."""

    __slots__ = (
        "_backlog",
        "_moved",
        "_moved_at",
        "_settings",
        "_state",
        "agent",
        "busy",
        "client_id",
        "events",
        "heard_at",
        "marks",
        "position",
        "synced",
        "transport",
        "wire",
        "written",
    )

    def __init__(
        self, transport: Transport, client_id: str, agent: AgentInfo, settings: ChannelSettings, *, now: float
    ) -> None:
        self.transport = transport
        self.wire = transport.wire
        self.client_id = client_id
        self.agent = agent
        self._settings = settings
        self._state = SUBSCRIBER.initial
        #: The last event that was written, as far as it is not live.
        self.position = 0
        #: What it has of the messages being written, as far as it is not live.
        self.marks: Marks = {}
        #: Whether the first replay is over.
        self.synced = False
        #: Bytes and events handed to the transport.
        self.written = 0
        self.events = 0
        #: When the peer last gave a sign of life (monotonic seconds).
        self.heard_at = now
        #: One of its commands is being handled, so that nothing is read from it: its silence is ours.
        self.busy = False
        self._moved = 0
        self._moved_at = now
        self._backlog = 0

    @property
    def state(self) -> SubscriberState:
        """Where it is in its lifecycle."""
        return self._state

    def closed(self) -> bool:
        """Whether nothing is written to it any more."""
        return self._state in _OVER

    def advance(self, step: SubscriberInput) -> None:
        """Go to the next state; raises when the lifecycle does not allow it."""
        self._state = advance(SUBSCRIBER, self._state, step)

    def info(self) -> ClientInfo:
        """What other clients are told."""
        return ClientInfo(client_id=self.client_id, transport=self.transport.name)

    def write(self, data: bytes, events: int) -> bool:
        """Hand `events` events, framed as `data`, to the socket; whether it takes less than we write."""
        self.written += len(data)
        self.events += events
        return self.transport.write(data) > self._settings.high_water

    def congested(self) -> bool:
        """Whether its socket takes less than we write."""
        return self.transport.buffered() > self._settings.high_water

    def verdict(self, now: float) -> ErrorCode | None:
        """Why it should be closed, if it should: nothing moved for too long, or nothing was heard.

        Called at every sweep; bytes that moved since the last one count as life, so a slow reader is never taken for
        a dead one.
        """
        buffered = self.transport.buffered()
        moved = self.written - buffered
        progress = moved > self._moved
        if progress and self._backlog:
            self.heard_at = max(self.heard_at, now)
        if progress or not buffered:
            self._moved_at = now
        self._moved = moved
        self._backlog = buffered
        if now - self._moved_at >= self._settings.write_timeout:
            return ErrorCode.SLOW_CONSUMER
        silence = 0.0 if self.busy or not self.wire.is_websocket else now - self.heard_at
        return ErrorCode.STALE if silence > 2 * self._settings.heartbeat_interval else None
