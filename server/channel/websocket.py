"""`GET /sessions/{session}/ws`: events down and commands up over one WebSocket.

Events are written by the channel, whole frames straight to the socket. This module reads: commands, one at a time and
in order, and whatever else shows that the peer lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import msgspec
from aiohttp import WSMessage, WSMsgType, hdrs, web

from protocol._override import override
from protocol.commands import Command
from protocol.envelope import Encoding
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack, CommandError, Disconnect, Payload
from server.auth import has_query
from server.channel.connection import Connection
from server.channel.handling import carry_out
from server.channel.streams import Opening, open_stream
from server.channel.subscriber import Wire
from server.turns.service import Origin

__all__ = ["PROTOCOLS", "websocket"]

#: The subprotocols, each with the encoding that it means; a client that offers none gets the first.
PROTOCOLS: Final[dict[str, Encoding]] = {"parley.v1.json": "json", "parley.v1.msgpack": "msgpack"}

_PROTOCOL_NAMES: Final = tuple(PROTOCOLS)

#: One object for all connections of a kind.
_JSON, _JSON_BATCH, _MSGPACK = Wire("ws-json"), Wire("ws-json-batch"), Wire("ws-msgpack")

#: A command that is too large by not more than this is refused by name; beyond it the framework cuts (close code 1009).
_OVERSIZE: Final = 65_536


async def websocket(request: web.Request) -> web.StreamResponse:
    """Open a WebSocket: the session's events down, commands up.

    The subprotocol says in which encoding: `parley.v1.json` (text messages) or `parley.v1.msgpack` (binary ones).
    """
    # The response that is returned lives until the stream ends.
    encoding = _encoding(request)
    opening = await open_stream(request, last_event_id=False)
    return await _WebSocket(opening, encoding).open(request, opening, _wire(request, encoding))


def _encoding(request: web.Request) -> Encoding:
    """The encoding that the offered subprotocols ask for; ours are looked for in the order of the client."""
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        raise web.HTTPUpgradeRequired(
            headers={hdrs.UPGRADE: "websocket"}, reason="this address speaks WebSocket; the same events are at ./events"
        )
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()))
    names = [name.strip() for name in offered.split(",") if name.strip()]
    found = next((PROTOCOLS[name] for name in names if name in PROTOCOLS), None)
    if found is None and names:
        # Left to itself the framework would log what was offered, and a bearer token may be in there.
        raise ParleyError(ErrorCode.MALFORMED, f"offer one of the subprotocols {', '.join(PROTOCOLS)}")
    return found or "json"


def _wire(request: web.Request, encoding: Encoding) -> Wire:
    if encoding == "msgpack":
        return _MSGPACK
    return _JSON_BATCH if has_query(request) and request.query.get("batch") in {"", "1", "true"} else _JSON


def close_reason(code: ErrorCode, farewell: Disconnect) -> bytes:
    """What stands in the close frame, in at most 123 bytes (RFC 6455, section 5.5): the code, and when to come back."""
    reason: dict[str, str | int] = {"code": code.code}
    if farewell.retry_after_ms is not None:
        reason["retry_after_ms"] = farewell.retry_after_ms
    return msgspec.json.encode(reason)


class _WebSocket(Connection, web.WebSocketResponse):
    """One WebSocket: reads commands, and ends with the closing handshake, or without it if the peer takes no part.

    Backpressure is not reading: behind an unfinished command only the framework's bounded buffer fills, and behind a
    peer that does not take its replies nothing is read at all.
    """

    __slots__ = ("_closer", "_encoding", "_malformed", "_services", "_session")

    def __init__(self, opening: Opening, encoding: Encoding) -> None:
        settings = opening.services.hub.settings
        super().__init__(
            # Compression would cost eight times the memory a connection, and frames made once could not be shared.
            compress=False,
            # The framework answers pings and looks for lost peers only while somebody reads, and takes a slow reader
            # for a dead one; both is done here and by the hub.
            autoping=False,
            heartbeat=None,
            max_msg_size=settings.max_command_bytes + _OVERSIZE,
            protocols=_PROTOCOL_NAMES,
            timeout=settings.close_timeout,
        )
        self._services = opening.services
        self._session = opening.session
        self._encoding: Encoding = encoding
        self._closer: asyncio.Task[None] | None = None
        #: When the last malformed commands came.
        self._malformed: tuple[float, ...] = ()

    @override
    def end(self, code: ErrorCode, farewell: Disconnect) -> None:
        """Begin the closing handshake; `receive` ends with it."""
        if self._closer is None:
            self._closer = asyncio.create_task(self._close(code, farewell), name="channel:close")

    async def _close(self, code: ErrorCode, farewell: Disconnect) -> None:
        status = ErrorCode.INTERNAL.close if code.close is None else code.close
        assert status is not None, "an internal error ends a channel"
        # It waits for the socket to take the frame, and then as long again for the answer.
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(2 * self._hub.settings.close_timeout):
                await self.close(code=status, message=close_reason(code, farewell))
        if self.subscriber.buffered():
            self.socket.abort()

    @override
    async def _finish(self) -> None:
        if self._closer is not None:
            await self._closer
        await self._write_eof()

    @override
    async def _release(self) -> None:
        """Wait for the end of the closing handshake, if one is under way."""
        if self._closer is not None:
            await self._closer
        await super()._release()

    # --- reading

    @override
    def _next(self) -> Awaitable[WSMessage]:
        return self.receive()

    @override
    async def _take(self, message: WSMessage) -> bool:
        """Handle one message, and wait until the peer has taken what it was answered; whether there may be another."""
        self.subscriber.heard_at = self._hub.clock.monotonic()
        going = True
        match message.type:
            case WSMsgType.TEXT | WSMsgType.BINARY:
                await self._command(message)
            case WSMsgType.PING:
                with suppress(ConnectionError), self._not_reading():
                    await self.pong(message.data)
            case WSMsgType.PONG:
                # That it came is all that it says.
                ...
            case _:
                going = False
        # What has arrived is received without waiting, and thousands of pings fit into one read of the socket: the
        # others have their turn after each. A reply, too, is written at the end of this turn of the loop, and only
        # then its size shows in the backlog. And whoever closes the socket is done then, and needs no waiting for, in
        # which its loss would be taken for the client's leaving.
        await asyncio.sleep(0)
        going = going and not self.subscriber.closed()
        if going and self.subscriber.congested():
            with self._not_reading():
                await self.drain()
        return going

    async def _command(self, message: WSMessage) -> None:
        with self._not_reading():
            try:
                command = await self._decode(message)
            except ParleyError as error:
                self._hub.counters.malformed += 1
                self._hub.reply(self.subscriber, CommandError.of(error))
                if self._is_burst():
                    self._hub.end(self.subscriber, ErrorCode.PROTOCOL_ERROR, "too many malformed commands")
                return
            reply = await self._reply(command)
        if reply is not None:
            self._hub.reply(self.subscriber, reply)

    async def _decode(self, message: WSMessage) -> Command:
        if message.type is WSMsgType.BINARY and self._encoding == "json":
            raise ParleyError(ErrorCode.MALFORMED, "this connection speaks parley.v1.json, in text messages")
        return await self._services.decoding.command(message.data, self._encoding, self._hub.settings)

    async def _reply(self, command: Command) -> Payload | None:
        """What the client is to be told; None if it was, together with the events of its command."""
        waits, told = True, False

        def tell(ack: Ack) -> None:
            nonlocal told
            # Whoever was told that it took too long is told nothing else of this delivery.
            if waits:
                told = True
                self._hub.reply(self.subscriber, ack)

        grant, client_id = self.subscriber.grant, self.subscriber.client_id
        if grant.expired(self._hub.clock.now()):
            self._hub.end(self.subscriber, ErrorCode.TOKEN_EXPIRED)
            return None
        origin = Origin(user_id=grant.user_id, client_id=client_id, transport=self.name, role=grant.role, tell=tell)
        try:
            ack = await carry_out(self._services, self._session, command, origin, guest=grant if grant.guest else None)
        except ParleyError as error:
            return None if told else CommandError.of(error)
        finally:
            waits = False
        return None if told else ack

    def _is_burst(self) -> bool:
        """Count a malformed command; whether it was one too many."""
        now, settings = self._hub.clock.monotonic(), self._hub.settings
        self._malformed = (*self._malformed, now)[-settings.malformed_burst :]
        full = len(self._malformed) == settings.malformed_burst
        return full and now - self._malformed[0] <= settings.malformed_window

    @contextmanager
    def _not_reading(self) -> Iterator[None]:
        """While this lasts nothing is read, so the peer's silence is ours; its time begins anew afterwards."""
        self.subscriber.busy = True
        try:
            yield
        finally:
            self.subscriber.busy = False
            self.subscriber.heard_at = self._hub.clock.monotonic()
