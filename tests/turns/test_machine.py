"""The service against a model of it: whatever people, clients, time and crashes do, in whatever order.

The machine drives real workers on a real database: commands and repeats of them, clients that come and go, time that
passes, workers that die and others that take over. After each step everything has come to rest, and the database and
the log must say what the simple model says.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from protocol.commands import Cancel, HitlDecision, ToolResult, UserMessage
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack
from server.agents.interface import AgentContext, AgentYield, ToolCallDelta
from server.agents.tools import tool
from server.turns.policy import Policy
from server.turns.service import Origin
from server.turns.settings import PolicySettings, TurnSettings
from storage.pool import Database
from storage.sessions import Session
from tests.support.database import Cluster
from tests.turns.support import Desk, Recorder, ShiftedClock, Workshop, registry_of, scripted

_T = TypeVar("_T")

DEADLINE, WAIT, GRACE, EXPIRY = 300.0, 60.0, 30.0, 200.0
CLIENTS: Final = ("ann", "bob")
#: By the letters of a message: what the agent calls. `w` must be approved, `r` changes nothing, `s` is ours.
TOOLS: Final = {"w": "write_file", "r": "read_file", "s": "own"}
ARGUMENTS: Final = {"w": {"path": "x", "content": "y"}, "r": {"path": "x"}, "s": {}}


@tool
async def own() -> str:
    """The server's own."""
    return "own"


async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    if context.step > 1:
        yield "done"
        return
    asked = next(message.content for message in reversed(context.history) if message.role == "user")
    for index, letter in enumerate(asked.partition("#")[0]):
        yield ToolCallDelta(index, name=TOOLS[letter], arguments=json.dumps(ARGUMENTS[letter]))
    yield "said"


@dataclass
class Call:
    kind: str
    state: str
    client: str | None = None
    had: list[str] = field(default_factory=list)
    deadline: float | None = None
    release: float | None = None
    expires: float | None = None

    @property
    def open(self) -> bool:
        return self.state in {"awaiting_approval", "ready", "running"}


@dataclass
class Model:
    """A session as the product promises it."""

    now: float = 0.0
    calls: list[Call] = field(default_factory=list)
    active: int | None = None
    queue: list[tuple[str, bool]] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    steered: int = 0
    here: list[str] = field(default_factory=list)

    def say(self, letters: str, *, front: bool = False, steers: bool = False) -> None:
        if self.active is None:
            self._begin(letters)
        elif front:
            self.queue.insert(0, (letters, False))
        else:
            self.queue.append((letters, steers))

    def _begin(self, letters: str) -> None:
        self.active = len(self.calls)
        for kind in letters:
            call = Call(kind, "awaiting_approval" if kind == "w" else "ready")
            call.expires = self.now + EXPIRY if kind == "w" else None
            self.calls.append(call)
        self.settle()

    def settle(self) -> None:
        """Everything that follows by itself."""
        while self.active is not None:
            mine = self.calls[self.active :]
            for place, call in enumerate(mine):
                earlier = [other for other in mine[:place] if other.open]
                if call.state == "ready" and all(call.kind == other.kind == "r" for other in earlier):
                    self._go_on(call)
            if any(call.open for call in mine):
                return
            self._end("completed", stepped=bool(mine))

    def _go_on(self, call: Call) -> None:
        if call.kind == "s":
            call.state = "completed"
        elif self.here:
            self._dispatch(call, self.here[0])
        elif call.deadline is None:
            call.deadline = self.now + WAIT

    def _dispatch(self, call: Call, client: str) -> None:
        call.state, call.client, call.release = "running", client, None
        call.deadline = self.now + DEADLINE
        call.had.append(client)

    def _end(self, outcome: str, *, stepped: bool) -> None:
        self.active = None
        self.outcomes.append(outcome)
        if stepped and outcome == "completed":
            # They joined at the step's end.
            self.steered += sum(steers for _, steers in self.queue)
            self.queue = [entry for entry in self.queue if not entry[1]]
        if self.queue:
            self._begin(self.queue.pop(0)[0])

    def cancel(self) -> None:
        assert self.active is not None
        for call in self.calls[self.active :]:
            if call.open:
                call.state = "cancelled"
        self._end("cancelled", stepped=True)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        if self.active is None:
            return
        for call in self.calls[self.active :]:
            if call.state == "awaiting_approval" and call.expires is not None and call.expires <= self.now:
                call.state = "rejected"
            elif call.state in {"ready", "running"} and call.deadline is not None and call.deadline <= self.now:
                call.state = "failed"
            elif call.state == "running" and call.release is not None and call.release <= self.now:
                if self.here:
                    self._dispatch(call, self.here[0])
                else:
                    call.state, call.client, call.release = "ready", None, None
        self.settle()

    def join(self, client: str) -> None:
        self.here.insert(0, client)
        for call in self.calls:
            if call.state == "running" and call.client == client:
                call.release = None
        self.settle()

    def leave(self, client: str) -> None:
        self.here.remove(client)
        for call in self.calls:
            if call.state == "running" and call.client == client and call.release is None:
                call.release = self.now + GRACE


class Turns(RuleBasedStateMachine):
    """Does each step to the service and to the model."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.runner = asyncio.Runner()
        self.model = Model()
        self.desk, self.clock, self.outlet = Desk(), ShiftedClock(), Recorder()
        self.workers: list[Workshop] = []
        self.count = 0
        self.sent: list[tuple[Any, Ack]] = []

    def do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.name = self.do(self.cluster.create())
        self.database = Database(max_size=4)
        self.do(self.database.open(self.cluster.connect_args(self.name)))
        self.do(self._work())
        self.session: Session = self.do(self.workers[0].session())

    async def _work(self) -> None:
        """Another process begins to work."""
        policy = Policy(
            [
                PolicySettings(tool="write_file", effect="ask", timeout=EXPIRY),
                PolicySettings(tool="own", effect="allow"),
            ]
        )
        agent = scripted(script, tools=["write_file", "read_file", own])
        worker = Workshop(self.database, registry_of(agent), TurnSettings(lease_seconds=86_400), policy)
        worker.desk = worker.engine.terms.executors = self.desk
        worker.clock = worker.engine.clock = self.clock
        worker.outlet = worker.engine.outlet = self.outlet
        await worker.service.start()
        self.workers.append(worker)

    async def _rest(self) -> None:
        for worker in self.workers:
            await worker.engine.idle()
        await self._check()

    # --- what happens

    async def _send(self, worker: int, command: Any) -> Ack:
        service = self.workers[worker % len(self.workers)].service
        body, origin = command
        session = await self.workers[0].sessions.resolve("me", str(self.session.session_id))
        match body:
            case UserMessage():
                return await service.user_message(session, body, origin)
            case Cancel():
                return await service.cancel(session, body, origin)
            case HitlDecision():
                return await service.hitl_decision(session, body, origin)
            case _:
                return await service.tool_result(session, body, origin)

    def command(self, worker: int, body: Any, client: str | None = None, refusal: ErrorCode | None = None) -> bool:
        """Send a command; whether it was accepted, as it must be if no refusal is expected."""
        command = (body, Origin("me", client, "test"))
        try:
            ack = self.do(self._send(worker, command))
        except ParleyError as error:
            assert error.code is refusal  # noqa: PT017 - which it is to be was decided before
            return False
        assert refusal is None
        self.sent.append((command, ack))
        return True

    def next_id(self) -> str:
        self.count += 1
        return f"c{self.count}"

    @rule(
        letters=st.text(alphabet="wrs", max_size=3),
        how=st.sampled_from(["enqueue", "reject", "interrupt", "steer"]),
        worker=st.integers(0, 3),
    )
    def say(self, letters: str, how: Any, worker: int) -> None:
        model, busy = self.model, self.model.active is not None
        # The number keeps empty messages apart; an agent that calls nothing just ends.
        body = UserMessage(id=self.next_id(), content=f"{letters}#{self.count}", on_busy=how)
        if self.command(worker, body, refusal=ErrorCode.BUSY if busy and how == "reject" else None):
            model.say(letters, front=how == "interrupt", steers=how == "steer")
            if busy and how == "interrupt":
                model.cancel()
        self.do(self._rest())

    @precondition(lambda self: self.model.calls)
    @rule(
        pick=st.integers(0, 50),
        decision=st.sampled_from(["approve", "reject", "respond", "edit"]),
        worker=st.integers(0, 3),
    )
    def decide(self, pick: int, decision: Any, worker: int) -> None:
        place = pick % len(self.model.calls)
        call = self.model.calls[place]
        body = HitlDecision(
            id=self.next_id(),
            call_id=self.do(self._call_id(place)),
            decision=decision,
            modified_arguments={"path": "z", "content": ""} if decision == "edit" else None,
            feedback="because" if decision == "respond" else None,
        )
        refusal = None
        if call.kind != "w":
            refusal = ErrorCode.NOT_FOUND
        elif call.state != "awaiting_approval":
            refusal = ErrorCode.ALREADY_RESOLVED
        if self.command(worker, body, refusal=refusal):
            call.state = {"reject": "rejected", "respond": "completed"}.get(decision, "ready")
            self.model.settle()
        self.do(self._rest())

    @precondition(lambda self: self.model.calls)
    @rule(
        pick=st.integers(0, 50), client=st.sampled_from([*CLIENTS, None]), fails=st.booleans(), worker=st.integers(0, 3)
    )
    def answer(self, pick: int, client: str | None, fails: bool, worker: int) -> None:
        place = pick % len(self.model.calls)
        call = self.model.calls[place]
        body = ToolResult(
            id=self.next_id(), call_id=self.do(self._call_id(place)), **({"error": "no"} if fails else {"result": 1})
        )
        refusal = None
        if call.kind == "s":
            refusal = ErrorCode.FORBIDDEN if call.open else ErrorCode.ALREADY_RESOLVED
        elif not call.open:
            refusal = ErrorCode.ALREADY_RESOLVED
        elif call.state == "awaiting_approval" or (call.client is not None and client not in call.had):
            refusal = ErrorCode.FORBIDDEN
        if self.command(worker, body, client, refusal=refusal):
            call.state = "failed" if fails else "completed"
            self.model.settle()
        self.do(self._rest())

    @rule(worker=st.integers(0, 3))
    def cancel(self, worker: int) -> None:
        refusal = ErrorCode.NO_ACTIVE_TURN if self.model.active is None else None
        if self.command(worker, Cancel(id=self.next_id()), refusal=refusal):
            self.model.cancel()
        self.do(self._rest())

    @precondition(lambda self: self.sent)
    @rule(pick=st.integers(0, 100), worker=st.integers(0, 3))
    def repeat(self, pick: int, worker: int) -> None:
        """A client that heard no answer sends its command again: the answer is the same, and nothing happens."""
        command, ack = self.sent[pick % len(self.sent)]
        assert self.do(self._send(worker, command)) == ack
        self.do(self._rest())

    @rule(client=st.sampled_from(CLIENTS), worker=st.integers(0, 3))
    def come_or_go(self, client: str, worker: int) -> None:
        shop = self.workers[worker % len(self.workers)]
        if client in self.model.here:
            self.do(shop.leave(self.session, client))
            self.model.leave(client)
        else:
            self.do(shop.offer(self.session, client, "write_file", "read_file", read_only=False))
            self.model.join(client)
        self.do(self._rest())

    @rule(seconds=st.sampled_from([10.0, 31.0, 61.0, 201.0, 301.0]))
    def pass_time(self, seconds: float) -> None:
        self.model.pass_time(seconds)
        self.do(self.workers[0].pass_time(seconds))
        self.do(self._rest())

    @rule()
    def crash(self) -> None:
        """All processes die, without a word; another one starts."""

        async def crash() -> None:
            for worker in self.workers:
                await worker.engine.stop()
            await self.workers[0].rows("UPDATE workers SET lease_until = '-infinity'")
            self.workers.clear()
            await self._work()

        self.do(crash())
        self.do(self._rest())

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def scale(self) -> None:
        """Another process joins."""
        self.do(self._work())

    # --- what must be true then

    async def _call_id(self, place: int) -> str:
        rows = await self.workers[0].rows("SELECT call_id FROM tool_calls ORDER BY created_at, ordinal")
        return str(rows[place][0])

    async def _check(self) -> None:
        shop, model = self.workers[0], self.model
        states = await shop.rows("SELECT state FROM tool_calls ORDER BY created_at, ordinal")
        assert [state for (state,) in states] == [call.state for call in model.calls]
        finished = sum(not call.open for call in model.calls)
        assert await shop.rows("SELECT count(*) FROM messages WHERE role = 'tool'") == [(finished,)]
        ((active, queued, seq),) = await shop.rows("SELECT active_turn, queued, seq FROM sessions")
        assert ((active is not None), queued) == ((model.active is not None), len(model.queue))
        turns = Counter(state for (state,) in await shop.rows("SELECT state FROM turns"))
        assert turns == Counter(model.outcomes) + Counter({"waiting": int(model.active is not None)})
        await self._check_log(shop, seq, finished)

    async def _check_log(self, shop: Workshop, seq: int, finished: int) -> None:
        rows = await shop.rows("SELECT seq, event_type, body FROM events ORDER BY seq")
        assert [number for number, _, _ in rows] == list(range(1, seq + 1))
        types = Counter(name for _, name, _ in rows)
        assert types["tool_result"] == finished
        assert types["task_completed"] == len(self.model.outcomes)
        assert types["approval_required"] == sum(call.kind == "w" for call in self.model.calls)
        assert types["tool_dispatched"] == sum(len(call.had) for call in self.model.calls)
        ids = Counter(json.loads(body)["call_id"] for _, name, body in rows if name == "tool_result")
        assert not ids or max(ids.values()) == 1

    def teardown(self) -> None:
        async def close() -> None:
            for worker in self.workers:
                await worker.service.stop()
            await self.database.close()
            await self.cluster.drop(self.name)

        if self.workers:
            self.do(close())
        self.runner.close()


def play(cluster: Cluster, examples: int, *, same: bool) -> None:
    """Let the machine run so many times; always the same way, or each time another."""
    run_state_machine_as_test(
        partial(Turns, cluster),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=same,
            print_blob=True,
        ),
    )


def test_whatever_happens_the_service_is_as_its_model(cluster: Cluster) -> None:
    play(cluster, 15, same=True)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_whatever_happens_for_a_long_time(cluster: Cluster) -> None:
    """`make chaos`; PARLEY_MACHINE_EXAMPLES says how long."""
    faulthandler.cancel_dump_traceback_later()
    play(cluster, int(os.environ.get("PARLEY_MACHINE_EXAMPLES", "300")), same=False)
