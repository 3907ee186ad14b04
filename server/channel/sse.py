"""`GET /sessions/{session}/events`: events as SSE or as NDJSON, by `Accept`.

Only the head of the response and its end are the framework's; in between the channel writes prepared frames (inside
HTTP chunks, where the client speaks HTTP/1.1) straight to the socket.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import HttpVersion11, hdrs, web
from aiohttp_sse import EventSourceResponse

from protocol._override import override
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Disconnect
from protocol.framing import chunk
from server.channel.connection import Connection
from server.channel.negotiation import NDJSON, StreamFraming, negotiate
from server.channel.streams import Opening, open_stream, tune
from server.channel.subscriber import Wire

__all__ = ["events"]

_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-store",
    # nginx would collect what we send; no other proxy minds.
    "X-Accel-Buffering": "no",
}


async def events(request: web.Request) -> web.StreamResponse:
    """Serve one event stream until it ends."""
    framing = negotiate(request)
    try:
        opening = await open_stream(request, last_event_id=True)
    except ParleyError as error:
        if error.code is ErrorCode.SESSION_GONE and request.headers.get("Last-Event-ID"):
            # A browser came back by itself; this is the answer that makes it stop (WHATWG HTML, section 9.2.3).
            return web.Response(status=204)
        raise
    with opening.services.hub.place(opening.session.session_id):
        return await _serve(request, opening, framing)


async def _serve(request: web.Request, opening: Opening, framing: StreamFraming) -> web.StreamResponse:
    hub = opening.services.hub
    tune(request, hub.settings)
    response = _response(framing)
    chunked = request.version >= HttpVersion11
    if chunked:
        response.enable_chunked_encoding()
    else:
        # Without chunks the end of the stream is the end of the connection (RFC 9112, section 6.3).
        response.force_close()
    writer = await response.prepare(request)
    assert writer is not None, "a response that was not prepared before has a writer then"
    connection = Connection(request, writer, framing, Wire(framing, chunked))
    subscriber = opening.subscriber(connection)
    try:
        hub.subscribe(opening.session, subscriber, opening.after)
        _, farewell = await connection.ending
        await _finish(response, connection, farewell, hub.settings.close_timeout)
    finally:
        hub.unsubscribe(subscriber)
        await connection.release()
    return response


async def _finish(
    response: web.StreamResponse, connection: Connection, farewell: Disconnect, close_timeout: float
) -> None:
    """End the response; cut the connection when that takes too long."""
    if connection.wire.framing == "sse" and farewell.retry_after_ms is not None:
        # For an EventSource that comes back by itself, whatever the page makes of `disconnect`.
        retry = f"retry: {farewell.retry_after_ms}\n\n".encode()
        connection.write(chunk(retry) if connection.wire.chunked else retry)
    try:
        async with asyncio.timeout(close_timeout):
            await response.write_eof()
    except (TimeoutError, ConnectionError):
        connection.abort()


def _response(framing: StreamFraming) -> web.StreamResponse:
    if framing == "sse":
        return _EventStream()
    return web.StreamResponse(headers={**_HEADERS, hdrs.CONTENT_TYPE: NDJSON})


class _EventStream(EventSourceResponse):
    """The head of an event stream, as aiohttp-sse sets it up; it sends nothing by itself."""

    def __init__(self) -> None:
        # The socket's patience is set by `tune`, for all streams alike.
        super().__init__(send_timeout=None)
        self.headers.update(_HEADERS)
        # Whether the connection is kept is for HTTP's version to say.
        del self.headers[hdrs.CONNECTION]

    @override
    async def _ping(self) -> None:
        """Heartbeats are frames of the channel: a comment would be invisible to scripts, and cost a task a stream."""
