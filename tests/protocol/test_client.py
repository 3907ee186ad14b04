from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import web

from protocol.client import Backoff, Client, Received, Timings, connect, create_session
from protocol.commands import Ping, SwitchAgent, UserMessage
from protocol.delta import MessageText
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Connected, MessageCreated, MessageDelta, Sync
from server.agents.interface import AgentContext, agent
from server.config import AuthSettings, TokenSettings
from tests.auth.door import ADA
from tests.support.server import MakeServer, RunningServer

TRANSPORTS = ["ws", "sse", "ndjson"]


async def until(client: Client, event_type: str, count: int = 1) -> list[Received]:
    """Events up to the count-th of a type."""
    seen: list[Received] = []
    async for event in client:
        seen.append(event)
        count -= event.event_type == event_type
        if not count:
            break
    return seen


def numbers(events: list[Received]) -> list[int]:
    return [event.envelope.seq for event in events if event.envelope.seq is not None]


@pytest.mark.feature("E02", "S10")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_conversation_over_each_transport(server: RunningServer, transport: Any) -> None:
    made = await create_session(server.url, "mine", title="T", agent_type="offline")
    async with connect(server.url, "mine", transport=transport, client_id="me") as client:
        ack = await client.say("hello")
        events = await until(client, "task_completed")
        assert (client.transport, client.client_id) == (transport, "me")
        assert client.cursor == events[-1].cursor
    assert isinstance(events[0].payload, Connected)
    assert events[0].payload.session.session_id == made.id
    assert (ack.status, ack.message_id is not None) == ("accepted", True)
    messages = [event.payload for event in events if isinstance(event.payload, MessageCreated)]
    assert [(message.role, message.client_id) for message in messages] == [("user", "me"), ("assistant", None)]
    assert numbers(events) == list(range(1, len(numbers(events)) + 1))
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
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_comes_back_where_it_was_after_a_restart(
    make_server: MakeServer, unused_tcp_port: int, transport: Any
) -> None:
    server = await make_server(port=unused_tcp_port)
    session = await server.create_session()
    async with connect(server.url, session, transport=transport, after="0") as client:
        await client.say("one")
        before = await until(client, "task_completed")
        await server.stop()
        server = await make_server(port=unused_tcp_port)
        await client.say("two")
        after = await until(client, "task_completed")
    assert numbers(before + after) == list(range(1, numbers(after)[-1] + 1))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_cursor_continues_over_any_other_transport(server: RunningServer, transport: Any) -> None:
    session = await server.create_session()
    async with connect(server.url, session, transport="ws", after="0") as client:
        await client.say("one")
        whole = await until(client, "task_completed")
    middle = next(event for event in whole if event.envelope.seq == 2)
    async with connect(server.url, session, transport=transport, after=middle.cursor) as client:
        rest = await until(client, "sync")
    assert numbers(rest) == numbers(whole)[2:]
    assert [event.raw for event in rest if event.cursor] == [event.raw for event in whole if event.cursor][2:]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_command_is_answered_or_refused(server: RunningServer, transport: Any) -> None:
    async with connect(server.url, transport=transport) as client:
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
    assert numbers(events) == list(range(1, len(numbers(events)) + 1))


@pytest.mark.parametrize("transport", [*TRANSPORTS, "auto"])
async def test_a_refusal_ends_it_and_says_why(make_server: MakeServer, transport: Any) -> None:
    server = await make_server(auth=AuthSettings(tokens=(TokenSettings(user="ada", token=ADA),)))
    for token, session, code in ((None, "x", "unauthorized"), ("wrong", "x", "unauthorized"), (ADA, "x", "not_found")):
        with pytest.raises(ParleyError) as caught:
            async with connect(server.url, session, token=token, transport=transport):
                pass
        assert caught.value.code.code == code
    await create_session(server.url, "mine", token=ADA)
    async with connect(server.url, "mine", token=ADA, transport=transport) as client:
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


async def test_nobody_there_is_told(unused_tcp_port: int) -> None:
    with pytest.raises(ConnectionError, match="does not answer: nothing listens on port"):
        async with connect(f"http://127.0.0.1:{unused_tcp_port}", "x", timings=Timings(opening=2.0)):
            pass


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

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}", asked
    finally:
        await runner.cleanup()


@pytest.mark.feature("T01")
@pytest.mark.parametrize("how", ["refuses", "cuts"])
async def test_regression_28_a_network_without_websocket_is_noticed(server: RunningServer, how: str) -> None:
    session = await server.create_session()
    async with middlebox(server, how) as (url, asked), connect(url, session, after="0") as client:
        await client.say("hello")
        events = await until(client, "task_completed")
        assert client.transport == "sse"
    assert numbers(events) == list(range(1, len(numbers(events)) + 1))
    assert asked[:2] == ["ws", session if how == "refuses" else "events"]
    assert asked.count("ws") == 1


def test_regression_27_pauses_grow_and_never_shrink_below_the_advice() -> None:
    backoff = Backoff(shortest=0.5, longest=20)
    limits = [0.5, 1, 2, 4, 8, 16, 20, 20]
    assert all(0 <= backoff.next() <= limit for limit in limits)
    assert 7 <= backoff.next(at_least=7) <= 27
    for _ in range(10_000):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= 0.5
    draws = {Backoff().next() for _ in range(50)}
    assert len(draws) > 40


@asynccontextmanager
async def scripted(frames: list[dict[str, Any]]) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that says these frames over NDJSON and then nothing; its address, and the `after` of each connection."""
    opened: list[str] = []

    async def events(request: web.Request) -> web.StreamResponse:
        opened.append(request.query.get("after", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for frame in frames:
            await response.write(msgspec.json.encode(ENVELOPE | frame) + b"\n")
        await asyncio.Event().wait()
        return response

    app = web.Application()
    app.router.add_get("/sessions/{session}/events", events)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}", opened
    finally:
        await runner.cleanup()


async def test_unknown_events_are_passed_on_and_repeated_ones_are_not() -> None:
    future = {"event_type": "from_the_future", "payload": {"x": 1}, "seq": 1, "cursor": "e.1"}
    sync = {"event_type": "sync", "payload": {"from": "e.0", "through": "e.1"}}
    async with (
        scripted([_connected(), future, future, sync]) as (url, _),
        connect(url, "x", transport="ndjson") as client,
    ):
        seen = await until(client, "sync")
    assert [event.event_type for event in seen] == ["connected", "from_the_future", "sync"]
    assert seen[1].payload is None
    assert isinstance(seen[2].payload, Sync)


@pytest.mark.feature("T03")
async def test_silence_is_a_lost_connection() -> None:
    event = {"event_type": "from_the_future", "payload": {}, "seq": 7, "cursor": "e.7"}
    async with (
        scripted([_connected(heartbeat_ms=20), event]) as (url, opened),
        connect(url, "x", transport="ndjson", after="e.6", timings=Timings(grace=0)) as client,
    ):
        # On a machine that stands still for 40 ms silence may come before the event, once or twice.
        while "e.7" not in opened:
            await until(client, "connected")
    assert opened[0] == "e.6"
    assert opened == sorted(opened)


async def test_a_snapshot_moves_the_cursor() -> None:
    resync = {"event_type": "resync_required", "payload": {"reason": "epoch_changed", "cursor": "f.9"}}
    first = {"event_type": "from_the_future", "payload": {}, "seq": 10, "cursor": "f.10"}
    async with (
        scripted([_connected(), resync, first]) as (url, _),
        connect(url, "x", transport="ndjson", after="e.50") as client,
    ):
        await until(client, "resync_required")
        assert client.cursor == "f.9"
        await until(client, "from_the_future")
        assert client.cursor == "f.10"


@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_a_command_outlives_a_database_that_is_away(
    server: RunningServer, transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, refused, back = server.services.db, asyncio.Event(), asyncio.Event()

    async def pause(seconds: float) -> None:
        assert seconds >= 1  # the server's advice
        refused.set()
        await back.wait()

    async with connect(server.url, transport=transport) as client:
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


ENVELOPE = {"session_id": str(UUID(int=1)), "timestamp": "2026-01-02T03:04:05.678Z"}


def _connected(heartbeat_ms: int = 15_000) -> dict[str, Any]:
    session, moment = ENVELOPE["session_id"], ENVELOPE["timestamp"]
    about = {
        "session_id": session,
        "current_agent": "a",
        "is_active": True,
        "message_count": 0,
        "created_at": moment,
        "last_activity": moment,
    }
    payload = {
        "client_id": "c",
        "cursor": "e.0",
        "session": about,
        "limits": {"max_command_bytes": 1, "max_nesting": 1},
        "heartbeat_interval_ms": heartbeat_ms,
        "agent": {"type": "a", "agent_id": session, "name": "A"},
        "clients": [],
        "server_version": "1",
    }
    return {"event_type": "connected", "payload": payload}
