"""What the hub's own tests run on: a log in memory, and sockets that drain when they are told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from protocol.delta import utf16_len
from protocol.envelope import Encoding, Envelope, decode_event
from protocol.errors import ErrorCode, ParleyError
from protocol.events import AgentInfo, Disconnect, MessageDelta
from protocol.framing import Framing, NdjsonParser, SseParser
from server.channel.hub import Hub
from server.channel.settings import ChannelSettings
from server.channel.subscriber import Subscriber, Wire
from storage.commits import Committed
from storage.log import StoredEvent
from storage.sessions import Session
from tests.support.clock import ManualClock, settle

BEGINNING = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
AGENT = AgentInfo(type="coder", agent_id=UUID(int=7), name="Coder")
WIRES = [
    Wire("ws-json"),
    Wire("ws-json-batch"),
    Wire("ws-msgpack"),
    Wire("sse", chunked=True),
    Wire("sse"),
    Wire("ndjson", chunked=True),
]


class MemoryLog:
    """`EventLog.read` and `Sessions.heads` of one session, with switches for what a database can do to us."""

    def __init__(self, session_id: UUID, epoch: str = "e1") -> None:
        self.session_id = session_id
        self.epoch = epoch
        self.events: list[StoredEvent] = []
        self.away = False
        self.reads = 0
        self.gate: asyncio.Event | None = None

    def store(self, *bodies: bytes, event_type: str = "message_created") -> Committed:
        """Commit one transaction; who listens is not told yet."""
        first = len(self.events) + 1
        new = tuple(
            StoredEvent(seq, event_type, BEGINNING + timedelta(milliseconds=seq), body)
            for seq, body in enumerate(bodies, start=first)
        )
        self.events.extend(new)
        return Committed(self.session_id, self.epoch, new)

    async def read(
        self, session_id: UUID, after: int, *, limit: int = 500, max_bytes: int = 1 << 20
    ) -> list[StoredEvent]:
        assert session_id == self.session_id
        self.reads += 1
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        self._check()
        page: list[StoredEvent] = []
        for event in self.events[after : after + limit]:
            if page and len(event.body) > max_bytes:
                break
            page.append(event)
            max_bytes -= len(event.body)
        return page

    async def heads(self, session_ids: Sequence[UUID]) -> dict[UUID, int]:
        await asyncio.sleep(0)
        self._check()
        return {self.session_id: len(self.events)} if self.session_id in session_ids else {}

    def session(self) -> Session:
        """The session as the database has it now."""
        return Session(
            session_id=self.session_id,
            owner="alice",
            alias=None,
            epoch=self.epoch,
            seq=len(self.events),
            title=None,
            description=None,
            current_agent="coder",
            active_turn=None,
            queued=0,
            message_count=0,
            created_at=BEGINNING,
            last_activity=BEGINNING,
            is_active=True,
        )

    def _check(self) -> None:
        if self.away:
            raise ParleyError(ErrorCode.UNAVAILABLE, "the database is away", retry_after=1.0)


class FakeTransport:
    """A socket whose kernel takes `room` bytes at once; `take` frees more, as a reading peer does."""

    def __init__(self, wire: Wire, *, room: int | None = None, low_water: int = 0) -> None:
        self.wire = wire
        self.name = "websocket" if wire.is_websocket else wire.framing
        self.writes: list[bytes] = []
        self.ended: tuple[ErrorCode, Disconnect] | None = None
        self.gone = False
        self.before_write: Callable[[], None] | None = None
        self._room = room
        self._low_water = low_water
        self._buffered = 0
        self._drained: list[asyncio.Future[None]] = []

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)

    @property
    def socket(self) -> FakeTransport:
        return self

    def write(self, data: bytes) -> None:
        assert self.ended is None, "nothing is written to a closed connection"
        self.writes.append(data)
        if self._room is not None:
            self._buffered += len(data)
            self._move()

    def get_write_buffer_size(self) -> int:
        return self._buffered

    async def drain(self) -> None:
        if self._buffered > self._low_water and not self.gone:
            waiter = asyncio.get_running_loop().create_future()
            self._drained.append(waiter)
            await waiter

    def is_closing(self) -> bool:
        return self.gone

    def end(self, code: ErrorCode, farewell: Disconnect) -> None:
        self.ended = self.ended or (code, farewell)

    def take(self, amount: int) -> None:
        """The peer reads."""
        assert self._room is not None
        self._room += amount
        self._move()

    def unstick(self) -> None:
        """From now on the peer reads everything at once."""
        self._room = None
        self._buffered = 0
        self._wake()

    def lose(self) -> None:
        """The connection breaks."""
        self.gone = True
        self._wake()

    def _move(self) -> None:
        assert self._room is not None
        moved = min(self._room, self._buffered)
        self._room -= moved
        self._buffered -= moved
        if self._buffered <= self._low_water:
            self._wake()

    def _wake(self) -> None:
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(None)
        self._drained.clear()


class Desk:
    """A hub on a log in memory, one session, and a clock; what every test begins with."""

    def __init__(self, settings: ChannelSettings | None = None) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(UUID(int=42))
        self.session_id = self.log.session_id
        self.hub = Hub(self.log, self.log, self.clock, settings, version="1.2.3")

    async def advance(self, seconds: float) -> None:
        """Let what is ready happen, then the time pass."""
        await settle(30)
        await self.clock.advance(seconds)
        await settle(30)

    def store(self, *bodies: bytes, event_type: str = "message_created") -> Committed:
        return self.log.store(*bodies, event_type=event_type)

    def commit(self, *bodies: bytes) -> Committed:
        """Store and tell the hub."""
        committed = self.log.store(*bodies)
        self.hub.commit(committed)
        return committed

    def listen(
        self,
        after: object = None,
        *,
        wire: Wire = WIRES[0],
        room: int | None = None,
        client_id: str = "c1",
        session: Session | None = None,
    ) -> Peer:
        peer = Peer(self.hub, FakeTransport(wire, room=room), client_id)
        self.hub.subscribe(session or self.log.session(), peer.subscriber, after, AGENT)  # type: ignore[arg-type]
        return peer


class Peer:
    """A client: what it was sent, decoded as a client would."""

    def __init__(self, hub: Hub, transport: FakeTransport, client_id: str) -> None:
        self.transport = transport
        self.subscriber = Subscriber(transport, client_id, hub.settings, now=hub.clock.monotonic())

    @property
    def events(self) -> list[Envelope]:
        return decode_stream(self.transport.data, self.transport.wire)

    @property
    def types(self) -> list[str]:
        return [event.event_type for event in self.events]

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.events if event.seq is not None]

    def text(self, message_id: UUID) -> str:
        """The text of a message as the deltas of its highest attempt give it; they must fit each other."""
        text, attempt = "", 0
        for event in self.events:
            if event.event_type != "message_delta":
                continue
            delta = event.decode(encoding_of(self.transport.wire.framing))
            assert isinstance(delta, MessageDelta)
            if delta.message_id != message_id or delta.attempt < attempt:
                continue
            if delta.attempt > attempt:
                text, attempt = "", delta.attempt
            assert delta.offset == utf16_len(text), "deltas leave no gap, and repeat nothing"
            text += delta.text
        return text


def encoding_of(framing: Framing) -> Encoding:
    return "msgpack" if framing == "ws-msgpack" else "json"


def decode_stream(data: bytes, wire: Wire) -> list[Envelope]:
    """All events in the bytes of a connection."""
    if wire.is_websocket:
        messages = [payload for opcode, payload in ws_messages(data) if opcode in {1, 2}]
        if wire.framing == "ws-msgpack":
            return [decode_event(message, "msgpack") for message in messages]
        return [decode_event(line) for message in messages for line in message.split(b"\n")]
    body = dechunk(data) if wire.chunked else data
    if wire.framing == "ndjson":
        return [decode_event(line) for line in NdjsonParser().feed(body)]
    return [decode_event(message.data) for message in SseParser().feed(body)]


def ws_messages(data: bytes) -> list[tuple[int, bytes]]:
    """Unmasked, final frames (RFC 6455, section 5.2), read by other code than that which wrote them."""
    found = []
    while data:
        assert data[0] & 0xF0 == 0x80, "a final frame without extensions"
        size, head = data[1], 2
        if size == 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(data[2:10], "big"), 10
        assert len(data) >= head + size, "frames are written whole"
        found.append((data[0] & 0x0F, data[head : head + size]))
        data = data[head + size :]
    return found


def dechunk(data: bytes) -> bytes:
    """The content of HTTP/1.1 chunks (RFC 9112, section 7.1)."""
    body = b""
    while data:
        size_text, data = data.split(b"\r\n", 1)
        size = int(size_text, 16)
        body += data[:size]
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
    return body


def body(number: int, size: int = 0) -> bytes:
    """A payload that can be told from others."""
    return msgspec.json.encode({"number": number, "padding": "x" * size})
