"""A whole server in the test's own loop: real sockets, a real database, agents of the test's choice.

`server` is one with the offline agent at full speed; `make_server` starts any number, also several on one database.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest
from aiohttp import web

from server.agents.config import AgentsConfig, OfflineConfig
from server.agents.interface import FunctionAgent
from server.agents.registry import Registry
from server.app import build, create_app
from server.clock import Clock
from server.config import Config, DatabaseSettings, ServerSettings
from server.run import make_runner
from server.services import Services

MakeServer = Callable[..., Awaitable["RunningServer"]]

#: No waiting between the words of the offline agent.
FAST_AGENTS = AgentsConfig(offline=OfflineConfig(speed=0), entry_points=False)


class RunningServer:
    """A server that listens on a port of this machine."""

    def __init__(self, services: Services, runner: web.AppRunner, port: int) -> None:
        self.services = services
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client = aiohttp.ClientSession(self.url)
        self._runner = runner

    async def create_session(self, **body: Any) -> str:
        """A new session's id."""
        async with self.client.post("/sessions", json=body) as response:
            assert response.status == 201, await response.text()
            return str((await response.json())["id"])

    async def command(self, session: str, **command: Any) -> tuple[int, Any]:
        """POST one command; the status and the body of the answer."""
        command.setdefault("id", uuid4().hex)
        async with self.client.post(f"/sessions/{session}/commands", json=command) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def history(self, session: str) -> list[dict[str, Any]]:
        """The session's messages."""
        async with self.client.get(f"/sessions/{session}/history") as response:
            assert response.status == 200, await response.text()
            return list((await response.json())["messages"])

    async def stop(self) -> None:
        """As on SIGTERM. May be called again."""
        await self.client.close()
        await self._runner.cleanup()


async def start_server(
    database_url: str,
    *agents: FunctionAgent,
    port: int = 0,
    clock: Clock | None = None,
    registry: Registry | None = None,
    **sections: Any,
) -> RunningServer:
    """Start a server. `agents`, if any, are all that it has, or `registry`; `sections` are the configuration's."""
    sections.setdefault("agents", FAST_AGENTS)
    sections.setdefault("server", ServerSettings(port=port, shutdown_timeout=1.0))
    config = Config(database=DatabaseSettings(url=database_url), **sections)
    services = await build(config, clock, registry=_registry(agents) if agents else registry)
    runner = make_runner(create_app(services), config.server)
    try:
        await runner.setup()
        site = web.TCPSite(runner, config.server.host, config.server.port, reuse_address=True)
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    return RunningServer(services, runner, site.port)


def _registry(agents: Iterable[FunctionAgent]) -> Registry:
    agents = list(agents)
    return Registry(agents, [tool for one in agents for tool in one.tools], default=agents[0].definition.type)


@pytest.fixture
async def make_server(database_url: str) -> AsyncIterator[MakeServer]:
    """Start servers on the test's database; they are stopped when the test is over."""
    async with AsyncExitStack() as stack:

        async def start(*agents: FunctionAgent, **options: Any) -> RunningServer:
            server = await start_server(database_url, *agents, **options)
            stack.push_async_callback(server.stop)
            return server

        yield start


@pytest.fixture
async def server(make_server: MakeServer) -> RunningServer:
    """A server with the agents that it has when nothing is configured, at full speed."""
    return await make_server()
