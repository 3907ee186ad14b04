"""The server that a browser visits: at one address, over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from server.agents.interface import Agent, AgentContext, AgentOutput
from server.agents.registry import Registry
from tests.support.server import FAST_AGENTS, MakeServer, RunningServer


class Site:
    """A server that keeps its address and its database when it is stopped and started again.

    Its agents are those that a server has when nothing is configured, and take their time until `hurry()`: so an
    answer can be long enough to be still in the middle when a slow browser has come to look, and yet be soon over.
    """

    def __init__(self, make_server: MakeServer, port: int, *, token: str = "", **options: Any) -> None:
        self.token = token
        self.url = f"http://127.0.0.1:{port}/"
        self._make_server = make_server
        self._options = {**options, "port": port}
        self._hurried = asyncio.Event()
        self._server: RunningServer | None = None

    @property
    def server(self) -> RunningServer:
        """The server that runs now."""
        assert self._server is not None, "it was started"
        return self._server

    async def start(self) -> None:
        """Start it, on the port that it had."""
        self._server = await self._make_server(registry=self._registry(), **self._options)

    def _registry(self) -> Registry:
        usual = Registry.build(FAST_AGENTS)
        agents = [_Patient(usual.get(each.type), self._hurried) for each in usual.definitions]
        return Registry(agents, usual.server_tools.values(), default=usual.default.type)

    async def stop(self) -> None:
        """Stop it as SIGTERM does."""
        await self.server.stop()

    def hurry(self) -> None:
        """From now on nothing that an agent says takes time."""
        self._hurried.set()


class _Patient:
    """An agent that keeps its own pace until there is a hurry."""

    def __init__(self, agent: Agent, hurried: asyncio.Event) -> None:
        self.definition = agent.definition
        self._agent = agent
        self._hurried = hurried

    async def run(self, context: AgentContext) -> AsyncIterator[AgentOutput]:
        async def sleep(seconds: float) -> None:
            await (asyncio.sleep(0) if self._hurried.is_set() else context.sleep(seconds))

        unhurried = self._agent.run(msgspec.structs.replace(context, sleep=sleep))
        async with aclosing(unhurried) as outputs:  # type: ignore[type-var]
            async for output in outputs:
                yield output
