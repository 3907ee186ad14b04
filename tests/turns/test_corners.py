"""Turns at the moments in which two things happen at once, or the database does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import pytest

from protocol.commands import Remember
from protocol.errors import ErrorCode, ParleyError
from server.agents.interface import AgentContext, AgentYield, ToolCallDelta, agent
from server.agents.tools import tool
from server.turns import settling
from server.turns.limits import LimitSettings
from server.turns.matching import MAX_PATTERN
from server.turns.policy import Policy
from server.turns.settings import PolicySettings
from server.turns.spaces import Spaces
from storage.ids import new_id
from storage.moves import Advance
from storage.sessions import Session
from storage.turns import Advanced, Claim
from tests.turns.conftest import Make
from tests.turns.support import ALLOWED, PATIENCE, Offered, Workshop, forever, scripted
from tests.turns.test_waiting import ASKING, answer, asked, call_ids, calls

#: Nothing is found out by the pulse while such a lease lasts. Seconds.
NO_PULSE: Final = 3600.0

ASKS_EXPERT: Final = ("ask_agent", {"agent_type": "expert", "task": "think"})


@agent("expert", name="Expert", description="Thinks for ever.")
async def thinking(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    yield "hm"
    await forever()


async def silent(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    await forever()
    yield "never"


def away() -> ParleyError:
    return ParleyError(ErrorCode.UNAVAILABLE, "the database is away")


# --- cancelling


@pytest.mark.feature("A04", "A05")
async def test_cancelling_reaches_an_agent_that_speaks_for_one_that_waits(make: Make) -> None:
    shop = await make(calls(ASKS_EXPERT, delegates=("expert",)), thinking, lease_seconds=NO_PULSE)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until(lambda: any(delta.text == "hm" for delta in shop.outlet.deltas))
    assert await shop.rows("SELECT state, depth FROM turns ORDER BY depth") == [("waiting", 0), ("running", 1)]
    await shop.stop(session)
    await shop.outlet.until_type("task_completed", 2)
    assert {payload["status"] for payload in shop.outlet.payloads("task_completed")} == {"cancelled"}


@pytest.mark.feature("A04", "A05")
async def test_a_cancel_that_comes_while_an_agent_is_asked_reaches_that_one(make: Make) -> None:
    other = await make(scripted(silent), thinking, begin=False)
    sessions: list[Session] = []

    async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        name, arguments = ASKS_EXPERT
        yield ToolCallDelta(0, name=name, arguments=json.dumps(arguments))
        # Another process stores it; this one has not heard of it when it stores what the agent has said.
        await other.stop(sessions[0])

    asking = agent("scripted", name="S", description="S", delegates=("expert",))(script)
    shop = await make(asking, thinking, lease_seconds=NO_PULSE)
    sessions.append(await shop.session())
    await shop.say(sessions[0], "go")
    await shop.outlet.until_type("task_completed", 2)
    assert {payload["status"] for payload in shop.outlet.payloads("task_completed")} == {"cancelled"}


# --- messages that come meanwhile


@pytest.mark.feature("A04", "A05")
async def test_a_steering_message_is_for_the_turn_and_not_for_who_is_asked_in_it(make: Make) -> None:
    @agent("expert", name="Expert", description="Writes.", tools=["write_file"])
    async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        if context.step == 1:
            yield ToolCallDelta(0, name="write_file", arguments='{"path": "a", "content": "b"}')
        else:
            yield "written"

    shop = await make(calls(ASKS_EXPERT, delegates=("expert",)), expert, policy=ASKING)
    session = await shop.session()
    ack = await shop.say(session, "go")
    await shop.outlet.until_type("approval_required")
    await shop.parked(2)
    await shop.say(session, "in French", on_busy="steer")
    await shop.decide(session, shop.outlet.payloads("approval_required")[0]["call_id"], "respond", feedback="ok")
    await shop.outlet.until_type("task_completed", 2)
    (steered,) = [payload for payload in shop.outlet.payloads("message_created") if payload["content"] == "in French"]
    assert UUID(steered["turn_id"]) == ack.turn_id
    history = await shop.engine.messages.tail(session.session_id, 100)
    assert [message.role for message in history] == ["user", "assistant", "tool", "user", "assistant"]


async def test_an_interrupting_message_that_comes_between_two_turns_is_next(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, session = await asked(make)
    await shop.say(session, "later")

    async def not_yet(session_id: UUID) -> None:
        """The turn is over, and the next one has not begun."""

    with monkeypatch.context() as patched:
        patched.setattr(shop.engine, "start_waiting", not_yet)
        await shop.decide(session, call_ids(shop)[0], "reject")
        await shop.outlet.until_type("task_completed")
        await shop.engine.idle()
        assert (await shop.say(session, "now", on_busy="interrupt")).status == "queued"
    await shop.engine.sweep()
    await shop.outlet.until_type("task_started", 3)
    users = [payload["content"] for payload in shop.outlet.payloads("message_created") if payload["role"] == "user"]
    assert users == ["go", "now", "later"]


# --- a database that does not answer


async def test_who_offers_tools_is_asked_until_the_database_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await make(calls(("read_file", {"path": "x"}), rerun=False))
    session = await shop.session()
    await shop.offer(session, "ide", "read_file")
    real, times = shop.desk.offers, 0

    async def offers(session_id: UUID) -> Sequence[Offered]:
        nonlocal times
        times += 1
        if times % 2:
            raise away()
        return await real(session_id)

    monkeypatch.setattr(shop.desk, "offers", offers)
    await shop.say(session, "go")
    await shop.parked()
    await shop.result(session, call_ids(shop)[0], "read", client="ide")
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "read"
    assert "turn_error" not in shop.outlet.types


async def test_agents_of_projects_are_looked_for_until_the_database_answers(make: Make) -> None:
    shop = await make(calls(("read_file", {"path": "x"})))
    times = 0

    async def agents(session_id: UUID, reference: str) -> Any:
        nonlocal times
        times += 1
        if times % 2 == 0:
            raise away()
        return shop.engine.registry.get(reference)

    shop.engine.terms.agents = agents
    session = await shop.session()
    await shop.say(session, "go")
    await shop.parked()
    await shop.result(session, call_ids(shop)[0], "read", client=None)
    await shop.outlet.until_type("task_completed")
    assert times > 2
    assert shop.outlet.payloads("task_completed")[0]["status"] == "completed"


@pytest.mark.feature("S16")
async def test_a_turn_goes_on_although_it_was_roused_before_it_knew_that_it_waited(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await make(calls(("write_file", {"path": "a", "content": "b"})), policy=ASKING, lease_seconds=NO_PULSE)
    real, sleep = shop.engine.turns.advance, shop.clock.sleep
    cut, decided = asyncio.Event(), asyncio.Event()

    async def advance(claim: Claim, move: Advance, now: datetime) -> Advanced:
        advanced = await real(claim, move, now)
        if move.park and not cut.is_set():
            # It is written, and the answer lost.
            claim.revision -= 1
            cut.set()
            raise away()
        return advanced

    async def until_decided(seconds: float) -> None:
        await (decided.wait() if cut.is_set() else sleep(seconds))

    monkeypatch.setattr(shop.engine.turns, "advance", advance)
    monkeypatch.setattr(shop.clock, "sleep", until_decided)
    session = await shop.session()
    await shop.say(session, "go")
    await cut.wait()
    ((call_id,),) = await shop.rows("SELECT call_id FROM tool_calls")
    await shop.decide(session, str(call_id), "respond", feedback="yes")
    monkeypatch.setattr(shop.clock, "sleep", sleep)
    decided.set()
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "yes"


async def test_a_sweep_does_not_take_an_agent_that_is_about_to_be_asked_for_a_lost_one(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    @agent("expert", name="Expert", description="Knows.", rerun=False)
    async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield f"attempt {context.attempt}"

    shop = await make(calls(ASKS_EXPERT, delegates=("expert",)), expert, lease_seconds=NO_PULSE)
    real = shop.engine.turns.advance

    async def advance(claim: Claim, move: Advance, now: datetime) -> Advanced:
        advanced = await real(claim, move, now)
        if move.children:
            await shop.engine.sweep()
        return advanced

    monkeypatch.setattr(shop.engine.turns, "advance", advance)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed", 2)
    assert answer(shop) == "attempt 1"


@pytest.mark.parametrize("rouses", ["decision", "answer"])
async def test_a_sweep_does_not_take_a_turn_that_is_being_roused_for_a_lost_one(
    make: Make, monkeypatch: pytest.MonkeyPatch, rouses: str
) -> None:
    @agent("expert", name="Expert", description="Knows.")
    async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield "knows"

    attempts: list[tuple[Any, ...]] = []

    @tool
    async def own() -> str:
        """Ours: not to be run twice."""
        attempts.extend(await shop.rows("SELECT attempt FROM turns WHERE depth = 0"))
        return "ran"

    asking = calls(ASKS_EXPERT, ("own", {}), delegates=("expert",), tools=(own,))
    policy = ALLOWED if rouses == "answer" else Policy([PolicySettings(tool="ask_agent", effect="ask")])
    shop = await make(asking, expert, policy=policy, lease_seconds=NO_PULSE)
    decide, advance = shop.service._commands.decide, shop.engine.turns.advance

    async def decided(*arguments: Any) -> Any:
        reply = await decide(*arguments)
        await shop.engine.sweep()
        return reply

    async def answered(claim: Claim, move: Advance, now: datetime) -> Advanced:
        advanced = await advance(claim, move, now)
        if move.parent_result is not None:
            await shop.engine.sweep()
        return advanced

    monkeypatch.setattr(shop.service._commands, "decide", decided)
    monkeypatch.setattr(shop.engine.turns, "advance", answered)
    session = await shop.session()
    await shop.say(session, "go")
    if rouses == "decision":
        await shop.outlet.until_type("approval_required", 2)
        await shop.parked()
        first, second = call_ids(shop)
        await shop.decide(session, first, "respond", feedback="ok")
        await shop.parked()
        await shop.decide(session, second, "approve")
    await shop.outlet.until_type("task_completed", 2 if rouses == "answer" else 1)
    assert answer(shop).endswith("| ran")
    # The first one, and one for each time that somebody roused it.
    assert attempts == [(3 if rouses == "decision" else 2,)]


async def test_calls_that_cannot_be_settled_end_their_turn_after_so_many_attempts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours that every attempt repeats goes on for so long only, and leaves no call without result."""
    shop, session = await asked(make, max_attempts=3, lease_seconds=NO_PULSE)
    times = 0

    def fails(*_: object) -> None:
        nonlocal times
        times += 1
        raise RuntimeError("a mistake")

    monkeypatch.setattr(settling, "plan", fails)
    await shop.decide(session, call_ids(shop)[0], "approve")
    await shop.engine.idle()
    for _ in range(5):
        await shop.engine.sweep()
        await shop.engine.idle()
    assert times == 3
    assert shop.outlet.payloads("task_completed")[0]["status"] == "interrupted"
    assert len(shop.outlet.payloads("tool_result")) == 1
    assert await shop.rows("SELECT state FROM tool_calls") == [("failed",)]
    assert shop.engine.running == 0


# --- time


@pytest.mark.feature("A03")
async def test_an_approval_expires_also_while_a_tool_of_its_step_runs(make: Make) -> None:
    gate = asyncio.Event()

    @tool(independent=True)
    async def slow() -> str:
        """Wait."""
        await gate.wait()
        return "slow"

    policy = Policy(
        [
            PolicySettings(tool="write_file", effect="ask", timeout=100),
            PolicySettings(tool="slow", effect="allow"),
        ]
    )
    both = calls(("write_file", {"path": "a", "content": "b"}), ("slow", {}), tools=("write_file", slow))
    shop = await make(both, policy=policy)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("approval_required")
    await shop.outlet.until(lambda: shop.outlet.statuses.count("tools") == 1)
    await shop.pass_time(101)
    await shop.outlet.until_type("approval_resolved")
    gate.set()
    await shop.outlet.until_type("task_completed")
    assert answer(shop).endswith("| slow")


# --- what agents and clients write


@pytest.mark.feature("A05")
async def test_what_agents_tell_each_other_is_kept_whatever_they_write(make: Make) -> None:
    @agent("expert", name="Expert", description="Repeats.", delegates=("scripted",))
    async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield f"expert: {context.history[0].content}"

    async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        if context.step == 1:
            yield ToolCallDelta(0, name="ask_agent", arguments=r'{"agent_type": "expert", "task": "a\u0000b"}')
            yield ToolCallDelta(1, name="handoff", arguments=r'{"agent_type": "expert", "reason": "c\u0000d"}')

    both = agent("scripted", name="S", description="S", delegates=("expert",), handoffs=("expert",))(script)
    shop = await make(both, expert, policy=ALLOWED)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed", 2)
    assert shop.outlet.payloads("agent_switched")[0]["reason"] == "c\ufffdd"
    assert shop.outlet.payloads("tool_result")[0]["result"] == "expert: a\ufffdb"


@pytest.mark.feature("A05")
async def test_an_agent_may_hand_over_and_ask_in_one_step(make: Make) -> None:
    @agent("expert", name="Expert", description="May ask nobody.")
    async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield f"expert: {context.history[-1].content}"

    asking = calls(("handoff", {"agent_type": "expert"}), ASKS_EXPERT, delegates=("expert",), handoffs=("expert",))
    shop = await make(asking, expert)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed", 2)
    assert [payload.get("error") for payload in shop.outlet.payloads("tool_result")] == [None, None]
    assert answer(shop) == "expert: expert: think"


async def test_a_call_begins_although_the_one_before_it_was_refused_at_the_last_moment(make: Make) -> None:
    @tool
    async def own() -> str:
        """Ours."""
        return "ran"

    asking = calls(ASKS_EXPERT, ("own", {}), delegates=("expert",), tools=(own,))
    shop = await make(asking, thinking, max_depth=0)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed")
    assert answer(shop).endswith("do it yourself. | ran")


@pytest.mark.feature("A03")
async def test_a_pattern_that_nobody_would_look_at_is_refused_when_it_is_to_be_remembered(make: Make) -> None:
    shop, session = await asked(make)
    remember = Remember(scope="session", arguments={"path": "x" * (MAX_PATTERN + 1)})
    with pytest.raises(ParleyError) as refused:
        await shop.decide(session, call_ids(shop)[0], "approve", remember=remember)
    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, "$.remember.arguments")
    assert await shop.rows("SELECT state FROM approvals") == [("pending",)]
    assert await shop.rows("SELECT count(*) FROM approval_rules") == [(0,)]


@pytest.mark.feature("S16")
async def test_a_turn_whose_agent_was_taken_out_meanwhile_fails_and_the_queue_goes_on(make: Make) -> None:
    shop, session = await asked(make)
    await shop.say(session, "later")
    await shop.service.stop()

    @agent("other", name="Other", description="Is left.")
    async def other(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield "here"

    without = await make(other, policy=ASKING)
    (call_id,) = call_ids(shop)
    await without.decide(session, call_id, "respond", feedback="yes")
    await without.outlet.until_type("task_completed", 2)
    assert [payload["code"] for payload in without.outlet.payloads("turn_error")] == ["unknown_agent"] * 2
    assert [payload["status"] for payload in without.outlet.payloads("task_completed")] == ["failed"] * 2
    assert await without.rows("SELECT active_turn, queued FROM sessions") == [(None, 0)]


async def test_a_tool_that_was_taken_out_meanwhile_is_a_result_too(make: Make) -> None:
    ran = 0

    @tool
    async def own() -> str:
        """Ours."""
        nonlocal ran
        ran += 1
        return "ran"

    shop, session = await asked(make, calls(("own", {}), tools=(own,)))
    await shop.service.stop()
    without = await make(calls(("own", {})), policy=ASKING)
    await without.decide(session, call_ids(shop)[0], "approve")
    await without.outlet.until_type("task_completed")
    assert "own" in without.outlet.payloads("tool_result")[0]["error"]
    assert ran == 0


@pytest.mark.feature("A02")
async def test_a_result_as_large_as_a_command_may_be_is_kept_whole(make: Make) -> None:
    shop = await make(calls(("read_file", {"path": "x"})))
    session = await shop.session()
    await shop.offer(session, "ide", "read_file")
    await shop.say(session, "go")
    await shop.parked()
    large = "ä\u2028\x01" * (1 << 18)
    await shop.result(session, call_ids(shop)[0], large, client="ide")
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.payloads("tool_result")[0]["result"] == large
    assert await shop.rows("SELECT content FROM messages WHERE role = 'tool'") == [(large,)]


async def test_a_session_that_is_deleted_takes_all_its_turns_along(make: Make) -> None:
    shop = await make(calls(ASKS_EXPERT, delegates=("expert",)), thinking, lease_seconds=0.3)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until(lambda: any(delta.text == "hm" for delta in shop.outlet.deltas))
    await shop.sessions.delete(session, shop.engine.now())
    async with asyncio.timeout(PATIENCE):
        await shop.engine.idle()
    assert shop.engine.running == 0
    assert await shop.rows("SELECT count(*) FROM turns") == [(0,)]


@pytest.mark.feature("A03")
async def test_an_agent_that_is_being_asked_goes_on_at_another_process(make: Make) -> None:
    @agent("expert", name="Expert", description="Writes.", tools=["write_file"])
    async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        if context.step == 1:
            yield ToolCallDelta(0, name="write_file", arguments='{"path": "a", "content": "b"}')
        else:
            yield f"expert: {context.history[-1].content}"

    asking = calls(ASKS_EXPERT, ("handoff", {"agent_type": "expert"}), delegates=("expert",), handoffs=("expert",))
    shop = await make(asking, expert, policy=ASKING)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("approval_required")
    await shop.parked(2)
    await shop.service.stop()
    other = await make(asking, expert, policy=ASKING)
    await other.decide(session, shop.outlet.payloads("approval_required")[0]["call_id"], "respond", feedback="ok")
    await other.outlet.until_type("agent_switched")
    await other.outlet.until_type("task_completed", 2)
    assert [payload["status"] for payload in other.outlet.payloads("task_completed")] == ["completed"] * 2
    results = await other.rows("SELECT call_id, count(*) FROM messages WHERE role = 'tool' GROUP BY call_id")
    assert {count for _, count in results} == {1}
    assert len(results) == 3


# --- the end of the server


async def test_turns_that_wait_for_their_users_others_are_forgotten_at_the_end(make: Make) -> None:
    shop: Workshop = await make(scripted(silent))
    engine = shop.engine
    engine.terms.spaces = Spaces(LimitSettings(turns=1), shop.clock)

    def claim() -> Claim:
        return Claim(
            session_id=new_id(),
            turn_id=new_id(),
            step=1,
            message_id=new_id(),
            state="running",
            worker_id=engine.worker_id,
            attempt=1,
            agent_type="scripted",
            user_message_id=new_id(),
            turn_created_at=engine.now(),
            owner="me",
        )

    first = claim()
    engine.terms.spaces.admit(first, lambda: None)
    for _ in range(2000):
        engine.begin(claim())
    assert engine.terms.spaces.stats("me").waiting == 2000
    await engine.stop()
    engine.terms.spaces.done(first)
    stats = engine.terms.spaces.stats("me")
    assert (stats.waiting, stats.running) == (0, 0)
