"""The statement: one transaction and one trip a command, whatever many callers do at once."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import MessagePlan, Reply
from storage.commits import Committed
from storage.log import StoredEvent
from storage.sessions import Session
from storage.turns import Advance, Started
from tests.storage.calling import Calling, asked_call, client_call, dispatch
from tests.storage.conftest import Open
from tests.storage.scene import AGENT, PATIENCE, Scene, rival_scene
from tests.storage.test_threads import interrupt
from tests.storage.wire import wire_to
from tests.support.database import Cluster

CALLERS = 64


class Delivery(NamedTuple):
    """One arrival of a command; another body may arrive under the same id."""

    session: Session
    command_id: str
    body: str


class Crowd:
    """Many callers of one database. Who starts a turn ends it and those that wait, as an engine would."""

    def __init__(self, scene: Scene, *, gated: bool) -> None:
        self.scene = scene
        self.gated = gated
        self.guesses = random.Random(0)
        self.outcomes: dict[tuple[UUID, str], list[tuple[str, Reply | ParleyError]]] = defaultdict(list)
        self.committed: list[Committed] = []

    async def deliver(self, deliveries: list[Delivery]) -> None:
        pending = iter(deliveries)

        async def caller() -> None:
            for delivery in pending:
                await self._one(delivery)

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(caller())

    async def _one(self, delivery: Delivery) -> None:
        session, plan = delivery.session, self.scene.plan(delivery.body)
        outcome: Reply | ParleyError
        try:
            async with self._gate(session):
                outcome = await self.scene.say(
                    session,
                    delivery.command_id,
                    delivery.body,
                    plan=plan,
                    busy=self.guesses.random() < 0.5,
                    most=10_000,
                )
        except ParleyError as error:
            outcome = error
        self.outcomes[session.session_id, delivery.command_id].append((delivery.body, outcome))
        if isinstance(outcome, Reply) and outcome.commit is not None:
            self.committed.append(outcome.commit)
            if outcome.turn_id is not None:
                await self._end(session, plan)
                await self._go_on(session)

    async def _end(self, session: Session, start: MessagePlan | Started) -> None:
        claim = self.scene.claim(session, start)
        async with self._gate(session):
            advanced = await self.scene.turns.advance(claim, self.scene.ending(claim), self.scene.now())
        assert advanced.commit is not None
        self.committed.append(advanced.commit)

    async def _go_on(self, session: Session) -> None:
        while (waiting := await self.scene.turns.next_waiting(session.session_id)) is not None:
            start = self.scene.start(session, waiting)
            async with self._gate(session):
                commit = await self.scene.turns.start_waiting(start)
            if commit is not None:
                self.committed.append(commit)
                await self._end(session, start)

    def _gate(self, session: Session) -> AbstractAsyncContextManager[None]:
        return self.scene.database.gates.hold(session.session_id) if self.gated else nullcontext()


@pytest.mark.feature("S06", "S13")
@pytest.mark.parametrize("sessions", [1, 8])
@pytest.mark.parametrize("gated", [True, False], ids=["gates", "no_gates"])
async def test_64_callers_with_repeats_and_conflicts(any_opener: Open, gated: bool, sessions: int) -> None:
    scene = await any_opener(max_size=CALLERS)
    crowd = Crowd(scene, gated=gated)
    deliveries = []
    for session in [await scene.session() for _ in range(sessions)]:
        for number in range(160 // sessions):
            bodies = ["one", "one", "one", "other"] if number % 4 == 0 else ["one", "one", "one"]
            deliveries += [Delivery(session, f"command-{number}", body) for body in bodies]
    random.Random(sessions).shuffle(deliveries)

    await crowd.deliver(deliveries)

    for outcomes in crowd.outcomes.values():
        replies = [(body, outcome) for body, outcome in outcomes if isinstance(outcome, Reply)]
        refusals = [(body, outcome) for body, outcome in outcomes if isinstance(outcome, ParleyError)]
        # The first body to come has won; all its deliveries are told the same, and one of them had the effect.
        assert len({body for body, _ in replies}) == 1
        assert len({(reply.status, reply.seq, reply.message_id, reply.turn_id) for _, reply in replies}) == 1
        assert sum(reply.commit is not None for _, reply in replies) == 1
        assert {body for body, _ in refusals}.isdisjoint({body for body, _ in replies})
        assert {error.code for _, error in refusals} <= {ErrorCode.CONFLICT}
    await scene.audit()
    assert await scene.value("SELECT count(*) FROM commands") == len(crowd.outcomes)
    assert await scene.value("SELECT count(*) FROM turns") == len(crowd.outcomes)
    # What the callers would have shown is what the log holds: every event once, byte for byte.
    shown: dict[UUID, list[StoredEvent]] = defaultdict(list)
    for commit in crowd.committed:
        shown[commit.session_id] += commit.events
    for session_id, events in shown.items():
        assert await scene.log.read(session_id, 0, limit=10_000) == sorted(events, key=lambda event: event.seq)
    assert len(scene.database.gates) == 0


async def test_a_command_is_one_round_trip(cluster: Cluster) -> None:
    async with wire_to(cluster) as wire:
        scene = Scene(await wire.open(max_size=1))
        session = await scene.session()
        idle = [await scene.session() for _ in range(5)]
        # Each statement is prepared once, here.
        claim = await scene.begun(session)
        turn_id = claim.turn_id
        waiting = await scene.say(session, "waits", busy=True)
        assert waiting.message_id is not None
        await scene.cancel(session, "cancel", turn_id)
        await scene.switch(session, "switch", (AGENT, "coder"))
        await scene.reorder(session, "reorder", [waiting.message_id])
        await scene.remove(session, "remove", waiting.message_id)
        await scene.turns.advance(claim, Advance(step_state="running"), scene.now())

        before = wire.trips
        for number in range(5):
            await scene.begun(idle[number])
            added = await scene.say(session, f"new-{number}", busy=True)
            assert added.message_id is not None
            await scene.cancel(session, f"cancel-{number}", turn_id)
            await scene.switch(session, f"switch-{number}", ("coder", "coder"))
            await scene.reorder(session, f"reorder-{number}", [added.message_id])
            await scene.remove(session, f"remove-{number}", added.message_id)
            await scene.turns.advance(claim, Advance(step_state="running"), scene.now())
        assert wire.trips - before == 5 * 7
        await scene.audit()


async def test_what_concerns_calls_is_one_round_trip_too(cluster: Cluster) -> None:
    async with wire_to(cluster) as wire:
        scene = Scene(await wire.open(max_size=1))

        async def one() -> list[int]:
            ours, asked = client_call(), asked_call()
            before = wire.trips
            # A session, its first message, the step's calls.
            turn = await Calling.begun(scene, ours, asked)
            trips = [wire.trips - before]
            for work in (
                lambda: turn.park(dispatches=[dispatch(ours)]),
                lambda: turn.result(ours),
                lambda: turn.decide(asked),
                lambda: interrupt(scene, turn.session, "now", turn.claim.turn_id),
                lambda: scene.turns.claim_due(scene.worker, scene.now(), 10),
                lambda: scene.calls.claim_for_tools(scene.worker, turn.session.session_id, ["look"]),
                lambda: scene.calls.find(turn.session.session_id, ours.call_id),
            ):
                before = wire.trips
                await work()
                trips.append(wire.trips - before)
            return trips

        await one()  # each statement is prepared once
        assert await one() == [3, 1, 1, 1, 1, 1, 1, 1]
        await scene.audit()


async def test_a_repeat_a_wrong_guess_and_a_refusal_take_a_trip_more(cluster: Cluster) -> None:
    async with wire_to(cluster) as wire:
        scene = Scene(await wire.open(max_size=1))
        session, idle = await scene.session(), await scene.session()
        first = await scene.begun(session)
        await scene.say(session, "waits", busy=True)
        await scene.say(session, "waits too")
        attempts: list[tuple[int, str, Callable[[], Awaitable[Reply]]]] = [
            (2, "accepted", lambda: scene.say(session, "first")),
            (2, "accepted", lambda: scene.say(session, "first", busy=True)),
            (2, "queued", lambda: scene.say(session, "waits", busy=True)),
            (2, "queued", lambda: scene.say(session, "wrong guess")),
            (2, "accepted", lambda: scene.say(idle, "wrong guess", busy=True)),
            # Who numbers his commands asks for a decision at once.
            (1, "queued", lambda: scene.say(session, "numbered", busy=True, n=1)),
        ]
        for trips, status, attempt in attempts:
            before = wire.trips
            assert (await attempt()).status == status
            assert wire.trips - before == trips
        before = wire.trips
        with pytest.raises(ParleyError) as refused:
            await scene.say(session, "refused", busy=True, on_busy="reject")
        # The decision, and the look for an earlier delivery.
        assert (refused.value.code, wire.trips - before) == (ErrorCode.BUSY, 2)
        assert first.turn_id == (await scene.say(session, "first")).turn_id
        await scene.audit()


@pytest.mark.feature("S14")
async def test_a_busy_session_leaves_the_connections_to_the_others(opener: Open) -> None:
    scene: Scene = await opener(max_size=4)
    foreign = await opener(max_size=1)
    hot = await scene.session()
    others = [await scene.session() for _ in range(12)]
    gates, pool = scene.database.gates, scene.database.pool

    async def write(number: int) -> Reply:
        async with gates.hold(hot.session_id):
            return await scene.say(hot, f"hot-{number}")

    async with rival_scene(foreign.database) as (elsewhere, rival):
        await elsewhere.say(hot, "held")
        writers = [asyncio.create_task(write(number)) for number in range(48)]
        await rival.until_waiting()
        # Complete, all of them, while the hot session's writers wait: with one connection, and outside of the pool.
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(scene.begun(other) for other in others))
        assert not any(writer.done() for writer in writers)
        assert pool.get_size() - pool.get_idle_size() == 1
    replies = await asyncio.gather(*writers)
    assert [reply.seq for reply in replies] == list(range(3, 51))
    assert len(gates) == 0
    await scene.audit()


async def test_without_the_gate_a_busy_session_would_take_them_all(opener: Open) -> None:
    """The control of the test above: it would notice."""
    scene: Scene = await opener(max_size=4)
    foreign = await opener(max_size=1)
    hot = await scene.session()
    async with rival_scene(foreign.database) as (elsewhere, rival):
        await elsewhere.say(hot, "held")
        writers = [asyncio.create_task(scene.say(hot, f"hot-{number}")) for number in range(8)]
        await rival.until_waiting(4)
        assert scene.database.pool.get_size() == 4
        assert scene.database.pool.get_idle_size() == 0
    await asyncio.gather(*writers)
    await scene.audit()


@pytest.mark.feature("S13", "S17")
async def test_regression_02_a_message_is_committed_before_anything_else_is_done(opener: Open) -> None:
    """The caller needs not, and could not, commit; another connection sees the message while the turn goes on."""
    scene, elsewhere = await opener(), await opener()
    session = await scene.session()
    claim = await scene.begun(session, text="are you there?")
    assert [message.content for message in await elsewhere.messages.tail(session.session_id, 10)] == ["are you there?"]
    assert (await elsewhere.sessions.resolve("ada", str(session.session_id))).active_turn == claim.turn_id
    await scene.end(claim, "yes")
    assert [m.content for m in await elsewhere.messages.tail(session.session_id, 10)] == ["are you there?", "yes"]
    assert await elsewhere.value("SELECT count(*) FROM messages") == 2


@pytest.mark.feature("S06", "S13", "S14")
async def test_regression_08_a_failed_statement_leaves_no_event_and_no_ghost(any_opener: Open) -> None:
    scene = await any_opener(max_size=1)
    session = await scene.session()
    first = scene.plan("first")
    await scene.say(session, "first", "first", plan=first)
    await scene.end(scene.claim(session, first))
    before = await scene.sessions.resolve("ada", str(session.session_id))
    tables = ("sessions", "events", "commands", "messages", "queue", "turns", "command_numbers")

    async def content() -> list[list[asyncpg.Record]]:
        return [await scene.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]

    all_before = await content()
    other = await scene.session()
    for target in (session, other):
        # The turn's id is new, the message's is not: the statement fails when most of it is done.
        plan = msgspec.structs.replace(scene.plan("second"), message_id=first.message_id)
        with pytest.raises(asyncpg.UniqueViolationError):
            await scene.say(target, "second", "second", plan=plan, n=1)
    assert await scene.value("DELETE FROM sessions WHERE session_id = $1 RETURNING seq", other.session_id) == 0
    assert await content() == all_before
    # The one connection is back in the pool, and the command can be sent again: nothing of it was remembered.
    assert scene.database.pool.get_idle_size() == 1
    reply = await scene.say(session, "second", "second", n=1)
    assert (reply.seq, reply.commit is not None) == (before.seq + 1, True)
    await scene.audit()


async def test_regression_34_no_connection_is_held_between_statements(opener: Open) -> None:
    scene = await opener(max_size=2)
    pool = scene.database.pool
    claims = [await scene.begun(await scene.session()) for _ in range(6)]
    # Six turns wait for their models, and eight writers for a gate that somebody holds.
    hot = claims[0].session_id

    async def write() -> None:
        async with scene.database.gates.hold(hot):
            await scene.turns.checkpoint(scene.worker, claims)

    async with scene.database.gates.hold(hot):
        writers = [asyncio.create_task(write()) for _ in range(8)]
        await asyncio.sleep(0)
        assert pool.get_idle_size() == pool.get_size() > 0
        await asyncio.gather(*(scene.end(claim) for claim in claims))
    await asyncio.gather(*writers)
    assert pool.get_idle_size() == pool.get_size()
    await scene.audit()


async def test_regression_15_a_repeated_command_runs_once(any_scene: Scene) -> None:
    session = await any_scene.session()
    plan = any_scene.plan("run it")
    first = await any_scene.say(session, "once", "run it", plan=plan)
    during = await any_scene.say(session, "once", "run it")
    await any_scene.end(any_scene.claim(session, plan))
    after = await any_scene.say(session, "once", "run it")
    assert first.commit is not None
    assert (during.commit, after.commit) == (None, None)
    told = {(reply.status, reply.seq, reply.message_id, reply.turn_id) for reply in (first, during, after)}
    assert told == {("accepted", 1, plan.message_id, plan.start().turn_id)}
    assert await any_scene.value("SELECT count(*) FROM turns") == 1
    await any_scene.audit()
