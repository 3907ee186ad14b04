"""The servers and loads of a measurement, side by side, and what they used."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from tests.benchmarks.children import Child

__all__ = ["LOAD_CORE", "SERVER_CORE", "Downlink", "Run", "Server", "servers"]

Downlink: TypeAlias = Literal["ws", "sse"]

#: A server and its load do not share a core, where there are two.
_CORES: Final = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SERVER_CORE: Final = _CORES[0] if len(_CORES) > 1 else None
LOAD_CORE: Final = _CORES[1] if len(_CORES) > 1 else None

_PATHS: Final = {"ws": "/ws", "sse": "/events"}
_IS_OPEN: Final = '"sync"'


class Run(NamedTuple):
    """One run of the load: what it achieved, and how busy both sides were, as shares of one core."""

    rate: float
    server: float
    client: float

    @classmethod
    def text(cls, runs: Sequence[Run], unit: str) -> str:
        """The runs of one server, for a line under a figure."""
        rates = " ".join(f"{run.rate:,.0f}" for run in runs)
        servers = " ".join(f"{run.server:.0%}" for run in runs)
        clients = " ".join(f"{run.client:.0%}" for run in runs)
        return f"{rates} {unit}; busy: server {servers}, load {clients}"


class Server:
    """A server under test: the product or the bare one, and how its streams are reached."""

    def __init__(self, name: str, child: Child, port: int) -> None:
        self.name = name
        self.child = child
        self.port = port
        self.is_product = name == "product"

    def paths(self, downlink: Downlink, sessions: Sequence[str]) -> list[str]:
        """The addresses of streams."""
        if self.is_product:
            return [f"/sessions/{session}{_PATHS[downlink]}" for session in sessions]
        return [_PATHS[downlink]]

    @property
    def is_open(self) -> str:
        """What a stream is sent when it is up: with the product, that it missed nothing."""
        return _IS_OPEN if self.is_product else "\r\n\r\n"

    async def measured(self, load: Child, command: str, **arguments: Any) -> tuple[Run, Any]:
        """Have the load do something to this server; how it went, and the load's own account."""
        before = await self.child.ask("cpu")
        account = await load.ask(command, **arguments)
        used = await self.child.ask("cpu") - before
        seconds = account["seconds"]
        return Run(account.get("rate", 0.0), used / seconds, account["cpu"] / seconds), account

    async def open(self, load: Child, group: str, downlink: Downlink, sessions: Sequence[str], count: int) -> None:
        """Open streams."""
        paths = self.paths(downlink, sessions)
        await load.ask("open", group=group, port=self.port, paths=paths, count=count, ready=self.is_open)


@asynccontextmanager
async def servers(database: str, *, pinned: bool, bare: bool = True) -> AsyncIterator[tuple[Server, Server | None]]:
    """The product, and the bare server if wanted, each in a process of its own; `pinned` to the first core."""
    async with AsyncExitStack() as stack:
        found: list[Server] = []
        for name in ("product", "bare")[: 2 if bare else 1]:
            core = SERVER_CORE if pinned else None
            child = await stack.enter_async_context(Child(name, core=core, database=database))
            found.append(Server(name, child, (await child.ask("where"))["port"]))
        yield found[0], found[1] if bare else None
