"""Storage against a model of it: any sequence of commands, each sent twice, and of moves has the model's effect."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, field

from protocol.errors import ErrorCode, ParleyError
from storage.commands import Reply
from storage.ids import new_id
from storage.pool import Database
from storage.sessions import Session
from storage.turns import Claim
from tests.storage.scene import AGENT, Scene
from tests.support.database import Cluster

MOST_WAITING = 3
IDS = st.sampled_from([f"id{number}" for number in range(8)])
BODIES = st.sampled_from(["one body", "another body"])
NUMBERS = st.sampled_from([None, None, 1, 2, 3, 4])
STEPS = st.one_of(
    st.tuples(st.just("say"), IDS, BODIES, NUMBERS, st.booleans(), st.booleans()),
    st.tuples(st.just("cancel"), IDS, NUMBERS),
    st.tuples(st.just("switch"), IDS, st.sampled_from([AGENT, "coder"]), NUMBERS),
    st.tuples(st.just("remove"), IDS, st.integers(0, 3), NUMBERS),
    st.tuples(st.just("reorder"), IDS, st.permutations(range(3)), NUMBERS),
    st.tuples(st.just("end")),
    st.tuples(st.just("start")),
)


class Model(Struct):
    """A session as the product promises it, in the simplest words."""

    seq: int = 0
    agent: str = AGENT
    active: Claim | None = None
    queue: list[Any] = field(default_factory=list)
    number: int = 0
    messages: int = 0
    stored: dict[str, tuple[object, tuple[object, ...]]] = field(default_factory=dict)

    def expect(self, command_id: str, body: object, n: int | None, refusal: ErrorCode | None) -> str | ErrorCode:
        """What becomes of a command: `new`, `repeat`, or a refusal. A new one has used its number."""
        if command_id in self.stored:
            return "repeat" if self.stored[command_id][0] == body else ErrorCode.CONFLICT
        if refusal is not None:
            return refusal
        if n is not None:
            if n != self.number + 1:
                return ErrorCode.OUT_OF_ORDER
            self.number = n
        return "new"


def told(reply: Reply) -> tuple[object, ...]:
    return (reply.status, reply.seq, reply.message_id, reply.turn_id)


class Play:
    """Does each step to storage and to the model."""

    def __init__(self, scene: Scene, session: Session) -> None:
        self.scene = scene
        self.session = session
        self.model = Model()

    async def step(self, name: str, *arguments: Any) -> None:
        await getattr(self, name)(*arguments)
        model, now = self.model, await self.scene.sessions.resolve("ada", str(self.session.session_id))
        assert (now.seq, now.current_agent, now.queued, now.message_count) == (
            model.seq,
            model.agent,
            len(model.queue),
            model.messages,
        )
        assert now.active_turn == (model.active.turn_id if model.active is not None else None)

    async def command(self, body: object, n: int | None, refusal: ErrorCode | None, work: Any, command_id: str) -> bool:
        """Send it twice; whether it had an effect."""
        model = self.model
        expected = model.expect(command_id, body, n, refusal)
        effect = False
        for _ in range(2):
            try:
                reply = await work()
            except ParleyError as error:
                assert error.code is expected  # noqa: PT017 - which of both it is to be was decided above
                continue
            assert expected in {"new", "repeat"}
            assert (reply.commit is not None) == (expected == "new")
            if expected == "new":
                effect, expected = True, "repeat"
                assert reply.seq == model.seq + 1
                model.stored[command_id] = (body, told(reply))
                assert reply.commit is not None
                model.seq += len(reply.commit.events)
            assert told(reply) == model.stored[command_id][1]
        return effect

    async def say(self, command_id: str, text: str, n: int | None, reject: bool, busy: bool) -> None:
        model = self.model
        idle = model.active is None and not model.queue
        refusal = None
        if not idle and reject:
            refusal = ErrorCode.BUSY
        elif not idle and len(model.queue) >= MOST_WAITING:
            refusal = ErrorCode.QUEUE_FULL
        plans = []

        async def work() -> Reply:
            plans.append(self.scene.plan(text, agent=model.agent))
            return await self.scene.say(
                self.session,
                command_id,
                text,
                plan=plans[-1],
                busy=busy,
                on_busy="reject" if reject else "enqueue",
                most=MOST_WAITING,
                n=n,
            )

        if await self.command(text, n, refusal, work, command_id):
            if idle:
                model.active = self.scene.claim(self.session, plans[0])
                model.messages += 1
            else:
                model.queue.append(plans[0].message_id)

    async def cancel(self, command_id: str, n: int | None) -> None:
        active = self.model.active
        turn_id = active.turn_id if active is not None else new_id()
        refusal = ErrorCode.NO_ACTIVE_TURN if active is None else None
        body = str(turn_id)
        await self.command(
            body, n, refusal, lambda: self.scene.cancel(self.session, command_id, turn_id, n=n), command_id
        )

    async def switch(self, command_id: str, agent: str, n: int | None) -> None:
        former = self.model.agent
        work = lambda: self.scene.switch(self.session, command_id, (former, agent), n=n)  # noqa: E731
        if await self.command(agent, n, None, work, command_id):
            self.model.agent = agent

    async def remove(self, command_id: str, index: int, n: int | None) -> None:
        queue = self.model.queue
        target = queue[index] if index < len(queue) else new_id()
        refusal = None if target in queue else ErrorCode.NOT_FOUND
        work = lambda: self.scene.remove(self.session, command_id, target, n=n)  # noqa: E731
        if await self.command(str(target), n, refusal, work, command_id):
            queue.remove(target)

    async def reorder(self, command_id: str, order: list[int], n: int | None) -> None:
        queue = self.model.queue
        wanted = [queue[index] for index in order if index < len(queue)]
        refusal = ErrorCode.CONFLICT if len(wanted) != len(queue) else None
        work = lambda: self.scene.reorder(self.session, command_id, wanted, n=n)  # noqa: E731
        if await self.command(str(wanted), n, refusal, work, command_id):
            self.model.queue = wanted

    async def end(self) -> None:
        model = self.model
        if model.active is not None:
            await self.scene.end(model.active)
            model.active = None
            model.seq += 2
            model.messages += 1

    async def start(self) -> None:
        model = self.model
        waiting = await self.scene.turns.next_waiting(self.session.session_id)
        if model.active is not None or not model.queue:
            assert waiting is None
            return
        assert waiting is not None
        assert waiting.message_id == model.queue.pop(0)
        start = self.scene.start(self.session, waiting)
        assert start.agent_type == model.agent
        assert await self.scene.turns.start_waiting(start) is not None
        model.active = self.scene.claim(self.session, start)
        model.seq += 3
        model.messages += 1


def test_any_sequence_has_the_models_effect(cluster: Cluster) -> None:
    name = asyncio.run(cluster.create())
    database = Database(max_size=1)

    async def play(steps: list[tuple[Any, ...]]) -> None:
        scene = Scene(database)
        player = Play(scene, await scene.session())
        for step in steps:
            await player.step(*step)
        await scene.audit(player.session)

    with asyncio.Runner() as runner:
        runner.run(database.open(cluster.connect_args(name)))
        try:

            @settings(max_examples=60)
            @given(st.lists(STEPS, min_size=5, max_size=30))
            def examples(steps: list[tuple[Any, ...]]) -> None:
                runner.run(play(steps))

            examples()
        finally:
            runner.run(database.close())
            runner.run(cluster.drop(name))
