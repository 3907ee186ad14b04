"""Connections that bring events: a WebSocket, and a stream over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Literal, Protocol, TypeAlias

import aiohttp

from protocol.errors import ErrorCode, ParleyError
from protocol.framing import NdjsonParser, SseParser, split_batch

__all__ = ["Link", "StreamLink", "Transport", "WebSocketLink"]

Transport: TypeAlias = Literal["ws", "sse", "ndjson"]

#: WebSocket's own codes for "you speak wrongly" (RFC 6455, section 7.4.1): saying it again helps nobody.
_FINAL_CLOSE_CODES: Final = frozenset({1002, 1007, 1009})


class Link(Protocol):
    """A connection that brings events."""

    def frames(self) -> AsyncGenerator[bytes, None]:
        """Events, each still encoded, until the connection ends."""
        ...

    async def send(self, data: bytes) -> None:
        """Send a command."""
        ...


class WebSocketLink:
    """Both directions over one socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Events, each still encoded. Raises ParleyError when the connection ends for good."""
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                for frame in split_batch(message.data.encode()):
                    yield frame
        code = self._socket.close_code or 0
        known = ErrorCode.of_close(code)
        if known is not None or code >= 4500 or code in _FINAL_CLOSE_CODES:
            raise ParleyError(known or ErrorCode.PROTOCOL_ERROR, f"the server closed the connection with {code}")

    async def send(self, data: bytes) -> None:
        """Send a command."""
        await self._socket.send_str(data.decode())


class StreamLink:
    """An event stream or NDJSON; what is to be said goes over POST."""

    def __init__(self, response: aiohttp.ClientResponse, transport: Transport, largest: int) -> None:
        self._response = response
        self._transport = transport
        self._largest = largest

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """Events, each still encoded. Raises ParleyError when the connection ends for good."""
        sse, ndjson = SseParser(self._largest), NdjsonParser(self._largest)
        async for data in self._response.content.iter_any():
            if self._transport == "sse":
                for message in sse.feed(data):
                    yield message.data.encode()
            else:
                for line in ndjson.feed(data):
                    yield line

    async def send(self, data: bytes) -> None:
        """Not over a stream."""
        raise TypeError("a stream goes one way")
