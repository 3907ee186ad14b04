"""Turns that wait for people, for clients and for other agents: rows, until somebody brings news."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from protocol.commands import Remember
from protocol.errors import ErrorCode, ParleyError
from server.agents.interface import AgentContext, AgentYield, FunctionAgent, Text, ToolCallDelta, agent
from server.agents.tools import tool
from server.turns.policy import Policy
from server.turns.settings import PolicySettings
from storage.sessions import Session
from tests.turns.conftest import Make
from tests.turns.support import Workshop

ASKING = Policy()
WRITE = {"path": "a.md", "content": "one"}


def calls(*wanted: tuple[str, dict[str, Any]], tools: tuple[Any, ...] = ("*",), **more: Any) -> FunctionAgent:
    """An agent that makes these calls in one step, then says what came of them."""

    async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        results = [message.content for message in context.history if message.role == "tool"]
        if results:
            yield Text(" | ".join(results))
            return
        for index, (name, arguments) in enumerate(wanted):
            yield ToolCallDelta(index, name=name, arguments=json.dumps(arguments))

    return agent("scripted", name="Scripted", description="Does what a test says", tools=tools, **more)(script)


async def asked(make: Make, *agents: FunctionAgent, policy: Policy = ASKING, **more: Any) -> tuple[Workshop, Session]:
    """A workshop and a session whose turn waits."""
    shop = await make(*(agents or (calls(("write_file", WRITE)),)), policy=policy, **more)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.parked()
    return shop, session


def call_ids(shop: Workshop) -> list[str]:
    return [payload["call_id"] for payload in shop.outlet.payloads("tool_call")]


def answer(shop: Workshop) -> str:
    return str(shop.outlet.payloads("message_created")[-1]["content"])


# --- approvals


@pytest.mark.feature("A03", "S30", "S27")
async def test_nothing_runs_before_a_person_has_approved_it(make: Make) -> None:
    shop, session = await asked(make)
    (required,) = shop.outlet.payloads("approval_required")
    assert required["arguments"] == WRITE
    assert required["allowed_decisions"] == ["approve", "edit", "reject", "respond"]
    assert required["expires_at"] is None
    assert required["parameters"]["properties"]["path"]["type"] == "string"
    assert "tool_dispatched" not in shop.outlet.types
    await shop.offer(session, "ide", "write_file")
    assert "tool_dispatched" not in shop.outlet.types
    (call_id,) = call_ids(shop)
    await shop.decide(session, call_id, "approve")
    await shop.parked()
    (dispatched,) = shop.outlet.payloads("tool_dispatched")
    assert (dispatched["client_id"], dispatched["arguments"]) == ("ide", WRITE)
    await shop.result(session, call_id, {"written": 3}, client="ide")
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == '{"written":3}'
    assert await shop.rows("SELECT state, executors FROM tool_calls") == [("completed", ["ide"])]


@pytest.mark.feature("A03")
async def test_regression_13_approving_writes_no_result(make: Make) -> None:
    shop, session = await asked(make)
    (call_id,) = call_ids(shop)
    tool_messages = "SELECT content FROM messages WHERE role = 'tool'"
    await shop.decide(session, call_id, "approve")
    await shop.parked()
    # Nobody has come to run it yet.
    assert "tool_result" not in shop.outlet.types
    assert await shop.rows(tool_messages) == []
    await shop.offer(session, "ide", "write_file")
    await shop.parked()
    # Somebody runs it.
    assert "tool_result" not in shop.outlet.types
    assert await shop.rows(tool_messages) == []
    await shop.result(session, call_id, "done", client="ide")
    await shop.outlet.until_type("task_completed")
    assert [payload["result"] for payload in shop.outlet.payloads("tool_result")] == ["done"]
    assert await shop.rows(tool_messages) == [("done",)]


@pytest.mark.feature("A03", "R02")
async def test_an_edited_call_runs_with_the_reviewed_arguments_and_the_model_is_told(make: Make) -> None:
    shop, session = await asked(make)
    await shop.offer(session, "ide", "write_file")
    (call_id,) = call_ids(shop)
    edited = {"path": "b.md", "content": "two"}
    await shop.decide(session, call_id, "edit", modified_arguments=edited)
    await shop.parked()
    assert shop.outlet.payloads("tool_dispatched")[0]["arguments"] == edited
    await shop.result(session, call_id, "ok", client="ide")
    await shop.outlet.until_type("task_completed")
    assert "The user changed the arguments" in answer(shop)
    assert "b.md" in answer(shop)
    ((user, client, before, after, decision),) = await shop.rows(
        "SELECT user_id, client_id, arguments, executed, decision FROM audit"
    )
    assert (user, client, decision) == ("me", "client-2", "edit")
    assert (json.loads(before), json.loads(after)) == (WRITE, edited)


@pytest.mark.feature("A03")
async def test_an_edit_that_does_not_fit_changes_nothing(make: Make) -> None:
    shop, session = await asked(make)
    (call_id,) = call_ids(shop)
    with pytest.raises(ParleyError) as refused:
        await shop.decide(session, call_id, "edit", modified_arguments={"path": 7, "content": "x"})
    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID, "$.modified_arguments")
    await shop.parked()
    assert await shop.rows("SELECT state FROM approvals") == [("pending",)]


@pytest.mark.feature("A03")
@pytest.mark.parametrize(
    ("decision", "feedback", "said", "state"),
    [
        ("reject", None, "rejected", "rejected"),
        ("reject", "not this file", "not this file", "rejected"),
        ("respond", "it is there already", "it is there already", "completed"),
    ],
)
async def test_a_person_may_answer_in_the_tools_place(
    make: Make, decision: str, feedback: str | None, said: str, state: str
) -> None:
    shop, session = await asked(make)
    await shop.decide(session, call_ids(shop)[0], decision, feedback=feedback)
    await shop.outlet.until_type("task_completed")
    assert said in answer(shop)
    assert "tool_dispatched" not in shop.outlet.types
    assert len(shop.outlet.payloads("tool_result")) == 1
    assert await shop.rows("SELECT state FROM tool_calls") == [(state,)]


@pytest.mark.feature("A03")
async def test_the_first_decision_wins_and_a_repeat_gets_its_reply_again(make: Make) -> None:
    shop, session = await asked(make)
    (call_id,) = call_ids(shop)
    first = await shop.decide(session, call_id, "reject")
    assert await shop.decide(session, call_id, "reject") == first
    with pytest.raises(ParleyError) as refused:
        await shop.decide(session, call_id, "approve")
    assert refused.value.code is ErrorCode.ALREADY_RESOLVED
    await shop.outlet.until_type("task_completed")
    assert len(shop.outlet.payloads("approval_resolved")) == 1


@pytest.mark.feature("A03")
async def test_expiry_is_a_rejection_and_nothing_runs(make: Make) -> None:
    policy = Policy([PolicySettings(tool="write_file", effect="ask", timeout=100)])
    shop, session = await asked(make, policy=policy)
    await shop.offer(session, "ide", "write_file")
    await shop.pass_time(50)
    await shop.parked()
    assert [name for name, _ in shop.outlet.transients].count("approval_timeout_warning") == 1
    await shop.pass_time(49)
    await shop.parked()
    await shop.pass_time(2)
    await shop.outlet.until_type("task_completed")
    (resolved,) = shop.outlet.payloads("approval_resolved")
    assert (resolved["decision"], resolved["cause"]) == ("reject", "expiry")
    assert "tool_dispatched" not in shop.outlet.types
    with pytest.raises(ParleyError) as refused:
        await shop.decide(session, call_ids(shop)[0], "approve")
    assert refused.value.code is ErrorCode.ALREADY_RESOLVED


@pytest.mark.feature("A03")
async def test_remembered_decisions_spare_the_next_question(make: Make) -> None:
    shop, session = await asked(make, calls(("delete_file", {"path": "x"})))
    await shop.decide(session, call_ids(shop)[0], "reject", remember=Remember(scope="user"))
    await shop.outlet.until_type("task_completed")
    other = await shop.session()
    await shop.say(other, "again")
    await shop.outlet.until_type("task_completed", 2)
    assert len(shop.outlet.payloads("approval_required")) == 1
    assert "refused" in shop.outlet.payloads("tool_result")[-1]["error"]


@pytest.mark.feature("A03")
async def test_a_guest_makes_no_rules_for_the_owner(make: Make) -> None:
    shop, session = await asked(make)
    (call_id,) = call_ids(shop)
    with pytest.raises(ParleyError) as refused:
        await shop.decide(session, call_id, "approve", remember=Remember(scope="user"), role="controller")
    assert (refused.value.code, refused.value.path) == (ErrorCode.FORBIDDEN, "$.remember.scope")
    await shop.decide(session, call_id, "reject", remember=Remember(scope="session"), role="controller")
    await shop.outlet.until_type("task_completed")


@pytest.mark.feature("A03")
async def test_regression_30_parallel_approvals_are_decided_one_by_one(make: Make) -> None:
    two = calls(("write_file", WRITE), ("write_file", {"path": "b.md", "content": "two"}))
    shop, session = await asked(make, two)
    assert len(shop.outlet.payloads("approval_required")) == 2
    first, second = call_ids(shop)
    await shop.decide(session, second, "respond", feedback="second")
    await shop.parked()
    await shop.decide(session, first, "respond", feedback="first")
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "first | second"


@pytest.mark.feature("A03")
async def test_regression_16_a_forbidden_call_is_refused_before_anybody_is_asked(make: Make) -> None:
    architect = calls(("write_file", {"path": "a.py", "content": ""}), file_patterns=("*.md",))
    shop = await make(architect, policy=ASKING)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed")
    assert "approval_required" not in shop.outlet.types
    assert "*.md" in answer(shop)
    assert await shop.rows("SELECT count(*) FROM approvals") == [(0,)]


async def test_regression_33_a_message_that_comes_meanwhile_is_no_decision(make: Make) -> None:
    shop, session = await asked(make)
    ack = await shop.say(session, "yes, do it")
    assert ack.status == "queued"
    await shop.parked()
    await shop.decide(session, call_ids(shop)[0], "reject")
    await shop.outlet.until_type("task_completed", 2)
    assert [payload["content"] for payload in shop.outlet.payloads("message_created") if payload["role"] == "user"] == [
        "go",
        "yes, do it",
    ]


# --- restarts


@pytest.mark.feature("A03", "S16")
async def test_a_waiting_turn_needs_no_process(make: Make) -> None:
    shop, session = await asked(make)
    await shop.service.stop()
    other = await make(calls(("write_file", WRITE)), policy=ASKING)
    await other.parked()
    await other.offer(session, "ide", "write_file")
    (call_id,) = call_ids(shop)
    await other.decide(session, call_id, "approve")
    await other.parked()
    await other.result(session, call_id, "ok", client="ide")
    await other.outlet.until_type("task_completed")
    assert answer(other) == "ok"


async def test_whoever_decides_goes_on_with_the_turn_and_nobody_else_does(make: Make) -> None:
    shop, session = await asked(make)
    others = [await make(calls(("write_file", WRITE)), policy=ASKING) for _ in range(2)]
    decided = await asyncio.gather(
        *(other.decide(session, call_ids(shop)[0], "reject", command_id=f"d{n}") for n, other in enumerate(others)),
        return_exceptions=True,
    )
    assert sorted(isinstance(outcome, ParleyError) for outcome in decided) == [False, True]
    for each in (shop, *others):
        await each.engine.idle()
    assert await shop.rows("SELECT state FROM turns") == [("completed",)]
    assert await shop.rows("SELECT count(*) FROM messages WHERE role = 'tool'") == [(1,)]


# --- clients' tools


@pytest.mark.feature("A02", "S25")
async def test_a_call_goes_to_the_client_that_registered_last(make: Make) -> None:
    shop = await make(calls(("read_file", {"path": "x"})))
    session = await shop.session()
    await shop.offer(session, "one", "read_file")
    await shop.offer(session, "two", "read_file")
    await shop.say(session, "go")
    await shop.parked()
    (dispatched,) = shop.outlet.payloads("tool_dispatched")
    assert (dispatched["client_id"], dispatched["name"]) == ("two", "read_file")
    (call_id,) = call_ids(shop)
    with pytest.raises(ParleyError) as refused:
        await shop.result(session, call_id, "mine", client="one")
    assert refused.value.code is ErrorCode.FORBIDDEN
    await shop.result(session, call_id, error="no such file", client="two")
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "no such file"


@pytest.mark.feature("A02")
async def test_a_call_waits_for_a_client_and_goes_to_the_first_that_comes(make: Make) -> None:
    shop, session = await asked(make, calls(("read_file", {"path": "x"})))
    assert "tool_dispatched" not in shop.outlet.types
    await shop.offer(session, "ide", "read_file")
    await shop.parked()
    assert shop.outlet.payloads("tool_dispatched")[0]["client_id"] == "ide"


@pytest.mark.feature("A02")
async def test_a_call_for_which_nobody_comes_fails_as_a_result(make: Make) -> None:
    shop, session = await asked(make, calls(("read_file", {"path": "x"})))
    await shop.pass_time(61)
    await shop.outlet.until_type("task_completed")
    assert "No client of this session offers" in answer(shop)
    with pytest.raises(ParleyError) as refused:
        await shop.result(session, call_ids(shop)[0], "late")
    assert refused.value.code is ErrorCode.ALREADY_RESOLVED


@pytest.mark.feature("A02", "S25")
async def test_without_clients_whoever_controls_the_session_may_answer(make: Make) -> None:
    shop, session = await asked(make, calls(("read_file", {"path": "x"})))
    await shop.result(session, call_ids(shop)[0], "from a script", client=None)
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "from a script"


@pytest.mark.feature("A02")
async def test_regression_32_a_call_leaves_a_client_that_stays_away(make: Make) -> None:
    shop = await make(calls(("read_file", {"path": "x"})))
    session = await shop.session()
    await shop.offer(session, "one", "read_file")
    await shop.say(session, "go")
    await shop.parked()
    await shop.leave(session, "one")
    await shop.pass_time(29)
    await shop.parked()
    await shop.offer(session, "two", "read_file")
    await shop.parked()
    assert [payload["client_id"] for payload in shop.outlet.payloads("tool_dispatched")] == ["one"]
    await shop.pass_time(2)
    await shop.outlet.until_type("tool_dispatched", 2)
    await shop.parked()
    assert shop.outlet.payloads("tool_dispatched")[1]["client_id"] == "two"
    # The first one had done it after all, and is faster.
    (call_id,) = call_ids(shop)
    await shop.result(session, call_id, "first", client="one")
    with pytest.raises(ParleyError) as refused:
        await shop.result(session, call_id, "second", client="two")
    assert refused.value.code is ErrorCode.ALREADY_RESOLVED
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "first"


@pytest.mark.feature("A02")
async def test_a_client_that_comes_back_in_time_keeps_its_call(make: Make) -> None:
    shop = await make(calls(("read_file", {"path": "x"})))
    session = await shop.session()
    await shop.offer(session, "one", "read_file")
    await shop.say(session, "go")
    await shop.parked()
    await shop.leave(session, "one")
    await shop.pass_time(20)
    await shop.offer(session, "one", "read_file")
    await shop.pass_time(20)
    await shop.parked()
    assert len(shop.outlet.payloads("tool_dispatched")) == 1
    await shop.result(session, call_ids(shop)[0], "ok", client="one")
    await shop.outlet.until_type("task_completed")


@pytest.mark.feature("A02")
async def test_a_client_that_does_not_answer_has_failed_at_its_deadline(make: Make) -> None:
    shop = await make(calls(("read_file", {"path": "x"})))
    session = await shop.session()
    await shop.offer(session, "one", "read_file")
    await shop.say(session, "go")
    await shop.parked()
    await shop.pass_time(301)
    await shop.outlet.until_type("task_completed")
    assert "did not answer in time" in answer(shop)


@pytest.mark.feature("A02")
async def test_calls_of_a_step_run_in_order_unless_they_change_nothing(make: Make) -> None:
    wanted = [("write_file", WRITE), ("read_file", {"path": "a.md"}), ("list_files", {})]
    shop = await make(calls(*wanted))
    session = await shop.session()
    await shop.offer(session, "ide", "write_file")
    await shop.offer(session, "reader", "read_file", "list_files", read_only=True)
    await shop.say(session, "go")
    await shop.parked()
    assert [payload["name"] for payload in shop.outlet.payloads("tool_dispatched")] == ["write_file"]
    write, read, listed = call_ids(shop)
    await shop.result(session, write, "w", client="ide")
    await shop.outlet.until_type("tool_dispatched", 3)
    await shop.parked()
    await shop.result(session, listed, "l", client="reader")
    await shop.parked()
    await shop.result(session, read, "r", client="reader")
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "w | r | l"


# --- cancelling


@pytest.mark.feature("A04")
@pytest.mark.parametrize("client", [False, True])
async def test_regression_31_a_turn_that_waits_can_be_cancelled(make: Make, client: bool) -> None:
    shop, session = await asked(make)
    if client:
        await shop.offer(session, "ide", "write_file")
        await shop.decide(session, call_ids(shop)[0], "approve")
        await shop.parked()
    await shop.stop(session)
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.payloads("task_completed")[0]["status"] == "cancelled"
    assert "Cancelled" in shop.outlet.payloads("tool_result")[0]["error"]
    assert await shop.rows("SELECT state FROM tool_calls") == [("cancelled",)]
    if not client:
        assert shop.outlet.payloads("approval_resolved")[0]["cause"] == "cancel"
        assert await shop.rows("SELECT state FROM approvals") == [("withdrawn",)]
    await shop.engine.idle()
    assert (await shop.say(session, "next")).status == "accepted"


@pytest.mark.feature("A04")
async def test_an_interrupting_message_ends_the_turn_and_is_next(make: Make) -> None:
    shop, session = await asked(make)
    await shop.say(session, "later")
    await shop.say(session, "now", on_busy="interrupt")
    await shop.outlet.until_type("task_started", 2)
    assert shop.outlet.payloads("task_completed")[0]["status"] == "cancelled"
    users = [payload["content"] for payload in shop.outlet.payloads("message_created") if payload["role"] == "user"]
    assert users == ["go", "now"]


@pytest.mark.feature("A04")
async def test_a_steering_message_joins_the_turn_at_its_next_step(make: Make) -> None:
    shop, session = await asked(make)
    await shop.say(session, "in French", on_busy="steer")
    await shop.parked()
    await shop.decide(session, call_ids(shop)[0], "respond", feedback="done")
    await shop.outlet.until_type("task_completed")
    created = shop.outlet.payloads("message_created")
    assert [(payload["role"], payload["content"]) for payload in created[2:]] == [
        ("user", "in French"),
        ("assistant", "done"),
    ]
    assert len({payload["turn_id"] for payload in created}) == 1
    await shop.engine.idle()
    assert shop.outlet.types.count("task_started") == 1
    assert await shop.rows("SELECT count(*) FROM queue") == [(0,)]


# --- agents among themselves


def handing(**more: Any) -> FunctionAgent:
    return calls(("handoff", {"agent_type": "expert", "reason": "knows better"}), handoffs=("expert",), **more)


@agent("expert", name="Expert", description="Knows.", tools=["write_file"])
async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    if context.history[-1].content == "write":
        yield ToolCallDelta(0, name="write_file", arguments=json.dumps(WRITE))
    else:
        yield f"expert: {context.history[-1].content}"


@pytest.mark.feature("A05", "S04")
async def test_regression_12_a_handoff_gets_its_result_and_the_other_agent_goes_on(make: Make) -> None:
    shop = await make(handing(), expert)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("task_completed")
    (switched,) = shop.outlet.payloads("agent_switched")
    assert (switched["from_agent"], switched["to_agent"], switched["cause"]) == ("scripted", "expert", "agent")
    assert len(shop.outlet.payloads("tool_result")) == 1
    assert shop.outlet.payloads("message_created")[-1]["agent_type"] == "expert"
    assert await shop.rows("SELECT current_agent FROM sessions") == [("expert",)]
    assert await shop.rows("SELECT from_agent, to_agent, reason FROM agent_switches") == [
        ("scripted", "expert", "knows better")
    ]


@pytest.mark.feature("A05")
async def test_a_handoff_to_nobody_is_a_result_as_well(make: Make) -> None:
    shop = await make(calls(("handoff", {"agent_type": "nobody"}), handoffs=("expert",)), expert)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed")
    assert "agent_switched" not in shop.outlet.types
    assert shop.outlet.payloads("tool_result")[0]["error"]


@pytest.mark.feature("A05")
async def test_agents_cannot_hand_over_for_ever(make: Make) -> None:
    def ping(name: str, other: str) -> FunctionAgent:
        async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
            if context.history[-1].role == "tool" and "as often" in context.history[-1].content:
                yield "enough"
            else:
                yield ToolCallDelta(0, name="handoff", arguments=json.dumps({"agent_type": other}))

        return agent(name, name=name, description=name, handoffs=(other,))(script)

    shop = await make(ping("scripted", "pong"), ping("pong", "scripted"), max_switches=3)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed")
    assert len(shop.outlet.payloads("agent_switched")) == 3
    assert answer(shop) == "enough"


@pytest.mark.feature("A05")
async def test_an_agent_asks_another_and_goes_on_with_its_answer(make: Make) -> None:
    shop = await make(calls(("ask_agent", {"agent_type": "expert", "task": "why"}), delegates=("expert",)), expert)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("task_completed", 2)
    (call_id,) = call_ids(shop)
    created = shop.outlet.payloads("message_created")
    assert [(payload["content"], payload.get("parent_call_id")) for payload in created[2:]] == [
        ("why", call_id),
        ("expert: why", call_id),
        ("expert: why", None),
    ]
    assert [payload.get("parent_call_id") for payload in shop.outlet.payloads("task_completed")] == [call_id, None]
    # The conversation holds nothing of what was said below the call.
    history = await shop.engine.messages.tail(session.session_id, 100)
    assert [message.role for message in history] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.feature("A03", "A05")
async def test_regression_31_a_sub_agents_approval_reaches_the_session(make: Make) -> None:
    asking = calls(("ask_agent", {"agent_type": "expert", "task": "write"}), delegates=("expert",))
    shop = await make(asking, expert, policy=ASKING)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("approval_required")
    await shop.parked(2)
    (required,) = shop.outlet.payloads("approval_required")
    assert required["agent_type"] == "expert"
    await shop.decide(session, required["call_id"], "respond", feedback="written")
    await shop.outlet.until_type("task_completed", 2)
    assert answer(shop) == "expert: written"


@pytest.mark.feature("A04", "A05")
async def test_cancelling_ends_sub_agents_too(make: Make) -> None:
    asking = calls(("ask_agent", {"agent_type": "expert", "task": "write"}), delegates=("expert",))
    shop = await make(asking, expert, policy=ASKING)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("approval_required")
    await shop.parked(2)
    await shop.stop(session)
    await shop.outlet.until_type("task_completed", 2)
    assert {payload["status"] for payload in shop.outlet.payloads("task_completed")} == {"cancelled"}
    await shop.engine.idle()
    assert await shop.rows("SELECT DISTINCT state FROM tool_calls") == [("cancelled",)]
    assert await shop.rows("SELECT active_turn FROM sessions") == [(None,)]


@pytest.mark.feature("A05")
async def test_agents_cannot_ask_each_other_without_end(make: Make) -> None:
    def deeper(name: str, other: str) -> FunctionAgent:
        async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
            if context.history[-1].role == "tool":
                yield context.history[-1].content
            else:
                asking = json.dumps({"agent_type": other, "task": "deeper"})
                yield ToolCallDelta(0, name="ask_agent", arguments=asking)

        return agent(name, name=name, description=name, delegates=(other,))(script)

    shop = await make(deeper("scripted", "other"), deeper("other", "scripted"), max_depth=2)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed", 3)
    assert "no deeper than 2" in answer(shop)


# --- a server's tool beside a waiting call


@tool(independent=True)
async def quick() -> str:
    """Answer at once."""
    return "quick"


async def test_a_servers_tool_runs_while_a_client_is_waited_for(make: Make) -> None:
    both = calls(("read_file", {"path": "x"}), ("quick", {}), tools=("read_file", quick))
    shop = await make(both)
    session = await shop.session()
    await shop.offer(session, "ide", "read_file")
    await shop.say(session, "go")
    await shop.outlet.until_type("tool_result")
    await shop.parked()
    assert shop.outlet.payloads("tool_result")[0]["result"] == "quick"
    await shop.result(session, call_ids(shop)[0], "read", client="ide")
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "read | quick"


async def test_a_result_that_comes_while_a_tool_runs_is_taken(make: Make) -> None:
    gate = asyncio.Event()

    @tool(independent=True)
    async def slow() -> str:
        """Wait."""
        await gate.wait()
        return "slow"

    both = calls(("read_file", {"path": "x"}), ("slow", {}), tools=("read_file", slow))
    shop = await make(both)
    session = await shop.session()
    await shop.offer(session, "ide", "read_file")
    await shop.say(session, "go")
    await shop.outlet.until_type("tool_dispatched")
    await shop.result(session, call_ids(shop)[0], "read", client="ide")
    gate.set()
    await shop.outlet.until_type("task_completed")
    assert answer(shop) == "read | slow"
