"""Questions and their answers: `session.ask`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from protocol.client import AgentFailed, Answer, Chunk, Client, connect
from protocol.errors import ErrorCode, ParleyError
from protocol.events import ToolCall, ToolResultEvent
from server.agents.interface import AgentContext, agent
from tests.protocol.support import (
    ANSWER,
    QUESTION,
    QUICK,
    TURN,
    WAYS,
    Script,
    asked,
    connected,
    delta,
    durable,
    over,
    said,
    serving,
    sync,
    until,
)
from tests.support.server import MakeServer, RunningServer

ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
LATER = str(UUID(int=7))


@asynccontextmanager
async def talking(*frames: Any) -> AsyncIterator[Client]:
    """A client of a server that says these frames once it was asked."""
    script = Script([connected(), sync()])
    script.streams[0] += [script.commanded, *frames]
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson", timings=QUICK) as client:
        yield client


async def chunks(answer: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in answer]


def printed(seen: list[Chunk]) -> str:
    """What is on a screen that prints every chunk, and begins anew where it has to."""
    screen, message = "", ""
    for chunk in seen:
        message = chunk.text if chunk.restarted else message + chunk.text
        if chunk.event.event_type == "message_created":
            screen, message = screen + message, ""
    return screen + message


# --- against the real server


@pytest.mark.feature("E02", "A01")
@ways
async def test_an_answer_is_had_whole_or_as_it_grows(server: RunningServer, way: Any) -> None:
    async with connect(server.url, **way) as client:
        answer = await client.ask("count to 20")
        assert answer.text == " ".join(map(str, range(1, 21)))
        assert str(answer) == answer.text
        assert answer.done
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
        growing = client.ask("count to 30")
        seen = await chunks(growing)
        assert printed(seen) == growing.text == " ".join(map(str, range(1, 31)))
        assert await growing is growing
        assert await chunks(growing) == []


@pytest.mark.feature("A02")
async def test_an_answer_tells_of_its_tool_calls(server: RunningServer) -> None:
    async with connect(server.url) as client:
        answer = client.ask('use tool calculate {"expression": "6*7"}')
        seen = await chunks(answer)
    assert [type(chunk.event.payload) for chunk in seen if chunk.event.event_type.startswith("tool_")] == [
        ToolCall,
        ToolResultEvent,
    ]
    (call,) = answer.calls
    assert (call.name, call.arguments) == ("calculate", {"expression": "6*7"})
    assert "42" in str(answer.results[call.call_id].result)
    assert len(answer.messages) == 2
    assert answer.text == "\n\n".join(message.content for message in answer.messages)
    assert "".join(chunk.text for chunk in seen) == answer.text


async def test_a_failure_is_raised_with_what_there_is(server: RunningServer) -> None:
    async with connect(server.url) as client:
        answer = client.ask("fail late")
        with pytest.raises(AgentFailed, match="you asked for a failure") as caught:
            await answer
        assert (caught.value.status, caught.value.code, caught.value.answer) == ("failed", "requested", answer)
        assert "last one before the failure" in caught.value.answer.text
        with pytest.raises(AgentFailed):
            await chunks(answer)
        assert (await client.ask("echo still here")).text == "still here"


async def test_a_refusal_is_raised_and_may_be_tried_again(server: RunningServer) -> None:
    async with connect(server.url) as client:
        with pytest.raises(ParleyError) as caught:
            await client.ask("hello", agent_type="nobody")
        assert caught.value.code is ErrorCode.UNKNOWN_AGENT


class Stage:
    """A server with an agent that says a word and waits for its cue."""

    def __init__(self) -> None:
        self.cue = asyncio.Event()
        self.server: RunningServer

        @agent(type="slow")
        async def slow(context: AgentContext) -> AsyncGenerator[str, None]:
            yield f"{context.history[-1].content}: "
            await self.cue.wait()
            yield "yes."

        self.agent = slow


@pytest.fixture
async def stage(make_server: MakeServer) -> Stage:
    made = Stage()
    made.server = await make_server(made.agent)
    return made


@ways
async def test_other_peoples_turns_do_not_show(stage: Stage, way: Any) -> None:
    async with connect(stage.server.url, client_id="other") as other:
        first = other.ask("first")
        assert (await anext(aiter(first))).event is not None
        async with connect(stage.server.url, other.session, **way) as client:
            second = asyncio.create_task(chunks(client.ask("second")))
            await until(other, "queue_changed")
            stage.cue.set()
            assert (await first).text == "first: yes."
            assert printed(await second) == "second: yes."


async def test_an_answer_that_is_not_wanted_any_more(stage: Stage) -> None:
    async with connect(stage.server.url) as client:
        unsent = client.ask("never")
        await unsent.cancel()
        with pytest.raises(AgentFailed, match="before it was sent"):
            await unsent
        running, waiting = client.ask("running"), client.ask("waiting")
        async for chunk in running:
            if chunk.text:
                break
        going_on = asyncio.create_task(chunks(waiting))
        await until(client, "queue_changed")
        await waiting.cancel()
        with pytest.raises(AgentFailed) as withdrawn:
            await going_on
        await running.cancel()
        with pytest.raises(AgentFailed) as cancelled:
            await running
        await running.cancel()
        assert (withdrawn.value.status, cancelled.value.status) == ("withdrawn", "cancelled")
        assert cancelled.value.answer.text == "running: "
    assert [message["content"] for message in await stage.server.history(client.session)] == ["running", "running: "]


async def test_an_answer_may_be_cancelled_whose_acknowledgement_is_lost(stage: Stage) -> None:
    async with connect(stage.server.url, transport="ws") as client:
        await until(client, "sync")
        answer = client.ask("well")
        asking = asyncio.create_task(chunks(answer))
        await until(client, "task_started")
        asking.cancel()
        answer.ack = None
        await answer.cancel()
        with pytest.raises(AgentFailed) as caught:
            await answer
        assert caught.value.status == "cancelled"
    history = await stage.server.history(client.session)
    assert [message["content"] for message in history if message["role"] == "user"] == ["well"]


@pytest.mark.parametrize("code", [ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN])
async def test_an_answer_is_cancelled_whose_turn_begins_just_now(code: ErrorCode) -> None:
    script = Script([connected(), sync()])
    began = asyncio.Event()
    script.streams[0] += [began, *asked(1), over(3, "cancelled")]

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return await script.handle(request)
        command = await request.json()
        script.commands.append(command)
        script.commanded.set()
        if command["type"] == "queue_update":
            began.set()
            return web.json_response(
                ParleyError(code, "not any more").to_problem(),
                status=code.status,
                content_type="application/problem+json",
            )
        return web.json_response({"id": command["id"], "status": "queued", "message_id": QUESTION})

    async with serving(handle) as url, connect(url, "x", transport="ndjson", timings=QUICK) as client:
        answer = client.ask("?")
        asking = asyncio.create_task(chunks(answer))
        await script.commanded.wait()
        # Commands keep their order: the question is acknowledged when this is.
        await client.switch_agent("a")
        asking.cancel()
        if code is ErrorCode.FORBIDDEN:
            with pytest.raises(ParleyError, match="not any more"):
                await answer.cancel()
            return
        await answer.cancel()
        with pytest.raises(AgentFailed, match="cancelled"):
            await answer
    assert [command["type"] for command in script.commands] == [
        "user_message",
        "switch_agent",
        "queue_update",
        "cancel",
    ]
    assert script.commands[-1]["turn_id"] == TURN


async def test_asking_in_a_loop_and_beside_one_loses_nothing(server: RunningServer) -> None:
    async with connect(server.url) as client:
        beside = aiter(client)
        await client.say("echo one")
        outer = []
        async for event in client:
            outer.append(event)
            if event.event_type == "task_completed":
                if len(outer) > 20:
                    break
                assert (await client.ask("echo two")).text == "two"
                assert (await client.ask("echo three")).text == "three"
                outer += [event] * 20
        seqs = [event.envelope.seq async for event in _until(beside, 3) if event.envelope.seq is not None]
    assert seqs == list(range(1, len(seqs) + 1))


async def _until(events: AsyncIterator[Any], turns: int) -> AsyncIterator[Any]:
    async for event in events:
        yield event
        turns -= event.event_type == "task_completed"
        if not turns:
            return


# --- what a stream may hold


async def test_deltas_that_come_in_any_way_are_put_together() -> None:
    pieces = [delta(0, "One "), delta(0, "One "), delta(2, "e two "), delta(30, "lost"), delta(8, "three")]
    async with talking(*asked(1), *pieces, said(3, "One two three."), over(4)) as client:
        answer = client.ask("?")
        seen = await chunks(answer)
    assert [chunk.text for chunk in seen if chunk.text] == ["One ", "two ", "three", "."]
    assert not any(chunk.restarted for chunk in seen)
    assert (answer.text, answer.turn_id, answer.done) == ("One two three.", UUID(TURN), True)


async def test_a_new_attempt_begins_the_message_anew() -> None:
    frames = [delta(0, "One half"), delta(0, "One", attempt=2), delta(8, "x"), delta(3, " two", attempt=2)]
    async with talking(*asked(1), *frames, said(3, "One two"), over(4)) as client:
        seen = await chunks(client.ask("?"))
    assert [(chunk.text, chunk.restarted) for chunk in seen if chunk.text] == [
        ("One half", False),
        ("One", True),
        (" two", False),
    ]
    assert printed(seen) == "One two"


async def test_a_new_attempt_of_a_later_message_and_one_of_which_the_beginning_is_missing() -> None:
    frames = [
        said(3, "First."),
        delta(0, "Hm.", part="reasoning", message_id=LATER),
        delta(0, "Half", message_id=LATER),
        delta(0, "Ah.", part="reasoning", message_id=LATER, attempt=2),
        delta(9, "missing", message_id=LATER, attempt=3),
        delta(0, "Whole", message_id=LATER, attempt=4),
        said(4, "Whole.", message_id=LATER),
    ]
    async with talking(*asked(1), *frames, over(5)) as client:
        answer = client.ask("?")
        seen = await chunks(answer)
    assert [(chunk.text, chunk.reasoning, chunk.restarted) for chunk in seen if chunk.text or chunk.restarted] == [
        ("First.", "", False),
        ("\n\nHalf", "", False),
        ("", "Ah.", True),
        ("", "", True),
        ("\n\nWhole", "", False),
        (".", "", False),
    ]
    assert printed(seen) == answer.text == "First.\n\nWhole."


async def test_what_happened_before_the_question_is_passed_over() -> None:
    resync = {"event_type": "resync_required", "payload": {"reason": "ahead", "cursor": "e.0"}}
    script = Script([connected(), resync, sync()])
    script.streams[0] += [script.commanded, *asked(1), said(3, "Yes."), over(4)]
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson", after="9") as client:
        async for status in client.changes():
            if status.state == "open":
                break
        assert (await client.ask("?")).text == "Yes."


async def test_the_stored_message_has_the_last_word() -> None:
    async with talking(*asked(1), delta(0, "Wrong"), said(3, "Right"), over(4)) as client:
        answer = client.ask("?")
        seen = await chunks(answer)
    assert [(chunk.text, chunk.restarted) for chunk in seen if chunk.text] == [("Wrong", False), ("Right", True)]
    assert printed(seen) == answer.text == "Right"


async def test_an_answer_of_several_messages() -> None:
    call = durable(
        4, "tool_call", call_id="c", turn_id=TURN, message_id=ANSWER, name="t", arguments=1, executor="client"
    )
    frames = [
        *asked(1),
        delta(0, "Let me see.", part="reasoning"),
        delta(0, "First."),
        said(3, "First."),
        call,
        {"event_type": "tool_progress", "payload": {"call_id": "c", "fraction": 0.5}},
        {"event_type": "tool_progress", "payload": {"call_id": "somebody else's", "fraction": 0.5}},
        delta(0, "Sec", message_id=LATER),
        said(5, "Second.", message_id=LATER),
        delta(0, "late", message_id=ANSWER),
        over(6),
    ]
    async with talking(*frames) as client:
        answer = client.ask("?")
        seen = await chunks(answer)
    assert [chunk.text for chunk in seen if chunk.text] == ["First.", "\n\nSec", "ond."]
    assert [chunk.reasoning for chunk in seen if chunk.reasoning] == ["Let me see."]
    assert answer.text == "First.\n\nSecond."
    assert [chunk.event.event_type for chunk in seen].count("tool_progress") == 1
    assert [one.name for one in answer.calls] == ["t"]


@pytest.mark.parametrize("status", ["cancelled", "failed", "interrupted"])
@pytest.mark.parametrize("error", [None, {"code": "c", "message": "because"}])
async def test_a_turn_that_does_not_complete_is_a_failure(status: str, error: Any) -> None:
    more = {} if error is None else {"error": error}
    async with talking(*asked(1), delta(0, "One"), over(3, status, **more)) as client:
        with pytest.raises(AgentFailed) as caught:
            await client.ask("?")
    failed = caught.value
    assert (failed.status, failed.code) == (status, "c" if error else status)
    assert failed.message == ("because" if error else f"the turn was {status}")
    assert failed.answer.text == "One"


async def test_a_message_that_somebody_takes_back() -> None:
    removed = durable(1, "queue_changed", change="removed", message_id=QUESTION)
    async with talking(removed) as client:
        with pytest.raises(AgentFailed, match="taken back") as caught:
            await client.ask("?")
    assert caught.value.status == "withdrawn"


async def test_a_log_that_does_not_go_on() -> None:
    resync = {"event_type": "resync_required", "payload": {"reason": "epoch_changed", "cursor": "f.9"}}
    async with talking(*asked(1), resync) as client:
        with pytest.raises(AgentFailed, match="epoch_changed") as caught:
            await client.ask("?")
    assert caught.value.status == "lost"


async def test_leaving_a_loop_and_going_on() -> None:
    async with talking(*asked(1), delta(0, "One "), delta(4, "two"), said(3, "One two"), over(4)) as client:
        answer = client.ask("?")
        async for chunk in answer:
            if chunk.text:
                break
        assert (answer.text, answer.done) == ("One ", False)
        complete: Answer = await answer
        assert complete.text == "One two"


async def test_a_session_that_ends_in_the_middle_of_an_answer() -> None:
    farewell = {"code": "session_gone", "reason": "deleted", "reconnect": False}
    end = {"event_type": "disconnect", "payload": farewell}
    script = Script([connected(), sync()], then_end=True)
    script.streams[0] += [script.commanded, *asked(1), delta(0, "One "), end]
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson", timings=QUICK) as client:
        answer = client.ask("?")
        with pytest.raises(ParleyError) as caught:
            await answer
        assert caught.value.code is ErrorCode.SESSION_GONE
        assert answer.text == "One "
        with pytest.raises(ParleyError):
            await client.say("hello?")


async def test_a_client_that_is_closed_in_the_middle_of_an_answer() -> None:
    async with talking(*asked(1), delta(0, "One ")) as client:
        answer = client.ask("?")
        async for chunk in answer:
            if chunk.text:
                await client.close()
                break
        with pytest.raises(ConnectionError, match="before the answer was complete"):
            await answer
