"""The floor: aiohttp and nothing else, for WebSocket and event streams, writing bytes that were prepared beforehand."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, Final

from aiohttp import WSMsgType, web

from protocol.framing import chunk, frame_many
from tests.benchmarks.children import pin, raise_file_limit, serve_parent
from tests.benchmarks.publishing import event_like, listen

__all__: list[str] = []

_FIRST_DELTA: Final = '{"event_type":"message_delta"}'


class _Bare:
    def __init__(self) -> None:
        event = event_like()
        self._frame = frame_many([event], "ws-json")
        self._chunk = chunk(frame_many([event], "sse"))
        self._sockets: list[asyncio.Transport] = []
        self._streams: list[asyncio.Transport] = []

    def publish_to_sockets(self) -> None:
        for transport in self._sockets:
            transport.write(self._frame)

    def publish_to_streams(self) -> None:
        for transport in self._streams:
            transport.write(self._chunk)

    async def websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        transport = request.transport
        assert transport is not None
        self._sockets.append(transport)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(_FIRST_DELTA)
        self._sockets.remove(transport)
        return socket

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        transport = request.transport
        assert transport is not None
        self._streams.append(transport)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._streams.remove(transport)
        return response


async def _main(options: dict[str, Any]) -> None:
    pin(options["core"])
    raise_file_limit()
    bare = _Bare()
    app = web.Application()
    app.router.add_get("/ws", bare.websocket)
    app.router.add_get("/events", bare.events)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    control = {"ws": await listen(bare.publish_to_sockets), "sse": await listen(bare.publish_to_streams)}

    async def where() -> dict[str, Any]:
        return {"port": site.port, "control": control}

    await serve_parent({"where": where})


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
