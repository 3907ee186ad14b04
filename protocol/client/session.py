"""One session, followed and spoken to over whatever transport the network lets through."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Final, Literal, Self
from uuid import UUID

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from protocol.client import settings
from protocol.client.backoff import Backoff
from protocol.client.http import LOST, RETRYABLE, Http, Token, code_of, path_of, refusal, unreachable
from protocol.client.links import Link, StreamLink, Transport, WebSocketLink
from protocol.client.rest import Server
from protocol.client.settings import Timings
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

__all__ = ["Client", "Received", "connect"]

_ACCEPT: Final = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}
_JSON: Final = {"Content-Type": "application/json"}

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


class Client:
    """One session; made by `connect`, used as an async context manager and as an async iterator.

    Iterate to receive; while nobody does, at most a thousand events wait and then the server does. Iterating raises
    ParleyError when the server says that coming back is pointless, and ends after `close`.
    """

    def __init__(  # noqa: PLR0913 - made by `connect`, whose parameters these are
        self,
        url: str,
        session: str | None,
        *,
        token: Token | None,
        transport: Transport | Literal["auto"],
        after: str | None,
        client_id: str | None,
        timings: Timings,
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
        self._timings = timings
        self._http = Http(url, token, timings)
        #: What is asked once: sessions, history, agents.
        self.server = Server.over(self._http)
        self._choice = transport
        self._position = after
        self._queue: asyncio.Queue[Received | None] = asyncio.Queue(timings.waiting_events)
        self._pending: dict[str, asyncio.Future[Ack]] = {}
        self._backoff = Backoff(timings.shortest_pause, timings.longest_pause)
        self._heartbeat = 15.0
        self._live: Link | None = None
        self._synced = False
        self._farewell: Disconnect | None = None
        self._no_websocket_until = 0.0
        self._failure: ParleyError | None = None
        self._trouble: Exception | None = None
        self._opened = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    # --- life

    async def __aenter__(self) -> Self:
        """Connect. Raises ParleyError when the server refuses, ConnectionError when nobody answers for 10 seconds."""
        self._http.open()
        if not self.session:
            try:
                self.session = str((await self.server.create_session()).id)
            except BaseException:
                await self.close()
                raise
        self._reader = asyncio.create_task(self._run(), name="parley-client")
        try:
            async with asyncio.timeout(self._timings.opening):
                await self._opened.wait()
        except TimeoutError:
            await self.close()
            raise unreachable(self._http.url, self._trouble, self._timings.opening) from self._trouble
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
                    if error.code not in RETRYABLE:
                        raise
                    pause = backoff.next(error.retry_after)
                except LOST:
                    if not self._http.is_open:
                        raise
                    pause = backoff.next()
                await asyncio.sleep(pause)

    async def _deliver(self, command_id: str, data: bytes) -> Ack:
        if self.transport != "ws" or self._live is None or not self._synced or self._queue.full():
            return await self._post(data)
        reply = self._pending.setdefault(command_id, asyncio.get_running_loop().create_future())
        try:
            await self._live.send(data)
            async with asyncio.timeout(self._timings.answer):
                return await asyncio.shield(reply)
        finally:
            self._pending.pop(command_id, None)

    async def _post(self, data: bytes) -> Ack:
        http, headers = self._http.session, await self._http.headers() | _JSON
        wait = aiohttp.ClientTimeout(total=self._timings.answer)
        async with http.post(self._address("commands"), data=data, headers=headers, timeout=wait) as response:
            if response.status != 200:
                raise await refusal(response)
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
            except (ParleyError, *LOST) as error:
                trouble = error
            was_synced, self._synced, self._live, self.transport = self._synced, False, None, None
            self._interrupt("the connection was lost")
            if self._farewell is not None:
                trouble, self._farewell = _advice(self._farewell), None
            self._trouble = trouble
            if isinstance(trouble, ParleyError) and trouble.code not in RETRYABLE:
                self._failure = trouble
                self._opened.set()
                await self._queue.put(None)
                return
            if was_synced and now() - began > self._timings.stable:
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
        self._no_websocket_until = asyncio.get_running_loop().time() + self._timings.websocket_again
        return True

    async def _follow(self, transport: Transport) -> Exception:
        """One connection, from its opening to its end, and why it ended."""
        async with self._link(transport) as link, aclosing(link.frames()) as frames:
            self.transport, self._live = transport, link
            pulse = asyncio.create_task(self._pulse(link)) if transport == "ws" else None
            patience = self._timings.opening
            try:
                while True:
                    async with asyncio.timeout(patience):
                        frame = await anext(frames, None)
                    if frame is None:
                        return ConnectionError("the connection ended")
                    await self._take(frame)
                    patience = 2 * self._heartbeat + self._timings.grace
            finally:
                if pulse is not None:
                    pulse.cancel()
                    await asyncio.gather(pulse, return_exceptions=True)

    @asynccontextmanager
    async def _link(self, transport: Transport) -> AsyncIterator[Link]:
        after = {} if self._position is None else {"after": self._position}
        url = self._address("ws" if transport == "ws" else "events", **after)
        headers = await self._http.headers()
        if transport == "ws":
            try:
                async with asyncio.timeout(self._timings.opening):
                    socket = await self._http.session.ws_connect(
                        url,
                        protocols=("parley.v1.json",),
                        headers=headers,
                        max_msg_size=self._timings.largest_event,
                        compress=0,
                    )
            except aiohttp.WSServerHandshakeError as error:
                if self._choice == "auto" or code_of(error.status) in RETRYABLE:
                    # SSE will be told why in words, if it is not WebSocket alone that is unwelcome.
                    raise
                raise ParleyError(code_of(error.status), f"the server answered {error.status}") from error
            async with socket:
                yield WebSocketLink(socket)
            return
        async with (
            asyncio.timeout(self._timings.opening) as opening,
            self._http.session.get(
                url, headers=headers | {"Accept": _ACCEPT[transport], "Cache-Control": "no-store"}
            ) as response,
        ):
            opening.reschedule(None)
            if response.status != 200:
                raise await refusal(response)
            yield StreamLink(response, transport, self._timings.largest_event)

    def _address(self, leaf: str, **query: str) -> URL:
        return self._http.address(path_of(self.session, leaf), query | {"client_id": self.client_id})

    async def _pulse(self, link: Link) -> None:
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


def connect(  # noqa: PLR0913 - all but the first two have a name, and most calls give none of them
    url: str,
    session: str | None = None,
    *,
    token: Token | None = None,
    transport: Transport | Literal["auto"] = "auto",
    after: str | None = None,
    client_id: str | None = None,
    timings: Timings | None = None,
) -> Client:
    """A client of one session; `async with` connects it.

    Without a `session` a new one is made. `after` is the cursor at which to begin (`"0"`: with everything that was
    ever said), from now on when missing. `client_id` is who you are over reconnects; made up when missing. `transport`
    fixes one instead of finding out which works. `token` may be a function, also an async one, that returns the newest
    token. Raises ValueError for an unusable address.
    """
    return Client(
        url,
        session,
        token=token,
        transport=transport,
        after=after,
        client_id=client_id,
        timings=timings or settings.DEFAULT,
    )


def _advice(farewell: Disconnect) -> ParleyError:
    """The server's last word, as an error that says whether and when to come back."""
    code = ErrorCode.of(farewell.code) or ErrorCode.PROTOCOL_ERROR
    if farewell.reconnect and code not in RETRYABLE:
        code = ErrorCode.UNAVAILABLE
    wait = None if farewell.retry_after_ms is None else farewell.retry_after_ms / 1000
    return ParleyError(code, farewell.reason, retry_after=wait)


def _new_id() -> str:
    return secrets.token_hex(16)
