"""Two processes on one database: one is killed under load, and every turn goes on at the other."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import pytest

from tests.chaos.chapters import Chapter, Tally
from tests.chaos.conftest import Report
from tests.support.database import Cluster
from tests.support.process import Part, ServerProcess, Watched

#: Answers of a second or two, as in the other chapters; a short lease, so that the survivor takes over while they last.
CONFIG: Final = """\
[database]
url = "{url}"

[agents.offline]
speed = 200

[server]
shutdown_timeout = 5

[turns]
lease_seconds = 2
"""
_ROUNDS_A_CHAPTER: Final = 10


class Pair:
    """Two servers that look like one to clients, which reach either."""

    def __init__(self, servers: list[ServerProcess], arguments: dict[str, Any], dice: random.Random) -> None:
        self.servers = servers
        self.http: aiohttp.ClientSession = servers[0].http
        self.postmasters_killed = 0
        self.dead: ServerProcess | None = None
        self._arguments = arguments
        self._dice = dice

    @property
    def alive(self) -> list[ServerProcess]:
        """Those that can be reached."""
        return [server for server in self.servers if server is not self.dead]

    async def address(self) -> str:
        """Where one of them is."""
        return await self._dice.choice(self.alive).address()

    async def ready(self) -> None:
        """Ask one that lives whether it is ready."""
        await self._dice.choice(self.alive).ready()

    def kill(self, part: Part, dice: random.Random) -> Watched:
        """Kill one of them."""
        del part
        self.dead = dice.choice(self.servers)
        return self.dead.kill("server")

    def database(self) -> dict[str, Any]:
        """How asyncpg reaches the database."""
        return self._arguments

    def check(self) -> None:
        """Fail when either complained."""
        for server in self.servers:
            server.check()


class TwoProcesses(Chapter):
    """A chapter in which one of two servers dies, and comes back when the other has taken over."""

    server: Pair  # type: ignore[assignment]

    async def _start_again(self, killed: Watched) -> None:
        pair = self.server
        assert pair.dead is not None
        await pair.dead.reap()
        await killed.gone()
        if self.dice.random() < 0.7:
            await self._taken_over()
        await pair.dead.start()
        pair.dead = None

    async def _taken_over(self) -> None:
        """Wait until no turn belongs to a process that is gone; the survivor alone can bring that about."""
        connection = await asyncpg.connect(**self.server.database())
        try:
            async with asyncio.timeout(30):
                lost = -1
                while lost:
                    lost = await connection.fetchval(
                        "SELECT count(*) FROM turns WHERE finished_at IS NULL AND state = 'running'"
                        " AND worker_id NOT IN (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp())"
                    )
        finally:
            await connection.close()
        self.tally["turns taken over"] += 1


async def _play(rounds: int, seed: str, data_dir: Path, cluster: Cluster, report: Report) -> None:
    dice, tally, began = random.Random(f"{seed}-two"), Tally(), time.monotonic()
    name = await cluster.create()
    try:
        async with AsyncExitStack() as stack:
            servers = []
            for which in ("one", "two"):
                config = CONFIG.format(url=cluster.dsn(name))
                server = ServerProcess(data_dir.with_name(which), config, own_database=False)
                stack.push_async_callback(server.close)
                await server.start()
                servers.append(server)
            pair = Pair(servers, cluster.connect_args(name), dice)
            left = rounds
            while left:
                chapter = min(left, _ROUNDS_A_CHAPTER)
                await TwoProcesses(pair, "server", dice, tally).run(chapter)  # type: ignore[arg-type]
                left -= chapter
            for server in servers:
                assert await server.stop() == 0
            pair.check()
    except BaseException as error:
        error.add_note(f"replay with PARLEY_CHAOS_SEED={seed} PARLEY_CHAOS_ROUNDS={rounds} and -k two_processes")
        raise
    finally:
        await cluster.drop(name)
    assert Counter(tally)["completed"]
    report("one of two processes", seed, time.monotonic() - began, tally)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("T10", "S06", "T02")
async def test_two_processes_one_killed_again_and_again(
    rounds: int, seed: str, data_dir: Path, cluster: Cluster, report: Report
) -> None:
    await _play(rounds, seed, data_dir, cluster, report)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("T10", "S06", "T02")
async def test_two_processes_one_killed_now_and_then(
    same_seed: str, data_dir: Path, cluster: Cluster, report: Report
) -> None:
    await _play(2, same_seed, data_dir, cluster, report)
