"""Connections that bring events: a WebSocket, and a stream over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import aiohttp

from protocol.client.http import Http
from protocol.client.settings import Options, Transport
from protocol.client.trouble import ViolationError, closed
from protocol.envelope import Encoding
from protocol.errors import ErrorCode, ParleyError
from protocol.framing import NdjsonParser, SseParser, split_batch

__all__ = ["Link", "open_stream", "open_websocket"]

_CONTENT_TYPES: Final = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}


class Link(Protocol):
    """A connection that brings events."""

    encoding: Encoding

    def frames(self) -> AsyncGenerator[bytes, None]:
        """Events, each still encoded; raises why the connection ended."""
        ...

    async def send(self, data: bytes) -> None:
        """Send a command."""
        ...


@asynccontextmanager
async def open_websocket(http: Http, path: str, query: dict[str, str], options: Options) -> AsyncIterator[Link]:
    """Both directions over one socket. Raises aiohttp's WSServerHandshakeError when there is none to be had."""
    if options.batch and options.encoding == "json":
        query = query | {"batch": "1"}
    patience = options.timings.opening if options.transport == "ws" else options.timings.opening_websocket
    headers = await http.headers()
    async with asyncio.timeout(patience):
        socket = await http.session.ws_connect(
            http.address(f"{path}/ws", query),
            protocols=(f"parley.v1.{options.encoding}",),
            headers=headers,
            max_msg_size=options.timings.largest_event,
            compress=0,
        )
    try:
        yield _WebSocketLink(socket, options.encoding)
    finally:
        # A peer that neither answers nor falls silent could hold up the closing handshake for ever.
        with suppress(TimeoutError):
            async with asyncio.timeout(options.timings.closing):
                await socket.close()


class _WebSocketLink:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, encoding: Encoding) -> None:
        self.encoding = encoding
        self._socket = socket

    async def frames(self) -> AsyncGenerator[bytes, None]:
        reason = ""
        while True:
            message = await self._socket.receive()
            match message.type:
                case aiohttp.WSMsgType.TEXT if self.encoding == "json":
                    for frame in split_batch(message.data.encode()):
                        yield frame
                case aiohttp.WSMsgType.BINARY if self.encoding == "msgpack":
                    yield message.data
                case aiohttp.WSMsgType.TEXT | aiohttp.WSMsgType.BINARY:
                    raise ViolationError(f"a {message.type.name} message came where events are {self.encoding}")
                case aiohttp.WSMsgType.ERROR:
                    raise _unreadable(message.data)
                case aiohttp.WSMsgType.CLOSE:
                    reason = str(message.extra or "")
                case _:
                    raise closed(self._socket.close_code or 0, reason)

    async def send(self, data: bytes) -> None:
        if self.encoding == "json":
            await self._socket.send_str(data.decode())
        else:
            await self._socket.send_bytes(data)


def _unreadable(error: object) -> ParleyError:
    if isinstance(error, aiohttp.WebSocketError) and error.code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
        return ParleyError(ErrorCode.TOO_LARGE, f"an event is larger than this client takes: {error}")
    return ViolationError(f"what came is no WebSocket message: {error}")


@asynccontextmanager
async def open_stream(
    http: Http, path: str, query: dict[str, str], transport: Transport, options: Options
) -> AsyncIterator[Link]:
    """An event stream or NDJSON; what is to be said goes over POST. Raises ParleyError when the server refuses."""
    wanted = _CONTENT_TYPES[transport]
    headers = await http.headers() | {"Accept": wanted, "Cache-Control": "no-store"}
    async with (
        asyncio.timeout(options.timings.opening) as opening,
        http.session.get(http.address(f"{path}/events", query), headers=headers) as response,
    ):
        if response.status != 200:
            raise http.refused(response, await http.read(response))
        if response.content_type != wanted:
            raise ViolationError(f"{http.url} does not answer as a Parley server does: with {response.content_type}")
        opening.reschedule(None)
        yield _StreamLink(response, transport, options.timings.largest_event)


class _StreamLink:
    encoding: Encoding = "json"

    def __init__(self, response: aiohttp.ClientResponse, transport: Transport, largest: int) -> None:
        self._response = response
        self._transport = transport
        self._largest = largest

    async def frames(self) -> AsyncGenerator[bytes, None]:
        sse, ndjson = SseParser(self._largest), NdjsonParser(self._largest)
        async for data in self._response.content.iter_any():
            if self._transport == "sse":
                for message in sse.feed(data):
                    yield message.data.encode()
            else:
                for line in ndjson.feed(data):
                    yield line
        raise ConnectionError("the stream ended")

    async def send(self, data: bytes) -> None:
        raise TypeError("a stream goes one way")
