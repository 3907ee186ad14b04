"""Everybody at once: deciders, clients, timers, cancellers, and processes that run turns and lose them.

A small engine runs on each of several processes. It does what one has to do and no more: look at the calls, write what
can be written, wait for the rest in the database. Whatever the order, each call has one result, each claim one holder,
and no turn is left waiting.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import Reply
from storage.ids import new_id
from storage.turns import (
    Advance,
    Advanced,
    Call,
    Claim,
    Dispatch,
    EndedCall,
    LostClaimError,
    NewsError,
    OpenApproval,
    ParentResult,
)
from tests.storage.calling import Calling, asking, child_of, client_call, result_of
from tests.storage.conftest import Open
from tests.storage.scene import NOW, PATIENCE, Scene, event
from tests.storage.test_threads import child_claim

#: Steps with calls that each turn has, before it ends.
STEPS: Final = 2
PROCESSES: Final = 3
SESSIONS: Final = 8
_LATE: Final = {ErrorCode.ALREADY_RESOLVED, ErrorCode.NOT_FOUND, ErrorCode.NO_ACTIVE_TURN}


class World:
    """What all processes share: the clock, the dice, who was given which claim, who was first."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.ticks = 0
        self.claims: list[tuple[UUID, int]] = []
        self.won: Counter[tuple[UUID, str]] = Counter()
        self.kinds: dict[UUID, str] = {}

    def now(self) -> datetime:
        self.ticks += 1
        return NOW + timedelta(milliseconds=self.ticks)

    def calls(self, *, below: bool) -> list[Call]:
        """What an agent asks for: of clients, of people, of another agent."""
        made = []
        for _ in range(self.dice.randint(1, 3)):
            kind = self.dice.choice(["client", "asked", "asked", "agent"] if not below else ["client", "asked"])
            soon = NOW + timedelta(milliseconds=self.ticks + self.dice.randint(5, 400))
            if kind == "agent":
                call = Call(call_id=new_id(), name="ask_agent", arguments="{}", executor="agent")
            elif kind == "asked":
                call = client_call(state="awaiting_approval", approval=OpenApproval(new_id(), soon))
            else:
                call = client_call()
            self.kinds[call.call_id] = kind
            made.append(call)
        return made


class Process:
    """One process: its own connections, a worker's lease, and the turns that it runs."""

    def __init__(self, world: World, scene: Scene) -> None:
        self.world = world
        self.scene = scene
        self.running: dict[UUID, asyncio.Task[None]] = {}

    def take(self, claims: list[Claim]) -> None:
        """Run what was claimed."""
        for claim in claims:
            self.world.claims.append((claim.turn_id, claim.revision))
            self.begin(claim)

    def begin(self, claim: Claim) -> None:
        self.running[claim.turn_id] = asyncio.create_task(self._run(claim))

    async def _run(self, claim: Claim) -> None:
        try:
            while claim.state == "tools" or not await self._speak(claim):
                if await self._settle(claim):
                    break
        except LostClaimError:
            pass
        finally:
            if self.running.get(claim.turn_id) is asyncio.current_task():
                del self.running[claim.turn_id]

    async def _advance(self, claim: Claim, move: Advance) -> Advanced:
        advanced = await self.scene.turns.advance(claim, move, self.world.now())
        if advanced.parent is not None:
            self.take([advanced.parent])
        return advanced

    async def _speak(self, claim: Claim) -> bool:
        """A step of the agent: calls, or the turn's end; whether there is nothing more to do."""
        if claim.step > STEPS or claim.cancel_requested:
            await self._end(claim, "cancelled" if claim.cancel_requested else "completed")
            return True
        calls = self.world.calls(below=claim.depth > 0)
        known = claim.news
        # What could go on at once keeps the turn from waiting, but for calls of clients: tools are offered right away.
        park = not any(call.executor == "agent" for call in calls)
        advanced = await self._advance(claim, asking(claim, *calls, park=park))
        assert advanced.parked == (park and advanced.news == known)
        claim.state = "tools"
        return advanced.parked and await self._offer(claim)

    async def _offer(self, claim: Claim) -> bool:
        """A client comes that can run all of them: whoever waits for it is claimed."""
        claims = await self.scene.calls.claim_for_tools(self.scene.worker, claim.session_id, ["look"])
        self.take(claims)
        return True

    async def _settle(self, claim: Claim) -> bool:
        """Do what can be done about the calls; whether there is nothing more to do here."""
        if self.world.dice.random() < 0.1:
            # The process loses the turn: whoever sweeps finds it.
            raise LostClaimError
        step = await self.scene.turns.calls(claim)
        move = self._plan(claim, step.calls, cancelling=step.cancel_requested)
        over = not any(call.open for call in step.calls if call.call_id not in _ended(move))
        move = msgspec.structs.replace(move, expected_news=step.news, park=not over)
        try:
            if over and step.cancel_requested:
                await self._end(claim, "cancelled", move)
                return True
            if over:
                answer = new_id()
                await self._advance(claim, msgspec.structs.replace(move, step_state="done", next_message_id=answer))
                claim.begin_next(answer)
                return False
            await self._advance(claim, move)
        except NewsError:
            return False
        for child in move.children:
            self.begin(child_claim(claim, child))
        return True

    def _plan(self, claim: Claim, calls: list[Call], *, cancelling: bool) -> Advance:
        now = self.world.now()
        thread = claim.turn_id if claim.depth else None
        events, messages, ended, dispatches, children = [], [], [], [], []
        expired: list[UUID] = []
        withdrawn: list[UUID] = []
        for call in calls:
            late = (
                call.approval is not None and call.approval.expires_at is not None and call.approval.expires_at <= now
            )
            late = late or (call.deadline is not None and call.deadline <= now)
            begun = call.executor == "agent" and call.state == "running"
            if call.open and ((cancelling and not begun) or (late and not begun)):
                if call.approval is not None:
                    (withdrawn if cancelling else expired).append(call.approval.approval_id)
                events.append(event("tool_result"))
                messages.append(result_of(call, "over", ordinal=len(events), thread=thread))
                state = "cancelled" if cancelling else "rejected" if call.approval is not None else "failed"
                ended.append(EndedCall(call_id=call.call_id, state=state))  # type: ignore[arg-type]
            elif call.executor == "agent" and call.state == "ready":
                events += [event("message_created"), event("task_started")]
                children.append(child_of(call, len(events) - 1))
            elif call.executor == "client" and call.state == "ready" and call.client_id is None:
                deadline = now + timedelta(milliseconds=self.world.dice.randint(20, 300))
                dispatches.append(Dispatch(call_id=call.call_id, client_id="c1", deadline=deadline))
        return Advance(
            step_state="tools",
            events=events,
            messages=messages,
            ended_calls=ended,
            expired=expired,
            withdrawn=withdrawn,
            dispatches=dispatches,
            children=children,
        )

    async def _end(self, claim: Claim, state: Any, move: Advance | None = None) -> None:
        move = move or Advance(step_state="done")
        events, messages, parent = [*move.events], [*move.messages], None
        if claim.parent_call is not None:
            asked = await self.scene.calls.find(claim.session_id, claim.parent_call)
            assert asked is not None
            call = client_call(call_id=asked.call_id)
            events.append(event("tool_result"))
            messages.append(result_of(call, "answer", ordinal=len(events), turn_id=asked.turn_id, thread=asked.thread))
            parent = ParentResult(call_id=asked.call_id, state="cancelled" if state == "cancelled" else "completed")
        last = msgspec.structs.replace(
            move,
            step_state="done",
            turn_state=state,
            events=[*events, event("task_completed")],
            messages=messages,
            parent_result=parent,
            park=False,
        )
        await self._advance(claim, last)

    async def sweep(self) -> None:
        """What a process does from time to time: what is due, and what others or itself have lost."""
        self.take(await self.scene.turns.claim_due(self.scene.worker, self.world.now(), 5))
        self.take(await self.scene.turns.claim(self.scene.worker, list(self.running), 5))


class Visitor:
    """Somebody outside, on any process: does one thing until it is done, or too late."""

    def __init__(self, world: World, processes: list[Process]) -> None:
        self.world = world
        self.processes = processes

    async def visit(self, call_id: UUID, session: Any, done: asyncio.Event) -> None:
        """Everything that may happen to a call, all at once, some of it twice."""
        kind, dice = self.world.kinds[call_id], self.world.dice
        works: list[Coroutine[Any, Any, None]] = [
            self._until_settled("result", call_id, session, f"{call_id}-{n}", done) for n in (1, 2, 2)
        ]
        if kind == "asked":
            works += [
                self._until_settled(decision, call_id, session, f"{call_id}-{decision}", done)
                for decision in dice.sample(["approve", "reject", "edit", "respond"], 2)
            ]
        if kind == "agent":
            for work in works:
                work.close()
            return
        await asyncio.gather(*works)

    async def _until_settled(
        self, what: str, call_id: UUID, session: Any, command_id: str, done: asyncio.Event
    ) -> None:
        process = self.world.dice.choice(self.processes)
        acting = Calling(process.scene, session, None)  # type: ignore[arg-type]
        call = client_call(call_id=call_id)
        while not done.is_set():
            try:
                work = acting.result(call, command_id) if what == "result" else acting.decide(call, what, command_id)
                reply: Reply = await work
            except ParleyError as error:
                if error.code in _LATE:
                    return
                assert error.code is ErrorCode.FORBIDDEN  # noqa: PT017 - nobody has it yet
                if self.world.dice.random() < 0.7:
                    return
                await asyncio.sleep(0)
                continue
            if reply.commit is not None:
                self.world.won[call_id, what] += 1
                process.take(reply.claims)
            return


def _ended(move: Advance) -> set[UUID]:
    return {ended.call_id for ended in move.ended_calls}


@pytest.mark.feature("S13", "S14", "S25", "S27", "A03")
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_everybody_at_once(any_opener: Open, seed: int) -> None:
    world = World(seed)
    processes = [Process(world, await any_opener(max_size=6)) for _ in range(PROCESSES)]
    for process in processes:
        process.scene.now = world.now  # type: ignore[method-assign]
        await process.scene.alive(process.scene.worker)
    scene = processes[0].scene
    sessions = [await scene.session() for _ in range(SESSIONS)]
    done = asyncio.Event()
    visits: list[asyncio.Task[None]] = []

    async def watch(session: Any) -> None:
        """Visit every call as soon as it is there, and now and then press stop."""
        visitor, seen = Visitor(world, processes), set[UUID]()
        looks, stop_at = 0, world.dice.choice([0, 0, 5, 20])
        while not done.is_set():
            for row in await scene.calls.of_session(session.session_id):
                if row.call_id not in seen:
                    seen.add(row.call_id)
                    visits.append(asyncio.create_task(visitor.visit(row.call_id, session, done)))
            found = await scene.sessions.resolve("ada", str(session.session_id))
            if found.active_turn is None:
                return
            looks += 1
            if looks == stop_at:
                process = world.dice.choice(processes)
                try:
                    reply = await process.scene.cancel(session, f"stop-{new_id()}", found.active_turn)
                except ParleyError as error:
                    assert error.code is ErrorCode.NO_ACTIVE_TURN  # noqa: PT017
                else:
                    process.take(reply.claims)

    async def sweeps(process: Process) -> None:
        while not done.is_set():
            await process.sweep()

    async with asyncio.timeout(PATIENCE):
        for session in sessions:
            process = world.dice.choice(processes)
            claim = await process.scene.begun(session)
            process.begin(msgspec.structs.replace(claim, worker_id=process.scene.worker))
        sweepers = [asyncio.create_task(sweeps(process)) for process in processes]
        await asyncio.gather(*(watch(session) for session in sessions))
        done.set()
        await asyncio.gather(*sweepers, *visits)
        for process in processes:
            await asyncio.gather(*process.running.values())

    # Each claim was given to one, once.
    assert [claim for claim, count in Counter(world.claims).items() if count > 1] == []
    # No turn is left, each call has one result, and one decision, if any, was taken.
    assert await scene.rows("SELECT turn_id FROM turns WHERE finished_at IS NULL") == []
    assert await scene.rows("SELECT call_id FROM tool_calls WHERE finished_at IS NULL") == []
    await scene.audit()
    states = {row["call_id"]: row["state"] for row in await scene.rows("SELECT call_id, state FROM tool_calls")}
    approvals = {row["call_id"]: row["state"] for row in await scene.rows("SELECT call_id, state FROM approvals")}
    for (call_id, what), count in world.won.items():
        assert count <= 1
        if count and what == "result":
            assert states[call_id] == "completed"
        elif count and what in ("approve", "edit", "reject", "respond"):
            words = {"approve": "approved", "edit": "edited", "reject": "rejected", "respond": "responded"}
            assert approvals[call_id] == words[what]
            decisions = [w for (other, w), n in world.won.items() if other == call_id and n and w != "result"]
            assert decisions == [what]
    # The control: all of it happened.
    assert {"completed", "rejected"} <= set(states.values())
    assert {"approved", "rejected"} & set(approvals.values())
    assert await scene.value("SELECT count(*) FROM turns WHERE depth = 1") > 0
