"""A network between a client and a server that does what networks do: it cuts, falls silent, and comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Proxy", "proxy"]


class _Pair:
    """One connection through the proxy; at the end of a block it is cut, as half of it is none."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter, down: int | None) -> None:
        self._ends = (client, server)
        self._down = down

    def left(self) -> bool:
        """Whether the server may still say something."""
        return self._down is None or self._down > 0

    def allowed(self, data: bytes) -> bytes:
        """What of it passes."""
        if self._down is not None:
            data = data[: self._down]
            self._down -= len(data)
        return data

    def abort(self) -> None:
        """Cut it."""
        for end in self._ends:
            end.transport.abort()

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self.abort()


class Proxy:
    """Forwards to a port of this machine."""

    def __init__(self, port: int) -> None:
        self.url = ""
        #: How many connections there were.
        self.opened = 0
        self._port = port
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._plans: deque[int] = deque()
        #: Whether bytes pass: from clients, and from the server.
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self.speak()
        self._refusing = False
        self._forbidden: bytes | None = None
        self._changed = asyncio.Condition()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._pairs)

    def cut_next(self, *after: int) -> None:
        """Cut the coming connections, each after so many bytes from the server."""
        self._plans.extend(after)

    def cut(self) -> None:
        """Cut all connections."""
        for pair in list(self._pairs):
            pair.abort()

    def silence(self) -> None:
        """Keep all connections, and new ones, and let nothing pass: the peer is gone and nobody says so."""
        self._up.clear()
        self._down.clear()

    def mute(self) -> None:
        """Let clients be heard, and nothing come back to them."""
        self._down.clear()

    def speak(self) -> None:
        """Let everything pass again."""
        self._up.set()
        self._down.set()

    def refuse(self, *, refuse: bool = True) -> None:
        """Cut new connections at once."""
        self._refusing = refuse

    def forbid(self, words: bytes) -> None:
        """Cut connections whose clients say this."""
        self._forbidden = words

    async def until(self, opened: int | None = None, open_now: int | None = None) -> None:
        """Wait until there were, and are, so many connections."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (opened is None or self.opened >= opened) and (open_now is None or self.open == open_now)
            )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        plan = self._plans.popleft() if self._plans else None
        self.opened += 1
        if self._refusing or plan == 0:
            await self._tell()
            return
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            pair = _Pair(writer, far_writer, plan)
            self._pairs.add(pair)
            await self._tell()
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._up_through(pair, reader, far_writer))
                    both.create_task(self._down_through(pair, far_reader, writer))
            finally:
                self._pairs.discard(pair)
                await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _up_through(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pair, contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self._forbidden is not None and self._forbidden in data:
                    break
                await self._up.wait()
                writer.write(data)
                await writer.drain()

    async def _down_through(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pair, contextlib.suppress(OSError):
            while pair.left() and (data := await reader.read(65_536)):
                await self._down.wait()
                writer.write(pair.allowed(data))
                await writer.drain()

    async def close(self) -> None:
        """Cut everything, and wait for its end."""
        # Not by cancelling: the loop's own streams complain of handlers that were.
        self.refuse()
        self.speak()
        while self._tasks:
            self.cut()
            await asyncio.wait(self._tasks, timeout=0.1)


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a port of this machine."""
    made = Proxy(port)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await made.close()
        await server.wait_closed()
