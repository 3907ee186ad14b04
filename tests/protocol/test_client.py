"""The Python client against the real server: what it promises, over each of the ways that it can be connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from protocol.client import Events, Status, Timings, connect, create_session
from protocol.client.choice import Memory
from protocol.commands import Ping, SwitchAgent, UserMessage
from protocol.delta import MessageText
from protocol.errors import ErrorCode, ParleyError
from protocol.events import AgentSwitched, Connected, MessageCreated, MessageDelta, QueueChanged
from server.agents.interface import AgentContext, agent
from server.config import AuthSettings, TokenSettings
from tests.auth.door import ADA
from tests.protocol.support import QUICK, WAYS, complete, numbers, serving, until
from tests.support.server import MakeServer, RunningServer

ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.mark.feature("E02", "S10")
@ways
async def test_a_conversation_over_each_transport(server: RunningServer, way: Any) -> None:
    made = await create_session(server.url, "mine", title="T", agent_type="offline")
    async with connect(server.url, "mine", **way, client_id="me") as client:
        ack = await client.say("hello")
        events = await until(client, "task_completed")
        assert (client.transport, client.client_id) == (way["transport"], "me")
        assert client.cursor == events[-1].cursor
    assert isinstance(events[0].payload, Connected)
    assert events[0].payload.session.session_id == made.id
    assert (ack.status, ack.message_id is not None) == ("accepted", True)
    messages = [event.payload for event in events if isinstance(event.payload, MessageCreated)]
    assert [(message.role, message.client_id) for message in messages] == [("user", "me"), ("assistant", None)]
    assert complete(events)
    assert client.texts == {}


@pytest.mark.feature("A01")
async def test_texts_grow_while_they_are_written(make_server: MakeServer) -> None:
    @agent(type="slow")
    async def slow(context: AgentContext) -> AsyncGenerator[str, None]:
        for word in ("One ", "two ", "🦜."):
            yield word
            await asyncio.sleep(0)

    server = await make_server(slow)
    grown: list[str] = []
    async with connect(server.url) as client:
        await client.say("count")
        async for event in client:
            match event.payload:
                case MessageDelta(message_id=message_id):
                    assert isinstance(client.texts[message_id], MessageText)
                    grown.append(client.texts[message_id].text())
                case MessageCreated(role="assistant"):
                    break
                case _:
                    pass
    assert grown[-1] == "One two 🦜."
    assert all(later.startswith(earlier) for earlier, later in pairwise(grown))


@pytest.mark.feature("T02")
@ways
async def test_it_comes_back_where_it_was_after_a_restart(
    make_server: MakeServer, unused_tcp_port: int, way: Any
) -> None:
    server = await make_server(port=unused_tcp_port)
    session = await server.create_session()
    async with connect(server.url, session, **way, after="0", timings=QUICK) as client:
        await client.say("one")
        before = await until(client, "task_completed")
        await server.stop()
        server = await make_server(port=unused_tcp_port)
        await client.say("two")
        after = await until(client, "task_completed")
    assert complete(before + after)


@ways
async def test_a_cursor_continues_over_any_other_transport(server: RunningServer, way: Any) -> None:
    session = await server.create_session()
    async with connect(server.url, session, transport="ws", after="0") as client:
        await client.say("one")
        whole = await until(client, "task_completed")
    middle = next(event for event in whole if event.envelope.seq == 2)
    async with connect(server.url, session, **way, after=middle.cursor) as client:
        rest = await until(client, "sync")
    assert numbers(rest) == numbers(whole)[2:]
    assert [event.envelope.timestamp for event in rest if event.cursor] == [
        event.envelope.timestamp for event in whole if event.cursor
    ][2:]


@ways
async def test_a_command_is_answered_or_refused(server: RunningServer, way: Any) -> None:
    async with connect(server.url, **way) as client:
        await until(client, "sync")
        command = UserMessage(id="c1", content="once")
        first = await client.send(command)
        assert await client.send(command) == first
        assert (await client.send(Ping(id="p1"))).status == "accepted"
        with pytest.raises(ParleyError) as conflict:
            await client.send(UserMessage(id="c1", content="other"))
        assert conflict.value.code is ErrorCode.CONFLICT
        with pytest.raises(ParleyError) as unknown:
            await client.send(SwitchAgent(id="c2", agent_type="nobody"))
        assert unknown.value.code is ErrorCode.UNKNOWN_AGENT
        with pytest.raises(ValueError, match="needs an id"):
            await client.send(Ping())
        events = await until(client, "task_completed")
    assert [event.event_type for event in events].count("message_created") == 2


async def test_whoever_does_not_iterate_can_still_speak(server: RunningServer) -> None:
    async with connect(server.url, transport="ws", timings=Timings(waiting_events=2)) as client:
        for number in range(5):
            ack = await client.say(f"message {number}")
            assert ack.status in {"accepted", "queued"}
        events = await until(client, "task_completed", 5)
    assert complete(events)


@pytest.mark.parametrize("way", [*WAYS.values(), {}], ids=[*WAYS, "auto"])
async def test_a_refusal_ends_it_and_says_why(make_server: MakeServer, way: Any) -> None:
    server = await make_server(auth=AuthSettings(tokens=(TokenSettings(user="ada", token=ADA),)))
    for token, session, code in ((None, "x", "unauthorized"), ("wrong", "x", "unauthorized"), (ADA, "x", "not_found")):
        with pytest.raises(ParleyError) as caught:
            async with connect(server.url, session, token=token, **way):
                pass
        assert caught.value.code.code == code
    await create_session(server.url, "mine", token=ADA)
    async with connect(server.url, "mine", token=ADA, **way) as client:
        assert (await client.say("hello")).status == "accepted"


async def test_a_name_that_is_taken_is_refused(server: RunningServer) -> None:
    await create_session(server.url, "mine")
    with pytest.raises(ParleyError) as caught:
        await create_session(server.url, "mine")
    assert (caught.value.code, caught.value.path) == (ErrorCode.CONFLICT, "$.session_id")


async def test_a_deleted_session_ends_it(server: RunningServer) -> None:
    session = await server.create_session()
    async with connect(server.url, session) as client:
        await until(client, "sync")
        async with server.client.delete(f"/sessions/{session}"):
            pass
        with pytest.raises(ParleyError) as caught:
            await until(client, "never")
        assert caught.value.code is ErrorCode.SESSION_GONE
        with pytest.raises(ParleyError):
            await anext(aiter(client))


async def test_closing_ends_the_iteration(server: RunningServer) -> None:
    async with connect(server.url) as client:
        await until(client, "sync")
    assert [event async for event in client] == []
    await client.close()
    with pytest.raises(ConnectionError):
        await client.say("too late")


@asynccontextmanager
async def middlebox(server: RunningServer, how: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy in front of the server that does not like WebSocket; its address, and what it was asked for."""
    asked: list[str] = []

    async def forward(request: web.Request) -> web.StreamResponse:
        asked.append(request.path.rpartition("/")[2])
        if request.path.endswith("/ws"):
            if how == "refuses":
                return web.Response(status=400)
            socket = web.WebSocketResponse(compress=False)
            await socket.prepare(request)
            assert request.transport is not None
            request.transport.abort()
            return socket
        headers = {name: value for name, value in request.headers.items() if name in {"Accept", "Content-Type"}}
        async with server.client.request(
            request.method, request.path_qs, headers=headers, data=await request.read()
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
        return response

    async with serving(forward) as url:
        yield url, asked


@pytest.mark.feature("T01")
@pytest.mark.parametrize("how", ["refuses", "cuts"])
async def test_regression_28_a_network_without_websocket_is_noticed(
    server: RunningServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.client.choice.SHARED", Memory())
    session = await server.create_session()
    async with middlebox(server, how) as (url, asked), connect(url, session, after="0") as client:
        await client.say("hello")
        events = await until(client, "task_completed")
        assert client.transport == "sse"
        # Whoever comes next does not have to find out again.
        async with connect(url, session) as other:
            await until(other, "sync")
    assert complete(events)
    assert asked[:2] == ["ws", session if how == "refuses" else "events"]
    assert asked.count("ws") == 1


async def test_who_insists_on_websocket_is_told_that_there_is_none(server: RunningServer) -> None:
    session = await server.create_session()
    async with middlebox(server, "refuses") as (url, asked):
        with pytest.raises(ParleyError, match="the server answered 400"):
            async with connect(url, session, transport="ws", timings=QUICK):
                pass
    assert asked == ["ws", session]


@pytest.mark.parametrize("way", [WAYS["ws"], WAYS["sse"]], ids=["ws", "sse"])
async def test_a_command_outlives_a_database_that_is_away(
    server: RunningServer, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, refused, back = server.services.db, asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        assert seconds >= 1  # the server's advice
        refused.set()
        await back.wait()

    async with connect(server.url, **way) as client:
        await until(client, "sync")
        monkeypatch.setattr(client._outbox, "_pause", pause)
        await db.close()
        saying = asyncio.create_task(client.say("hello"))
        await refused.wait()
        await db.open(server.services.store.address)
        back.set()
        assert (await saying).status == "accepted"
        events = await until(client, "task_completed")
    assert [event.event_type for event in events].count("message_created") == 2


# --- what else can be said


@pytest.fixture
async def patient(make_server: MakeServer) -> tuple[RunningServer, asyncio.Event]:
    """A server whose agent `slow` answers once it may; `quick` answers at once."""
    may = asyncio.Event()

    @agent(type="slow")
    async def slow(context: AgentContext) -> AsyncGenerator[str, None]:
        yield "One "
        await may.wait()
        yield "two."

    @agent(type="quick")
    async def quick(context: AgentContext) -> AsyncGenerator[str, None]:
        yield "Yes."

    return await make_server(slow, quick), may


@ways
async def test_a_turn_is_cancelled_and_the_queue_changed(
    patient: tuple[RunningServer, asyncio.Event], way: Any
) -> None:
    server, may = patient
    async with connect(server.url, **way) as client:
        running = await client.say("begin")
        first, second, third = [
            waiting for word in ("a", "b", "c") if (waiting := (await client.say(word)).message_id) is not None
        ]
        await client.reorder([third, first, second])
        await client.withdraw(second)
        await client.cancel(running.turn_id)
        may.set()
        events = await until(client, "task_completed", 3)
    assert complete(events)
    changes = [event.payload for event in events if isinstance(event.payload, QueueChanged)]
    assert [change.change for change in changes] == [*["added"] * 3, "reordered", "removed", "started", "started"]
    asked = [
        event.payload.content
        for event in events
        if isinstance(event.payload, MessageCreated) and event.payload.role == "user"
    ]
    assert asked == ["begin", "c", "a"]


@pytest.mark.feature("S26")
@ways
async def test_another_agent_takes_over(patient: tuple[RunningServer, asyncio.Event], way: Any) -> None:
    server, _ = patient
    async with connect(server.url, **way) as client:
        await client.switch_agent("quick", "no time")
        await client.say("well?")
        events = await until(client, "task_completed")
    (switched,) = [event.payload for event in events if isinstance(event.payload, AgentSwitched)]
    assert (switched.from_agent, switched.to_agent, switched.reason) == ("slow", "quick", "no time")
    assert [event.text for event in events if event.event_type == "message_created"] == ["well?", "Yes."]


@ways
async def test_what_was_said_is_there_to_be_read(server: RunningServer, way: Any) -> None:
    async with connect(server.url, **way) as client:
        assert 0 <= await client.ping() < 60
        await client.say("echo hello")
        await until(client, "task_completed")
        page = await client.history(limit=1)
        assert (page.message_count, [message.content for message in page.messages]) == (2, ["echo hello"])
        assert [message.role async for message in client.messages()] == ["user", "assistant"]
        assert str(page.session_id) == client.session


async def test_commands_of_several_tasks_keep_their_order(server: RunningServer) -> None:
    async with connect(server.url) as client:
        await asyncio.gather(*[client.say(f"echo {number}") for number in range(20)])
        events = await until(client, "task_completed", 20)
    messages = [event.payload for event in events if isinstance(event.payload, MessageCreated)]
    assert [one.content for one in messages if one.role == "user"] == [f"echo {number}" for number in range(20)]


async def test_what_cannot_be_sent_is_not_sent(server: RunningServer) -> None:
    async with connect(server.url, transport="ws") as client:
        await until(client, "sync")
        for content, code in (
            ("", ErrorCode.INVALID),
            ("a\0b", ErrorCode.INVALID),
            ("x" * (1 << 21), ErrorCode.TOO_LARGE),
        ):
            # More often than the server bears with: it does not hear of them.
            for _ in range(30):
                with pytest.raises(ParleyError) as caught:
                    await client.say(content)
                assert caught.value.code is code
        assert server.services.hub.counters.malformed == 0
        assert (await client.say("hello")).status == "accepted"


# --- iterating


async def test_two_iterations_at_a_time_see_the_same(server: RunningServer) -> None:
    async def read(events: Events) -> list[str]:
        seen = []
        async for event in events:
            seen.append(event.event_type)
            if event.event_type == "task_completed":
                break
        return seen

    async with connect(server.url) as client:
        one, two = aiter(client), aiter(client)
        reading = asyncio.gather(read(one), read(two))
        await client.say("hello")
        first, second = await reading
    assert first == second
    assert first[0] == "connected"


async def test_iterating_and_speaking_need_a_connection(server: RunningServer) -> None:
    client = connect(server.url)
    with pytest.raises(RuntimeError, match="not connected"):
        aiter(client)
    with pytest.raises(ConnectionError, match="not connected"):
        await client.say("hello")
    async with client:
        pass
    with pytest.raises(RuntimeError, match="used once"):
        await client.__aenter__()


# --- how it stands


@pytest.mark.feature("T01")
async def test_changes_tell_how_it_stands(make_server: MakeServer, unused_tcp_port: int) -> None:
    server = await make_server(port=unused_tcp_port)
    client = connect(server.url, timings=QUICK)
    seen: list[Status] = []
    reconnecting = asyncio.Event()
    opened = asyncio.Event()

    async def watch() -> None:
        async for status in client.changes():
            seen.append(status)
            reconnecting.set() if status.state == "reconnecting" else None
            opened.set() if status.state == "open" else None

    watching = asyncio.create_task(watch())
    async with client:
        await opened.wait()
        assert (client.state, client.status.transport) == ("open", "ws")
        opened.clear()
        await server.stop()
        await reconnecting.wait()
        assert client.transport is None
        server = await make_server(port=unused_tcp_port)
        client.wake()
        await opened.wait()
    await watching
    states = [status.state for status in seen]
    assert (states[0], states[1], states[-1]) == ("connecting", "open", "closed")
    away = [status for status in seen if status.state == "reconnecting"]
    assert all(status.retry_in is not None and status.reason for status in away)
    assert client.state == "closed"
