"""The wire between storage and PostgreSQL: counted, and cut."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from storage.pool import Database
from tests.support.database import Cluster

_PORT = 5432


class Wire:
    """Stands between clients and PostgreSQL's socket. `trips` counts the requests for an answer that pass.

    A client waits for an answer after `Sync` (extended protocol) or `Query` (simple protocol), and nothing else here.
    """

    def __init__(self, target: str, connect: dict[str, Any]) -> None:
        self._target = target
        self._connect = connect
        self._opened: list[Database] = []
        self._handlers: set[asyncio.Task[None]] = set()
        self._loses_answer = False
        self._passing = asyncio.Event()
        self._passing.set()
        self.held = asyncio.Event()
        self.trips = 0

    async def open(self, **options: Any) -> Database:
        """A database at the other end."""
        database = Database(**options)
        await database.open(self._connect)
        self._opened.append(database)
        return database

    def lose_next_answer(self) -> None:
        """The next statement is carried out, and its connection breaks before the client hears of it."""
        self._loses_answer = True

    def hang(self) -> None:
        """Nothing passes from now on, new connections' requests neither; `held` is set when something was kept back."""
        self._passing.clear()

    def go_on(self) -> None:
        """Everything passes again."""
        self._passing.set()

    async def _passes(self) -> None:
        if not self._passing.is_set():
            self.held.set()
        await self._passing.wait()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a client."""
        task = asyncio.create_task(self._relay(reader, writer))
        self._handlers.add(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_unix_connection(self._target)
        answers = asyncio.create_task(self._answers(back, writer))
        try:
            # The start-up message has no type byte.
            size = await reader.readexactly(4)
            await self._passes()
            forth.write(size + await reader.readexactly(int.from_bytes(size, "big") - 4))
            while True:
                head = await reader.readexactly(5)
                self.trips += head[:1] in (b"S", b"Q")
                await self._passes()
                forth.write(head + await reader.readexactly(int.from_bytes(head[1:], "big") - 4))
        except (asyncio.IncompleteReadError, ConnectionError):
            forth.close()
        await answers

    async def _answers(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # PostgreSQL sends a statement's answer when it has committed, as one piece while it is small.
        while data := await back.read(1 << 16):
            if self._loses_answer:
                self._loses_answer = False
                break
            writer.write(data)
        writer.close()

    async def close(self) -> None:
        """Part with all clients."""
        self.go_on()
        for database in self._opened:
            await database.close()
        await asyncio.gather(*self._handlers)


@asynccontextmanager
async def wire_to(cluster: Cluster) -> AsyncIterator[Wire]:
    """A wire to a database of its own."""
    name = await cluster.create()
    arguments = cluster.connect_args(name)
    # Sockets' paths are short: not in a test's own directory.
    folder = Path(tempfile.mkdtemp(prefix="parley-wire-"))
    target = f"{arguments['host']}/.s.PGSQL.{arguments.get('port', _PORT)}"
    wire = Wire(target, {**arguments, "host": str(folder), "port": _PORT})
    try:
        server = await asyncio.start_unix_server(wire.serve, folder / f".s.PGSQL.{_PORT}")
        try:
            yield wire
        finally:
            await wire.close()
            server.close()
            await server.wait_closed()
    finally:
        shutil.rmtree(folder)
        await cluster.drop(name)
