"""`GET /sessions/{session}/events`: events as SSE or as NDJSON, by `Accept`.

Only the head of the response and its end are the framework's; in between the channel writes prepared frames (inside
HTTP chunks, where the client speaks HTTP/1.1) straight to the socket.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Final, Self

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from protocol._override import override
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Disconnect
from protocol.framing import chunk
from server.channel.connection import Connection
from server.channel.negotiation import NDJSON, negotiate
from server.channel.streams import Opening, open_stream
from server.channel.subscriber import Wire

__all__ = ["EventStream", "HttpStream", "begin", "events", "is_chunked"]

_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-store",
    # nginx would collect what we send; no other proxy minds.
    "X-Accel-Buffering": "no",
}

#: One object for all streams of a kind.
_wire: Final = cache(Wire)


async def events(request: web.Request) -> web.StreamResponse:
    """Stream a session's events, as an event stream or as lines of JSON, whichever `Accept` wants more.

    Without `after` (or `Last-Event-ID`, which is the newer of the two where both are given) the stream begins now.
    """
    # The response that is returned lives until the stream ends.
    framing = negotiate(request)
    try:
        opening = await open_stream(request, last_event_id=True)
    except ParleyError as error:
        if error.code is ErrorCode.SESSION_GONE and request.headers.get("Last-Event-ID"):
            # A browser came back by itself; this is the answer that makes it stop (WHATWG HTML, section 9.2.3).
            return web.Response(status=204)
        raise
    return await begin(request, opening, _wire(framing, is_chunked(request)))


def is_chunked(request: web.Request) -> bool:
    """Whether the answer to a request can be sent in chunks (RFC 9112, section 7.1)."""
    return request.version >= HttpVersion11


async def begin(
    request: web.Request, opening: Opening, wire: Wire, stream: HttpStream | None = None
) -> web.StreamResponse:
    """Begin one stream over HTTP, in whatever framing; what is returned lives until it ends.

    `stream` is the response to use, if it is to be one of a kind of its own.
    """
    if stream is None:
        stream = EventStream() if wire.framing == "sse" else _LineStream()
    if wire.chunked:
        stream.enable_chunked_encoding()
    else:
        # Without chunks the end of the stream is the end of the connection (RFC 9112, section 6.3).
        stream.force_close()
    return await stream.open(request, opening, wire)


class HttpStream(Connection):
    """Bytes without an end of their own: the response ends, or the connection is cut."""

    __slots__ = ("_ending",)

    @override
    async def open(self, request: web.Request, opening: Opening, wire: Wire) -> Self:
        """Send the head and begin to listen."""
        self._ending: asyncio.Future[Disconnect | None] = asyncio.get_running_loop().create_future()
        return await super().open(request, opening, wire)

    @override
    def end(self, code: ErrorCode, farewell: Disconnect) -> None:
        """Begin to end the response. Idempotent."""
        if not self._ending.done():
            self._ending.set_result(farewell)

    def finish(self) -> None:
        """End it well: all that there was to say is said."""
        if not self._ending.done():
            self._ending.set_result(None)

    @override
    def _next(self) -> asyncio.Future[Disconnect | None]:
        return self._ending

    @override
    async def _take(self, message: Disconnect | None) -> bool:
        """Take leave: it is all that comes."""
        if message is None:
            return False
        if self.wire.framing == "sse" and message.retry_after_ms is not None and not self.socket.is_closing():
            # For an EventSource that comes back by itself, whatever the page makes of `disconnect`.
            retry = f"retry: {message.retry_after_ms}\n\n".encode()
            self.socket.write(chunk(retry) if self.wire.chunked else retry)
        return False

    @override
    async def _finish(self) -> None:
        """End the response; cut the connection when that takes too long."""
        try:
            async with asyncio.timeout(self._hub.settings.close_timeout):
                await self._write_eof()
        except (TimeoutError, ConnectionError):
            self.socket.abort()


class EventStream(HttpStream, EventSourceResponse):
    """The head of an event stream as aiohttp-sse sets it up; it sends nothing by itself."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.headers.update(_HEADERS)
        # Whether the connection is kept is for HTTP's version to say.
        del self.headers[hdrs.CONNECTION]

    @override
    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the head."""
        # Not as aiohttp-sse does it, with a task for its pings: a comment would be invisible to scripts, so heartbeats
        # are frames of the channel, and the socket's patience is set by `tune`, for all streams alike.
        return await web.StreamResponse.prepare(self, request)


class _LineStream(HttpStream):
    """The head of a stream of lines."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(headers={**_HEADERS, hdrs.CONTENT_TYPE: NDJSON})
