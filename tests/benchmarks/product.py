"""The server, whole: its application, its middlewares, its log, its database; and two agents that cost nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from aiohttp import web

from server.agents.interface import AgentContext, AgentYield, agent
from server.agents.registry import Registry
from server.app import build, create_app
from server.channel.settings import ChannelSettings
from server.config import Config, DatabaseSettings, LogSettings, ServerSettings
from server.observe.logs import configure
from server.run import make_runner, settle
from server.services import Services
from server.turns.settings import TurnSettings
from storage.commits import Committed
from storage.log import StoredEvent
from storage.sessions import Session
from tests.benchmarks.children import pin, raise_file_limit, serve_parent
from tests.benchmarks.publishing import BODY, listen

__all__: list[str] = []

OWNER = "local"


@agent(type="waiter", description="Never says anything, so that later messages queue.")
async def _waiter(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    await asyncio.get_running_loop().create_future()
    yield ""


@agent(type="prompt", description="Answers at once, with a word.")
async def _prompt(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    yield "Yes."


class _Product:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def sessions(self, count: int, agent: str) -> list[str]:
        """Make sessions; their ids."""
        made = [await self._session(agent) for _ in range(count)]
        return [str(session.session_id) for session in made]

    async def publisher(self) -> dict[str, Any]:
        """A session, and the port whose bytes publish events in it."""
        session = await self._session("waiter")
        return {"session": str(session.session_id), "control": await listen(self._publish_in(session))}

    async def framings(self) -> int:
        """How often events were framed: once a wire and turn of the loop, never once a subscriber."""
        return self._services.hub.counters.framings

    async def events(self, sessions: list[str]) -> int:
        """How many events the sessions' logs hold in all, by the database: what was acknowledged has become real."""
        heads = await self._services.sessions.heads([UUID(session) for session in sessions])
        return sum(heads.values())

    def _publish_in(self, session: Session) -> Callable[[], None]:
        """Publishes as every commit does, from the moment when the database has answered."""
        hub, clock = self._services.hub, self._services.clock
        seq = session.seq

        def publish() -> None:
            nonlocal seq
            seq += 1
            event = StoredEvent(seq, "message_created", clock.now(), BODY)
            hub.commit(Committed(session.session_id, session.epoch, (event,)))

        return publish

    async def _session(self, agent: str) -> Session:
        return await self._services.sessions.create(OWNER, agent=agent, now=self._services.clock.now())


def _config(options: dict[str, Any]) -> Config:
    return Config(
        server=ServerSettings(port=0),
        database=DatabaseSettings(url=options["database"]),
        # Nothing beats in between, in either server, and nothing is pinged: an idle connection is measured as such.
        channel=ChannelSettings(heartbeat_interval=3600),
        turns=TurnSettings(queue_limit=1024, step_timeout=3600),
        log=LogSettings(format="json"),
    )


async def _main(options: dict[str, Any]) -> None:
    pin(options["core"])
    raise_file_limit()
    # The log is written as in operation, to where nobody reads it.
    log = Path(os.devnull).open("w", encoding="utf-8")  # noqa: ASYNC230, SIM115 - a device, and for as long as we live
    config = _config(options)
    configure(config.log, log)
    agents = [_waiter, _prompt]
    services = await build(config, registry=Registry(agents, [], default="waiter"))
    runner = make_runner(create_app(services), config.server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    settle()
    product = _Product(services)

    async def where() -> dict[str, Any]:
        return {"port": site.port}

    await serve_parent(
        {
            "where": where,
            "sessions": product.sessions,
            "publisher": product.publisher,
            "framings": product.framings,
            "events": product.events,
        }
    )


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
