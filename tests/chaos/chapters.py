"""Chapters: some sessions, some kills, then quiet; and what must be true after that."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final, Literal

import asyncpg

from tests.chaos.audit import Audit, audit, compare_database
from tests.chaos.clients import TRANSPORTS, Follower
from tests.chaos.scene import Stage, Trigger
from tests.support.checker import View
from tests.support.process import Part, ServerProcess, Watched

__all__ = ["Chapter", "Kind", "Tally", "run"]

Kind = Literal["server", "database", "tree"]

_SESSIONS: Final = 4
_ROUNDS_A_CHAPTER: Final = 10
#: Seconds for one moment of progress to come, and for everything to become quiet.
_PATIENCE: Final = 120.0
#: A database that dies this often without a minute's health in between makes its supervisor hesitate, and then give up.
_MOST_POSTMASTERS: Final = 4

Tally = Counter[str]


class Chapter:
    """Some sessions of one server, while it is killed again and again."""

    def __init__(self, server: ServerProcess, kind: Kind, dice: random.Random, tally: Tally) -> None:
        self.server = server
        self.kind = kind
        self.dice = dice
        self.tally = tally
        self.trigger = Trigger()
        self.stages: list[Stage] = []
        self._following: list[asyncio.Task[None]] = []

    async def run(self, rounds: int) -> None:
        """Use the sessions, kill, and check everything when it is quiet again."""
        for _ in range(_SESSIONS):
            stage = await Stage.open(self.server, random.Random(self.dice.random()), self.trigger)
            self.stages.append(stage)
        async with asyncio.TaskGroup() as group:
            for stage in self.stages:
                for follower in stage.followers:
                    self._follow(group, follower)
            talking = [group.create_task(stage.talk()) for stage in self.stages]
            for _ in range(rounds):
                await self._round()
                self.server.check()
                visited = self.dice.choice(self.stages)
                self._follow(group, visited.join(self.dice.choice(TRANSPORTS), from_start=False))
            for stage in self.stages:
                stage.stop()
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*talking)
                heads = [await stage.quiet() for stage in self.stages]
            for task in self._following:
                task.cancel()
        for stage, head in zip(self.stages, heads, strict=True):
            await self._check(stage, head)

    def _follow(self, group: asyncio.TaskGroup, follower: Follower) -> None:
        self._following.append(group.create_task(follower.run()))

    # --- one kill

    async def _round(self) -> None:
        parts: tuple[Part, ...] = ("postmaster", "backend") if self.kind == "database" else (self.kind,)
        part = self.dice.choice(parts)
        drops = self._drops()
        async with asyncio.timeout(_PATIENCE):
            killed: Watched = await self.trigger.arm(self.dice, lambda: self.server.kill(part, self.dice))
        self.tally[f"kills of {part}"] += 1
        with killed:
            if self.kind == "database":
                await killed.gone()
                await self.server.ready()
                assert self._drops() == drops, "a stream ended because the database was away"
            else:
                await self._start_again(killed)
        if self.server.postmasters_killed >= _MOST_POSTMASTERS:
            assert await self.server.stop() == 0
            await self._start()
            self.tally["stops in order"] += 1

    async def _start_again(self, killed: Watched) -> None:
        await self.server.reap()
        if self.dice.random() < 0.5:
            # Nobody helps the database to notice that its server is gone.
            await killed.gone()
            assert self.server.unowned(), "a process was left behind"
        await self._start()
        await killed.gone()
        assert self.server.owners() == [self.server.pid]
        connection = await asyncpg.connect(**self.server.database())
        try:
            workers = await connection.fetchval("SELECT count(*) FROM workers WHERE lease_until >= clock_timestamp()")
        finally:
            await connection.close()
        assert workers == 1, "somebody else may run turns too"

    async def _start(self) -> None:
        for stage in self.stages:
            stage.ledger.server_ended()
        await self.server.start()

    def _drops(self) -> int:
        return sum(follower.drops for stage in self.stages for follower in stage.followers)

    # --- when it is quiet

    async def _check(self, stage: Stage, head: int) -> None:
        for follower in stage.followers:
            view = follower.view
            assert (view.seq, view.unfinished) == (head, set()), (view.name, view.seq, view.unfinished, head)
        await self._replay(stage, head)
        walk = audit(stage.ledger)
        await self._history(stage, walk)
        connection = await asyncpg.connect(**self.server.database())
        try:
            await compare_database(connection, walk)
        finally:
            await connection.close()
        self.tally += walk.counts + stage.ledger.counts
        self.tally["sessions"] += 1
        self.tally["reconnects"] += sum(follower.drops for follower in stage.followers)

    async def _replay(self, stage: Stage, head: int) -> None:
        """From the first event on, over each downlink: the ledger compares every byte."""
        for transport in TRANSPORTS:
            view = View(stage.ledger, f"replay-{transport}")
            await Follower(self.server, view, transport).once()
            assert view.seq == head, (view.name, view.seq, head)

    async def _history(self, stage: Stage, walk: Audit) -> None:
        """What REST calls the history has the same messages."""
        url = f"{await self.server.address()}/sessions/{stage.ledger.session_id}/history"
        shown: dict[str, str] = {}
        after: str | None = "0"
        while after is not None:
            async with self.server.http.get(url, params={"after": after, "limit": 100}) as response:
                page = await response.json()
            shown |= {one["message_id"]: one["content"] for one in page["messages"] if one["role"] != "tool"}
            after = page.get("next")
        assert shown == {message: body["content"] for message, body in walk.created.items()}


async def run(server: ServerProcess, kind: Kind, rounds: int, seed: str) -> Tally:
    """Kill so many times; what was counted meanwhile."""
    tally: Tally = Counter()
    dice = random.Random(f"{seed}-{kind}")
    while rounds:
        chapter = min(rounds, _ROUNDS_A_CHAPTER)
        await Chapter(server, kind, dice, tally).run(chapter)
        rounds -= chapter
    return tally
