"""The socket under a stream: frames are written to it whole, beside what the framework writes itself."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from protocol.errors import ErrorCode
from protocol.events import Disconnect
from server.channel.subscriber import Wire

__all__ = ["Connection"]


class Connection:
    """A `Transport` on aiohttp's own, without the ending, which each protocol has in its way.

    `ending` is done once `close` was called: the handler waits for it, or is woken in another way, and says farewell.
    """

    def __init__(self, request: web.Request, writer: AbstractStreamWriter, name: str, wire: Wire) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client went away while its stream was set up")
        self.name = name
        self.wire = wire
        self.ending: asyncio.Future[tuple[ErrorCode, Disconnect]] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._writer = writer
        self._drainer: asyncio.Task[None] | None = None

    def write(self, data: bytes) -> int:
        """Hand over whole frames; the bytes that the kernel has not taken. Called for each subscriber of each event."""
        transport = self._transport
        if not transport.is_closing():
            transport.write(data)
        return transport.get_write_buffer_size()

    def buffered(self) -> int:
        """Bytes that the kernel has not taken."""
        return self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Return when there is room again, or the connection is lost."""
        # aiohttp lets all who wait share one future, which the first of them to be cancelled would cancel for all.
        if self._drainer is None or self._drainer.done():
            self._drainer = asyncio.create_task(self._drain(), name="channel:drain")
        await asyncio.shield(self._drainer)

    def lost(self) -> bool:
        """Whether the connection is gone, or about to be."""
        return self._transport.is_closing()

    def close(self, code: ErrorCode, farewell: Disconnect) -> None:
        """Let the handler end the stream."""
        if not self.ending.done():
            self.ending.set_result((code, farewell))

    def abort(self) -> None:
        """Cut the connection: whatever is buffered is lost."""
        self._transport.abort()

    async def release(self) -> None:
        """Give back what the connection holds; called once by the handler, at the very end."""
        if self._drainer is not None:
            self._drainer.cancel()
            await asyncio.wait({self._drainer})

    async def _drain(self) -> None:
        # A connection that is lost has no backlog any more: whoever waits looks at `lost()` next.
        with suppress(ConnectionError):
            await self._writer.drain()
