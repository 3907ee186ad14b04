"""The Python client: one session, followed and spoken to over whatever transport the network lets through.

    async with connect("http://127.0.0.1:8080", token=...) as session:
        await session.say("hello")
        async for event in session:
            match event.payload:
                case MessageDelta(message_id=message_id):
                    print(session.texts[message_id].text())

Events come in the order of the log, each durable one once, also over lost connections and restarted servers: the
client reconnects at its cursor, as the server advises, with full jitter. Commands are sent until they are
acknowledged, under the same id, which takes effect once. WebSocket comes first; where it is not let through, SSE and
POST do the same.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeAlias
from urllib.parse import quote, urlencode
from uuid import UUID

import aiohttp
import msgspec
from msgspec import Struct

from protocol.codec import encode_command
from protocol.commands import Cancel, Command, OnBusy, Ping, UserMessage
from protocol.cursor import Cursor, parse_cursor
from protocol.delta import MessageText
from protocol.envelope import Envelope, decode_event
from protocol.errors import ErrorCode, ParleyError
from protocol.events import (
    Ack,
    CommandError,
    Connected,
    Disconnect,
    Heartbeat,
    MessageCreated,
    MessageDelta,
    Payload,
    ResyncRequired,
    Sync,
)
from protocol.framing import NdjsonParser, SseParser, split_batch

__all__ = ["Backoff", "Client", "Received", "Transport", "connect", "create_session"]

Transport: TypeAlias = Literal["ws", "sse", "ndjson"]

#: Events that wait for the caller; beyond, the connection is not read and the server slows down for us.
_QUEUE: Final = 1000
#: Seconds: until a connection shows its first frame; until a command counts as unanswered; of silence beyond the two
#: heartbeats that make a connection a lost one; before a network that refused WebSocket is asked for it again.
_OPENING: Final = 10.0
_ANSWER: Final = 15.0
_GRACE: Final = 2.0
_WEBSOCKET_AGAIN: Final = 300.0
_MAX_FRAME: Final = 16 << 20
#: Seconds after which a connection has proved itself, and pauses begin small again.
_STABLE: Final = 5.0

#: WebSocket's own codes for "you speak wrongly" (RFC 6455, section 7.4.1): saying it again helps nobody.
_FINAL_CLOSE_CODES: Final = frozenset({1002, 1007, 1009})
_RETRYABLE_STATUS: Final = frozenset({408, 429, 500, 502, 503, 504})
_FINAL_STATUS: Final = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    410: ErrorCode.SESSION_GONE,
}
_RETRYABLE: Final = frozenset(
    {
        ErrorCode.INTERNAL,
        ErrorCode.RATE_LIMITED,
        ErrorCode.SHUTDOWN,
        ErrorCode.SLOW_CONSUMER,
        ErrorCode.STALE,
        ErrorCode.UNAVAILABLE,
    }
)
_LOST: Final = (aiohttp.ClientError, ConnectionError, TimeoutError, OSError)
_JSON: Final = {"Content-Type": "application/json"}
_ACCEPT: Final = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}


#: Not for those who iterate: answers to commands, and signs of life.
_UNTOLD: Final = (Ack, CommandError, Heartbeat)


class Received(Struct, frozen=True):
    """An event. `payload` is None for a type that this version does not know; `raw` is the whole as it came, JSON."""

    envelope: Envelope
    payload: Payload | None
    raw: bytes

    @property
    def event_type(self) -> str:
        """The event's name on the wire."""
        return self.envelope.event_type

    @property
    def cursor(self) -> str | None:
        """Where a durable event stands in the log."""
        return self.envelope.cursor


class CreatedSession(Struct, frozen=True):
    """What `create_session` made: the server's `id`, the caller's own `alias`."""

    id: UUID
    alias: str | None
    current_agent: str
    cursor: str


class Backoff:
    """Pauses between tries in seconds, with full jitter: any time up to a limit that doubles, 0.5 to 20."""

    def __init__(self, shortest: float = 0.5, longest: float = 20.0) -> None:
        self._shortest = shortest
        self._longest = longest
        self._tries = 0

    def next(self, at_least: float | None = None) -> float:
        """The next pause; the server's advice is kept, and jitter added to it."""
        limit = min(self._longest, self._shortest * 2 ** min(self._tries, 16))
        self._tries += 1
        return (at_least or 0.0) + random.uniform(0, limit)  # noqa: S311 - no secret is made of it

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._tries = 0


class _Link(Protocol):
    """A connection that brings events."""

    def frames(self) -> AsyncGenerator[bytes, None]: ...

    async def send(self, data: bytes) -> None: ...


class _WebSocketLink:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def frames(self) -> AsyncGenerator[bytes, None]:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                for frame in split_batch(message.data.encode()):
                    yield frame
        code = self._socket.close_code or 0
        known = ErrorCode.of_close(code)
        if known is not None or code >= 4500 or code in _FINAL_CLOSE_CODES:
            raise ParleyError(known or ErrorCode.PROTOCOL_ERROR, f"the server closed the connection with {code}")

    async def send(self, data: bytes) -> None:
        await self._socket.send_str(data.decode())


class _StreamLink:
    def __init__(self, response: aiohttp.ClientResponse, transport: Transport) -> None:
        self._response = response
        self._transport = transport

    async def frames(self) -> AsyncGenerator[bytes, None]:
        sse, ndjson = SseParser(_MAX_FRAME), NdjsonParser(_MAX_FRAME)
        async for data in self._response.content.iter_any():
            if self._transport == "sse":
                for message in sse.feed(data):
                    yield message.data.encode()
            else:
                for line in ndjson.feed(data):
                    yield line

    async def send(self, data: bytes) -> None:
        raise TypeError("a stream goes one way")


class Client:
    """One session; made by `connect`, used as an async context manager and as an async iterator.

    Iterate to receive; while nobody does, at most a thousand events wait and then the server does. Iterating raises
    ParleyError when the server says that coming back is pointless, and ends after `close`.
    """

    def __init__(
        self,
        url: str,
        session: str | None,
        *,
        token: str | None,
        transport: Transport | Literal["auto"],
        after: str | None,
        client_id: str | None,
    ) -> None:
        self.client_id = client_id or f"py-{secrets.token_hex(8)}"
        self.session = session or ""
        #: The transport in use; None while there is no connection.
        self.transport: Transport | None = None
        #: Where the caller is: after the last durable event that iterating gave out.
        self.cursor = after
        #: What the server said about session, agent and limits when the last connection began.
        self.connected: Connected | None = None
        #: The texts of the messages that are being written, as far as iterating gave out their deltas.
        self.texts: dict[UUID, MessageText] = {}
        self._url = url.rstrip("/")
        self._token = token
        self._choice = transport
        self._position = after
        self._queue: asyncio.Queue[Received | None] = asyncio.Queue(_QUEUE)
        self._pending: dict[str, asyncio.Future[Ack]] = {}
        self._backoff = Backoff()
        self._heartbeat = 15.0
        self._live: _Link | None = None
        self._synced = False
        self._farewell: Disconnect | None = None
        self._no_websocket_until = 0.0
        self._failure: ParleyError | None = None
        self._trouble: Exception | None = None
        self._opened = asyncio.Event()
        self._http: aiohttp.ClientSession | None = None
        self._reader: asyncio.Task[None] | None = None

    # --- life

    async def __aenter__(self) -> Self:
        """Connect. Raises ParleyError when the server refuses, ConnectionError when nobody answers for 10 seconds."""
        if not self.session:
            self.session = str((await create_session(self._url, token=self._token)).id)
        self._http = _http(self._token)
        self._reader = asyncio.create_task(self._run(), name="parley-client")
        try:
            async with asyncio.timeout(_OPENING):
                await self._opened.wait()
        except TimeoutError:
            await self.close()
            raise ConnectionError(f"{self._url} does not answer: {self._trouble or 'no connection'}") from self._trouble
        except BaseException:
            await self.close()
            raise
        if self._failure is not None:
            await self.close()
            raise self._failure
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave; may be called again. Commands that wait for their answer raise ConnectionError."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._http is not None:
            await self._http.close()
        self._interrupt("the client was closed")
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    # --- receiving

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        event = await self._queue.get()
        if event is None:
            # The next one who asks gets the same answer.
            self._queue.put_nowait(None)
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        self.cursor = event.cursor or self.cursor
        self._assemble(event.payload)
        return event

    def _assemble(self, payload: Payload | None) -> None:
        match payload:
            case MessageDelta():
                self.texts.setdefault(payload.message_id, MessageText(payload.message_id)).apply(payload)
            case MessageCreated():
                self.texts.pop(payload.message_id, None)
            case ResyncRequired():
                self.texts.clear()
                self.cursor = payload.cursor
            case _:
                pass

    # --- sending

    async def say(self, content: str, *, agent_type: str | None = None, on_busy: OnBusy = "enqueue") -> Ack:
        """Say something to the agent."""
        return await self.send(UserMessage(id=_new_id(), content=content, agent_type=agent_type, on_busy=on_busy))

    async def cancel(self, turn_id: UUID | None = None) -> Ack:
        """Stop the running turn."""
        return await self.send(Cancel(id=_new_id(), turn_id=turn_id))

    async def send(self, command: Command, *, timeout: float | None = 60.0) -> Ack:
        """Send a command until it is acknowledged; it takes effect once, however often it had to be sent.

        Raises ParleyError when it is refused, TimeoutError after `timeout` seconds: then it may have taken effect, and
        sending it again under the same id tells.
        """
        if command.id is None:
            raise ValueError("a command that is to be acknowledged needs an id")
        backoff = Backoff(0.2, 5.0)
        async with asyncio.timeout(timeout):
            while True:
                pause: float
                try:
                    return await self._deliver(command.id, encode_command(command))
                except ParleyError as error:
                    if error.code not in _RETRYABLE:
                        raise
                    pause = backoff.next(error.retry_after)
                except _LOST:
                    if self._http is None or self._http.closed:
                        raise
                    pause = backoff.next()
                await asyncio.sleep(pause)

    async def _deliver(self, command_id: str, data: bytes) -> Ack:
        if self.transport != "ws" or self._live is None or not self._synced or self._queue.full():
            return await self._post(data)
        reply = self._pending.setdefault(command_id, asyncio.get_running_loop().create_future())
        try:
            await self._live.send(data)
            async with asyncio.timeout(_ANSWER):
                return await asyncio.shield(reply)
        finally:
            self._pending.pop(command_id, None)

    async def _post(self, data: bytes) -> Ack:
        if self._http is None:
            raise ConnectionError("the client is not connected")
        url = self._address("commands")
        wait = aiohttp.ClientTimeout(total=_ANSWER)
        async with self._http.post(url, data=data, headers=_JSON, timeout=wait) as response:
            if response.status != 200:
                raise await _refusal(response)
            return msgspec.json.decode(await response.read(), type=Ack)

    def _interrupt(self, reason: str) -> None:
        """Nobody knows whether these commands arrived: whoever waits sends again, or learns that it is over."""
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(ConnectionError(reason))
                # Taken by whoever waits; where nobody does any more, it is no loss.
                reply.exception()
        self._pending.clear()

    # --- the connection

    async def _run(self) -> None:
        """Keep a connection, until the server says that it is pointless."""
        now = asyncio.get_running_loop().time
        while True:
            transport, began = self._pick(), now()
            try:
                trouble: Exception = await self._follow(transport)
            except (ParleyError, *_LOST) as error:
                trouble = error
            was_synced, self._synced, self._live, self.transport = self._synced, False, None, None
            self._interrupt("the connection was lost")
            if self._farewell is not None:
                trouble, self._farewell = _advice(self._farewell), None
            self._trouble = trouble
            if isinstance(trouble, ParleyError) and trouble.code not in _RETRYABLE:
                self._failure = trouble
                self._opened.set()
                await self._queue.put(None)
                return
            if was_synced and now() - began > _STABLE:
                self._backoff.reset()
            if was_synced or not self._fall_back(transport, trouble):
                await asyncio.sleep(self._backoff.next(getattr(trouble, "retry_after", None)))

    def _pick(self) -> Transport:
        if self._choice != "auto":
            return self._choice
        return "ws" if asyncio.get_running_loop().time() >= self._no_websocket_until else "sse"

    def _fall_back(self, transport: Transport, trouble: Exception) -> bool:
        """Whether to try SSE at once: a network may refuse WebSocket, or let it begin and then cut it."""
        unreachable = isinstance(trouble, aiohttp.ClientConnectorError | ParleyError)
        if self._choice != "auto" or transport != "ws" or unreachable:
            return False
        self._no_websocket_until = asyncio.get_running_loop().time() + _WEBSOCKET_AGAIN
        return True

    async def _follow(self, transport: Transport) -> Exception:
        """One connection, from its opening to its end, and why it ended."""
        async with self._link(transport) as link, aclosing(link.frames()) as frames:
            self.transport, self._live = transport, link
            pulse = asyncio.create_task(self._pulse(link)) if transport == "ws" else None
            patience = _OPENING
            try:
                while True:
                    async with asyncio.timeout(patience):
                        frame = await anext(frames, None)
                    if frame is None:
                        return ConnectionError("the connection ended")
                    await self._take(frame)
                    patience = 2 * self._heartbeat + _GRACE
            finally:
                if pulse is not None:
                    pulse.cancel()
                    await asyncio.gather(pulse, return_exceptions=True)

    @asynccontextmanager
    async def _link(self, transport: Transport) -> AsyncIterator[_Link]:
        assert self._http is not None, "the reader lives while the client is open"
        after = {} if self._position is None else {"after": self._position}
        url = self._address("ws" if transport == "ws" else "events", **after)
        if transport == "ws":
            try:
                async with asyncio.timeout(_OPENING):
                    socket = await self._http.ws_connect(
                        url, protocols=("parley.v1.json",), max_msg_size=_MAX_FRAME, compress=0
                    )
            except aiohttp.WSServerHandshakeError as error:
                if self._choice == "auto" or error.status in _RETRYABLE_STATUS:
                    # SSE will be told why in words, if it is not WebSocket alone that is unwelcome.
                    raise
                raise ParleyError(_code_of(error.status), f"the server answered {error.status}") from error
            async with socket:
                yield _WebSocketLink(socket)
            return
        async with (
            asyncio.timeout(_OPENING) as opening,
            self._http.get(url, headers={"Accept": _ACCEPT[transport], "Cache-Control": "no-store"}) as response,
        ):
            opening.reschedule(None)
            if response.status != 200:
                raise await _refusal(response)
            yield _StreamLink(response, transport)

    def _address(self, leaf: str, **query: str) -> str:
        query["client_id"] = self.client_id
        return f"{self._url}/sessions/{quote(self.session, safe='')}/{leaf}?{urlencode(query)}"

    async def _pulse(self, link: _Link) -> None:
        """Let the server hear from us, as silence counts as loss on both sides."""
        while True:
            await asyncio.sleep(self._heartbeat)
            await link.send(encode_command(Ping()))

    async def _take(self, frame: bytes) -> None:
        envelope = decode_event(frame)
        payload = envelope.decode()
        match payload:
            case Ack() | CommandError():
                self._answer(payload)
            case Connected():
                self.connected = payload
                self._heartbeat = max(payload.heartbeat_interval_ms / 1000, 0.1)
                self._position = self._position or payload.cursor
                self._opened.set()
            case Sync():
                self._synced = True
            case ResyncRequired():
                self._position = payload.cursor
            case Disconnect():
                self._farewell = payload
            case _:
                pass
        if isinstance(payload, _UNTOLD) or (envelope.cursor is not None and not self._advance(envelope.cursor)):
            return
        if self._queue.full():
            # While the caller does not take events no answer would be read: commands go over POST meanwhile.
            self._interrupt("the connection is not read at the moment")
        await self._queue.put(Received(envelope, payload, frame))

    def _advance(self, cursor: str) -> bool:
        """Move on to a durable event; False for one that was there before."""
        here, there = parse_cursor(self._position or "0"), parse_cursor(cursor)
        seen = here if isinstance(here, int) else here.seq
        same_epoch = not isinstance(here, Cursor) or not isinstance(there, Cursor) or here.epoch == there.epoch
        if same_epoch and (there if isinstance(there, int) else there.seq) <= seen:
            return False
        self._position = cursor
        return True

    def _answer(self, payload: Ack | CommandError) -> None:
        reply = self._pending.get(payload.id or "")
        if reply is None or reply.done():
            return
        if isinstance(payload, Ack):
            reply.set_result(payload)
            return
        code = ErrorCode.of(payload.code) or ErrorCode.PROTOCOL_ERROR
        wait = None if payload.retry_after_ms is None else payload.retry_after_ms / 1000
        reply.set_exception(ParleyError(code, payload.message, path=payload.path, retry_after=wait, id=payload.id))


def connect(
    url: str,
    session: str | None = None,
    *,
    token: str | None = None,
    transport: Transport | Literal["auto"] = "auto",
    after: str | None = None,
    client_id: str | None = None,
) -> Client:
    """A client of one session; `async with` connects it.

    Without a `session` a new one is made. `after` is the cursor at which to begin (`"0"`: with everything that was
    ever said), from now on when missing. `client_id` is who you are over reconnects; made up when missing. `transport`
    fixes one instead of finding out which works.
    """
    return Client(url, session, token=token, transport=transport, after=after, client_id=client_id)


async def create_session(
    url: str,
    session_id: str | None = None,
    *,
    title: str | None = None,
    agent_type: str | None = None,
    token: str | None = None,
) -> CreatedSession:
    """Make a session; `session_id` is your own name for it. Raises ParleyError (CONFLICT when you have that name)."""
    given = {"session_id": session_id, "title": title, "agent_type": agent_type}
    body = msgspec.json.encode({name: value for name, value in given.items() if value is not None})
    wait = aiohttp.ClientTimeout(total=_ANSWER)
    async with (
        _http(token) as http,
        http.post(f"{url.rstrip('/')}/sessions", data=body, headers=_JSON, timeout=wait) as answer,
    ):
        if answer.status != 201:
            raise await _refusal(answer)
        return msgspec.json.decode(await answer.read(), type=CreatedSession)


def _http(token: str | None) -> aiohttp.ClientSession:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    # A stream has no total time; silence is what ends it.
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None, sock_connect=_OPENING))


async def _refusal(response: aiohttp.ClientResponse) -> ParleyError:
    """What a response other than the wanted one means, in the server's words where they are there."""
    code = _code_of(response.status)
    message, path, wait = f"the server answered {response.status}", None, None
    if response.content_type == "application/problem+json":
        problem = msgspec.json.decode(await response.read(), type=_Problem)
        code = ErrorCode.of(problem.code) or code
        message, path, wait = problem.detail, problem.path, problem.retry_after
    return ParleyError(code, message, path=path, retry_after=wait)


def _advice(farewell: Disconnect) -> ParleyError:
    """The server's last word, as an error that says whether and when to come back."""
    code = ErrorCode.of(farewell.code) or ErrorCode.PROTOCOL_ERROR
    if farewell.reconnect and code not in _RETRYABLE:
        code = ErrorCode.UNAVAILABLE
    wait = None if farewell.retry_after_ms is None else farewell.retry_after_ms / 1000
    return ParleyError(code, farewell.reason, retry_after=wait)


class _Problem(Struct):
    code: str = ""
    detail: str = ""
    path: str | None = None
    retry_after: float | None = None


def _code_of(status: int) -> ErrorCode:
    """The code that fits a status which came without one."""
    if status in _RETRYABLE_STATUS:
        return ErrorCode.RATE_LIMITED if status == 429 else ErrorCode.UNAVAILABLE
    return _FINAL_STATUS.get(status, ErrorCode.PROTOCOL_ERROR)


def _new_id() -> str:
    return secrets.token_hex(16)
