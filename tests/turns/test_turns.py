"""Turns on a real database: what is stored, what is shown, in which order, and what survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

import msgspec
import pytest

from protocol.commands import QueueUpdate, SwitchAgent
from protocol.errors import ErrorCode, ParleyError
from server.agents.interface import (
    AgentContext,
    AgentError,
    AgentYield,
    Finish,
    FunctionAgent,
    Reasoning,
    Text,
    ToolCallDelta,
    UsageReport,
    agent,
)
from server.agents.tools import ToolError, tool
from server.turns.service import Origin
from storage.commits import Committed
from storage.pool import Database
from tests.turns.conftest import Make
from tests.turns.support import ORIGIN, forever, scripted

#: A lease that its worker does not come to renew, so that the test alone says when it ends. Seconds.
NO_RENEWAL = 86_400


async def hello(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Greets in three pieces."""
    for piece in ("Hel", "lo ", "😀!"):
        yield piece
    yield UsageReport(3, 4)


class Gate:
    """An agent that speaks, then waits until the test opens the gate, then ends."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.contexts: list[AgentContext] = []

    async def __call__(self, context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        self.contexts.append(context)
        yield "waiting"
        await self.open.wait()
        yield " done"

    @property
    def agent(self) -> FunctionAgent:
        async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
            async for item in self(context):
                yield item

        return scripted(script)


@pytest.mark.feature("S01", "S02", "S03", "S06", "S13", "A01")
async def test_regression_01_the_answer_is_streamed_stored_and_delivered(make: Make) -> None:
    shop = await make(scripted(hello))
    session = await shop.session()
    ack = await shop.say(session, "hi")
    await shop.outlet.until_type("task_completed")
    assert (ack.status, ack.seq) == ("accepted", 1)
    assert shop.outlet.types == ["message_created", "task_started", "message_created", "task_completed"]
    user, answer = shop.outlet.payloads("message_created")
    assert (user["role"], user["content"], user["command_id"], user["client_id"]) == (
        "user",
        "hi",
        "say-hi",
        "client-1",
    )
    assert (answer["role"], answer["content"], answer["finish_reason"]) == ("assistant", "Hello 😀!", "stop")
    assert (answer["agent_type"], answer["agent_name"], answer["attempt"]) == ("scripted", "Scripted", 1)
    assert answer["agent_id"] == str(shop.engine.registry.default.agent_id)
    done = shop.outlet.payloads("task_completed")[0]
    assert (done["status"], done["steps"]) == ("completed", 1)
    assert done["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "cost": None}
    assert [(delta.offset, delta.text) for delta in shop.outlet.deltas] == [(0, "Hel"), (3, "lo "), (6, "😀!")]
    assert str(shop.outlet.deltas[0].message_id) == answer["message_id"]
    await shop.engine.idle()
    assert shop.outlet.statuses == ["thinking", "streaming", "idle"]


@pytest.mark.feature("S17", "S16")
async def test_the_database_agrees_with_what_was_shown(make: Make) -> None:
    shop = await make(scripted(hello))
    session = await shop.session()
    for number in range(3):
        await shop.say(session, f"message {number}")
        await shop.outlet.until_type("task_completed", number + 1)
    assert await shop.rows("SELECT count(*) FROM messages") == [(6,)]
    stored = await shop.rows("SELECT seq, event_type, body FROM events ORDER BY seq")
    assert [(row[0], row[1]) for row in stored] == list(enumerate(shop.outlet.types, start=1))
    assert [msgspec.json.decode(row[2]) for row in stored] == [payload for _, payload in shop.outlet.events]
    assert await shop.rows("SELECT seq, message_count, active_turn, title FROM sessions") == [
        (12, 6, None, "message 0")
    ]
    assert await shop.rows(
        "SELECT DISTINCT state FROM turns UNION SELECT DISTINCT step_state FROM turns ORDER BY 1"
    ) == [
        ("completed",),
        ("done",),
    ]


async def test_regression_11_the_current_message_is_in_the_history_once(make: Make) -> None:
    gate = Gate()
    gate.open.set()
    shop = await make(gate.agent)
    session = await shop.session()
    await shop.say(session, "first")
    await shop.outlet.until_type("task_completed")
    await shop.say(session, "second")
    await shop.outlet.until_type("task_completed", 2)
    said = [(message.role, message.content) for message in gate.contexts[1].history]
    assert said == [("user", "first"), ("assistant", "waiting done"), ("user", "second")]


async def test_regression_14_a_providers_error_is_never_a_message(make: Make) -> None:
    histories = []

    async def failing(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        histories.append([(message.role, message.content) for message in context.history])
        if len(histories) == 1:
            raise AgentError("rate_limited", "the provider said 429", retryable=True)
        if len(histories) == 2:
            yield "half an ans"
            raise RuntimeError("secret path /etc")
        yield "fine"

    shop = await make(scripted(failing))
    session = await shop.session()
    for number in range(3):
        await shop.say(session, f"try {number}")
        await shop.outlet.until_type("task_completed", number + 1)
    first, second = shop.outlet.payloads("turn_error")
    assert (first["code"], first["message"], first["retryable"]) == ("rate_limited", "the provider said 429", True)
    assert second["code"] == "agent_failed"
    assert "/etc" not in second["message"]
    assert [done["status"] for done in shop.outlet.payloads("task_completed")] == ["failed", "failed", "completed"]
    texts = await shop.rows("SELECT content, finish_reason FROM messages WHERE role = 'assistant' ORDER BY seq")
    assert texts == [("half an ans", "error"), ("fine", "stop")]
    assert "429" not in str(histories)


@pytest.mark.feature("A04")
async def test_cancel_ends_the_turn_with_what_was_written(make: Make) -> None:
    gate = Gate()
    shop = await make(gate.agent)
    session = await shop.session()
    started = await shop.say(session, "go")
    await shop.outlet.until(lambda: bool(shop.outlet.deltas))
    ack = await shop.stop(session)
    await shop.outlet.until_type("task_completed")
    assert ack.turn_id == started.turn_id
    assert shop.outlet.types[2:] == ["task_cancelling", "message_created", "task_completed"]
    answer = shop.outlet.payloads("message_created")[1]
    assert (answer["content"], answer["finish_reason"]) == ("waiting", "cancelled")
    assert shop.outlet.payloads("task_completed")[0]["status"] == "cancelled"
    again = await shop.stop(session)
    assert again == ack
    with pytest.raises(ParleyError) as refused:
        await shop.stop(session, "stop-2")
    assert refused.value.code is ErrorCode.NO_ACTIVE_TURN


async def test_cancel_before_the_first_word_opens_no_message(make: Make) -> None:
    entered = asyncio.Event()

    async def silent(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        entered.set()
        await forever()
        yield ""

    shop = await make(scripted(silent))
    session = await shop.session()
    await shop.say(session, "go")
    await entered.wait()
    await shop.stop(session)
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.types == ["message_created", "task_started", "task_cancelling", "task_completed"]


async def test_a_named_turn_that_is_over_is_not_cancelled(make: Make) -> None:
    gate = Gate()
    shop = await make(gate.agent)
    session = await shop.session()
    first = await shop.say(session, "one")
    gate.open.set()
    await shop.outlet.until_type("task_completed")
    gate.open.clear()
    await shop.say(session, "two")
    with pytest.raises(ParleyError) as refused:
        await shop.stop(session, turn_id=first.turn_id)
    assert (refused.value.code, refused.value.path) == (ErrorCode.NO_ACTIVE_TURN, "$.turn_id")
    gate.open.set()
    await shop.outlet.until_type("task_completed", 2)


@pytest.mark.feature("A04")
async def test_messages_wait_in_a_queue_and_begin_in_its_order(make: Make) -> None:
    gate = Gate()
    shop = await make(gate.agent, queue_limit=3)
    session = await shop.session()
    await shop.say(session, "one")
    waiting = [await shop.say(session, text) for text in ("two", "three", "four")]
    assert [ack.status for ack in waiting] == ["queued"] * 3
    with pytest.raises(ParleyError) as full:
        await shop.say(session, "five")
    assert (full.value.code, full.value.retry_after) == (ErrorCode.QUEUE_FULL, 1.0)
    with pytest.raises(ParleyError) as busy:
        await shop.say(session, "six", on_busy="reject")
    assert busy.value.code is ErrorCode.BUSY
    ids = [ack.message_id for ack in waiting if ack.message_id is not None]
    await shop.service.queue_update(session, QueueUpdate(id="q1", remove=ids[1]), ORIGIN)
    await shop.service.queue_update(session, QueueUpdate(id="q2", order=[ids[2], ids[0]]), ORIGIN)
    with pytest.raises(ParleyError) as wrong:
        await shop.service.queue_update(session, QueueUpdate(id="q3", order=[ids[1]]), ORIGIN)
    assert wrong.value.code is ErrorCode.CONFLICT
    gate.open.set()
    await shop.outlet.until_type("task_completed", 3)
    said = [message["content"] for message in shop.outlet.payloads("message_created") if message["role"] == "user"]
    assert said == ["one", "four", "two"]
    changes = [payload["change"] for payload in shop.outlet.payloads("queue_changed")]
    assert changes == ["added"] * 3 + ["removed", "reordered", "started", "started"]
    assert await shop.rows("SELECT queued, active_turn FROM sessions") == [(0, None)]
    assert await shop.rows("SELECT count(*) FROM queue") == [(0,)]


async def test_a_switch_of_agents_counts_from_the_next_turn_on(make: Make) -> None:
    gate = Gate()
    gate.open.set()

    @agent("other")
    async def other(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        """Another."""
        yield "other"

    shop = await make(gate.agent, other)
    session = await shop.session()
    switched = await shop.service.switch_agent(session, SwitchAgent(id="s1", agent_type="other"), ORIGIN)
    assert switched.status == "accepted"
    await shop.say(session, "who")
    await shop.outlet.until_type("task_completed")
    await shop.say(session, "you", agent_type="scripted")
    await shop.outlet.until_type("task_completed", 2)
    started = [payload["agent_type"] for payload in shop.outlet.payloads("task_started")]
    assert started == ["other", "scripted"]
    assert [call["agent_type"] for call in shop.outlet.payloads("direct_agent_call")] == ["scripted"]
    with pytest.raises(ParleyError) as unknown:
        await shop.say(session, "hm", agent_type="nobody")
    assert (unknown.value.code, unknown.value.id) == (ErrorCode.UNKNOWN_AGENT, "say-hm")
    # Another process that remembers the session's former agent prepares its command anew.
    elsewhere = await make(gate.agent, other)
    await elsewhere.say(session, "and now")
    await elsewhere.outlet.until_type("task_completed")
    assert elsewhere.outlet.payloads("task_started")[0]["agent_type"] == "other"


# --- tools


@tool(idempotent=True)
async def double(number: int) -> int:
    """Double a number."""
    if number < 0:
        raise ToolError("negative numbers are not doubled here")
    return number * 2


async def calling(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Calls three tools, then says what they answered."""
    results = [message.content for message in context.history if message.role == "tool"]
    if results:
        yield " | ".join(results)
        return
    yield Reasoning("I shall call")
    yield Text("calling")
    yield ToolCallDelta(0, name="double", arguments='{"num')
    yield ToolCallDelta(1, name="double", arguments='{"number": -1}')
    yield ToolCallDelta(0, arguments='ber": 21}')
    yield ToolCallDelta(2, name="read_file", arguments='{"path": "x"}')
    yield Finish("tool_calls")


async def test_every_call_gets_one_result_and_the_turn_goes_on(make: Make) -> None:
    shop = await make(scripted(calling, tools=[double, "read_file"]))
    session = await shop.session()
    await shop.say(session, "go")
    await shop.parked()
    await shop.pass_time(61)
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.types[2:] == [
        "message_created",
        *["tool_call"] * 3,
        *["tool_result"] * 3,
        "message_created",
        "task_completed",
    ]
    calls, results = shop.outlet.payloads("tool_call"), shop.outlet.payloads("tool_result")
    assert [call["arguments"] for call in calls] == [{"number": 21}, {"number": -1}, {"path": "x"}]
    assert [call["executor"] for call in calls] == ["server", "server", "client"]
    assert [call["call_id"] for call in calls] == [result["call_id"] for result in results]
    assert results[0]["result"] == 42
    assert results[1]["error"] == "negative numbers are not doubled here"
    assert "No client of this session offers" in results[2]["error"]
    first, last = shop.outlet.payloads("message_created")[1:]
    assert (first["finish_reason"], first["reasoning"]) == ("tool_calls", "I shall call")
    assert first["tool_calls"][0]["arguments"] == '{"number": 21}'
    assert last["content"].startswith("42 | negative")
    assert shop.outlet.payloads("task_completed")[0]["steps"] == 2
    arguments = [delta for delta in shop.outlet.deltas if delta.part == "arguments"]
    assert [(delta.offset, delta.text) for delta in arguments if delta.call_id == calls[0]["call_id"]] == [
        (0, '{"num'),
        (5, 'ber": 21}'),
    ]
    states = await shop.rows("SELECT state FROM tool_calls ORDER BY ordinal")
    assert states == [("completed",), ("failed",), ("failed",)]


async def test_a_turn_that_never_stops_calling_is_ended(make: Make) -> None:
    async def endless(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield ToolCallDelta(0, name="double", arguments='{"number": 1}')

    shop = await make(scripted(endless, tools=[double]), max_steps=3)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("task_completed")
    done = shop.outlet.payloads("task_completed")[0]
    assert (done["status"], done["steps"], done["error"]["code"]) == ("failed", 3, "step_limit")
    assert shop.outlet.types.count("tool_result") == 3


async def test_cancel_while_a_tool_runs_still_gives_every_call_its_result(make: Make) -> None:
    entered, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def hang() -> str:
        """Never ends by itself."""
        entered.set()
        try:
            await forever()
        finally:
            ended.set()
        return ""

    async def two_calls(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield ToolCallDelta(0, name="hang")
        yield ToolCallDelta(1, name="hang")

    shop = await make(scripted(two_calls, tools=[hang]))
    session = await shop.session()
    await shop.say(session, "go")
    await entered.wait()
    await shop.stop(session)
    await shop.outlet.until_type("task_completed")
    assert ended.is_set()
    assert ["Cancelled" in result["error"] for result in shop.outlet.payloads("tool_result")] == [True, True]
    assert shop.outlet.payloads("task_completed")[0]["status"] == "cancelled"


async def test_a_tool_that_the_agent_may_not_use_does_not_run(make: Make) -> None:
    @agent("keeper", tools=[double])
    async def keeper(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        """Owns the tool."""
        yield ""

    async def stealing(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        if context.step == 1:
            yield ToolCallDelta(0, name="double", arguments='{"number": 1}')

    shop = await make(scripted(stealing), keeper)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("task_completed")
    assert "may not use" in shop.outlet.payloads("tool_result")[0]["error"]


async def test_output_without_bound_is_cut_off(make: Make) -> None:
    async def endless(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        while True:
            yield "0123456789" * 10

    shop = await make(scripted(endless), max_message_chars=1050)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("task_completed")
    answer = shop.outlet.payloads("message_created")[1]
    assert (len(answer["content"]), answer["finish_reason"]) == (1050, "length")


async def test_what_cannot_be_stored_is_replaced(make: Make) -> None:
    async def dirty(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield "a\0b\ud800c"

    shop = await make(scripted(dirty))
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.payloads("message_created")[1]["content"] == "a\ufffdb\ufffdc"


# --- other processes, crashes


@pytest.mark.feature("S16")
async def test_a_dead_process_s_turn_is_run_again_under_the_same_message(make: Make, database: Database) -> None:
    gate = Gate()
    first = await make(gate.agent, checkpoint_interval=0.01, lease_seconds=NO_RENEWAL)
    session = await first.session()
    await first.say(session, "go")
    await first.outlet.until(lambda: bool(first.outlet.deltas))
    # The process dies: its worker's lease ends, nothing else is told to anybody.
    second = await make(gate.agent, begin=False)
    await second.rows("UPDATE workers SET lease_until = now() - interval '1 second'")
    await second.service.start()
    await second.outlet.until(lambda: bool(second.outlet.deltas))
    gate.open.set()
    await second.outlet.until_type("task_completed")
    answer = second.outlet.payloads("message_created")[0]
    assert answer["message_id"] == str(first.outlet.deltas[0].message_id)
    assert (answer["attempt"], answer["content"]) == (2, "waiting done")
    assert {delta.attempt for delta in second.outlet.deltas} == {2}
    # The dead one was only asleep: what it writes now finds no step of its own.
    assert "task_completed" not in first.outlet.types
    assert await first.rows("SELECT count(*) FROM messages") == [(2,)]


async def test_a_step_without_tries_left_is_closed_as_interrupted(make: Make) -> None:
    gate = Gate()
    first = await make(gate.agent, checkpoint_interval=0.01, lease_seconds=NO_RENEWAL)
    session = await first.session()
    await first.say(session, "go")
    await first.outlet.until(lambda: bool(first.outlet.deltas))
    await first.engine.checkpoint()
    second = await make(gate.agent, begin=False, max_attempts=1)
    await second.rows("UPDATE workers SET lease_until = now() - interval '1 second'")
    await second.service.start()
    await second.outlet.until_type("task_completed")
    answer = second.outlet.payloads("message_created")[0]
    assert (answer["content"], answer["finish_reason"]) == ("waiting", "interrupted")
    assert second.outlet.payloads("task_completed")[0]["status"] == "interrupted"


async def test_an_agent_that_must_not_run_twice_is_not(make: Make) -> None:
    runs = []

    async def once(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        runs.append(context.attempt)
        yield "begun"
        await forever()

    first = await make(scripted(once, rerun=False))
    session = await first.session()
    await first.say(session, "go")
    await first.outlet.until(lambda: bool(first.outlet.deltas))
    await first.engine.stop()
    second = await make(scripted(once, rerun=False))
    await second.outlet.until_type("task_completed")
    assert runs == [1]
    answer = second.outlet.payloads("message_created")[0]
    assert (answer["content"], answer["finish_reason"]) == ("begun", "interrupted")


async def test_a_tool_that_was_running_is_not_run_again(make: Make) -> None:
    runs = []
    entered = asyncio.Event()

    @tool
    async def write() -> str:
        """Has an effect."""
        runs.append(1)
        entered.set()
        await forever()
        return ""

    async def one_call(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        if context.step == 1:
            yield ToolCallDelta(0, name="write")
        else:
            yield context.history[-1].content

    first = await make(scripted(one_call, tools=[write]))
    session = await first.session()
    await first.say(session, "go")
    await first.outlet.until_type("tool_call")
    await entered.wait()
    await first.engine.stop()
    second = await make(scripted(one_call, tools=[write]))
    await second.outlet.until_type("task_completed")
    assert runs == [1]
    assert "may or may not have taken effect" in second.outlet.payloads("tool_result")[0]["error"]


async def test_a_cancel_by_another_process_is_seen(make: Make) -> None:
    gate = Gate()
    runner = await make(gate.agent, lease_seconds=0.3)
    session = await runner.session()
    await runner.say(session, "go")
    await runner.outlet.until(lambda: bool(runner.outlet.deltas))
    other = await make(gate.agent, begin=False)
    await other.stop(session)
    await runner.outlet.until_type("task_completed")
    assert runner.outlet.payloads("task_completed")[0]["status"] == "cancelled"


async def test_an_ack_is_told_in_the_turn_of_the_loop_that_shows_its_events(make: Make) -> None:
    shop = await make(scripted(hello))
    session = await shop.session()
    heard: list[object] = []
    commit = shop.outlet.commit

    def note(committed: Committed, closes: UUID | None = None) -> None:
        heard.append("events")
        asyncio.get_running_loop().call_soon(heard.append, "turn over")
        commit(committed, closes)

    shop.outlet.commit = note  # type: ignore[method-assign]
    origin = Origin("me", "client-1", "test", tell=heard.append)
    command = SwitchAgent(id="s", agent_type="scripted")
    ack = await shop.service.switch_agent(session, command, origin)
    assert heard == ["events", ack, "turn over"]
    # A repeat has no events, and is told all the same.
    assert await shop.service.switch_agent(session, command, origin) == heard[-1] == ack


async def test_a_queue_that_nobody_serves_is_found(make: Make) -> None:
    gate = Gate()
    first = await make(gate.agent)
    session = await first.session()
    await first.say(session, "one")
    await first.say(session, "two")
    await first.engine.stop()
    # As if the process had died between the end of a turn and the beginning of the next.
    await first.rows("UPDATE turns SET finished_at = now(), step_state = 'done'")
    await first.rows("UPDATE turns SET state = 'completed'")
    await first.rows("UPDATE sessions SET active_turn = NULL")
    gate.open.set()
    second = await make(gate.agent)
    await second.outlet.until_type("task_completed")
    assert second.outlet.payloads("message_created")[0]["content"] == "two"


async def test_a_deleted_session_ends_its_turn(make: Make) -> None:
    gate = Gate()
    shop = await make(gate.agent, checkpoint_interval=0.01)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until(lambda: bool(shop.outlet.deltas))
    await shop.sessions.delete(session, shop.engine.now())
    gate.open.set()
    await shop.engine.idle()
    assert "task_completed" not in shop.outlet.types
    with pytest.raises(ParleyError) as gone:
        await shop.say(session, "more")
    assert gone.value.code is ErrorCode.SESSION_GONE
