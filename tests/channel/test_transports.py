"""One suite for all transports: what holds over one holds over each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from protocol.errors import ErrorCode
from protocol.events import MessageDelta
from server.agents.interface import AgentContext, AgentYield, FunctionAgent, Text, agent
from server.channel.settings import ChannelSettings
from storage.commits import Committed
from storage.log import StoredEvent
from tests.channel.clients import PATIENCE, TRANSPORTS, WebSocketClient, connect, until
from tests.support.clock import ManualClock
from tests.support.server import MakeServer, RunningServer

pytestmark = pytest.mark.parametrize("transport", TRANSPORTS)


def gated() -> tuple[FunctionAgent, asyncio.Event]:
    """An agent that says "first ", and then waits for the event before it says "second"."""
    gate = asyncio.Event()

    @agent(type="gated", description="Waits in the middle.")
    async def gated_agent(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield Text("first ")
        await gate.wait()
        yield Text("second")

    return gated_agent, gate


@pytest.mark.feature("S01", "S03", "S10", "A01")
async def test_a_turn_is_heard_from_question_to_answer(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport, client_id="ide-1") as client:
        assert (await client.next()).event_type == "connected"
        assert (await client.next()).event_type == "sync"
        ack = await client.say("hello")
        done = await client.until("task_completed")
        assert client.payload(done)["status"] == "completed"
        created = [client.payload(event) for event in client.durable if event.event_type == "message_created"]
        assert [message["role"] for message in created] == ["user", "assistant"]
        assert created[0]["message_id"] == ack["message_id"]
        assert created[0]["client_id"] == "ide-1"
        assert [event.seq for event in client.durable] == list(range(1, len(client.durable) + 1))
        assert all(event.session_id == session for event in client.events)
        streamed = [client.payload(event) for event in client.events if event.event_type == "message_delta"]
        assert "".join(delta["text"] for delta in streamed) == created[1]["content"]


@pytest.mark.feature("T01", "T02", "S16")
@pytest.mark.parametrize("other", ["ws-msgpack", "sse"])
async def test_a_client_may_change_transport_in_mid_answer(make_server: MakeServer, transport: str, other: str) -> None:
    gated_agent, gate = gated()
    server = await make_server(gated_agent)
    session = await server.create_session()
    async with connect(server, session, transport, client_id="c", after=0) as before:
        await before.say("go")
        await before.until("message_delta")
        cursor = before.durable[-1].cursor
    async with connect(server, session, other, client_id="c", after=cursor) as client:
        await client.until("sync")
        caught_up = client.payload(await client.until("message_delta"))
        assert (caught_up["offset"], caught_up["text"]) == (0, "first ")
        gate.set()
        await client.until("task_completed")
    numbers = [event.seq for event in before.durable] + [event.seq for event in client.durable]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.feature("T02", "S16")
async def test_a_replay_is_byte_for_byte_the_first_delivery(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport, after=0) as client:
        await client.say("hello")
        await client.until("task_completed")
    async with connect(server, session, transport, after=0) as again:
        await again.until("sync")
    assert [(event.cursor, event.timestamp, bytes(event.payload)) for event in again.durable] == [
        (event.cursor, event.timestamp, bytes(event.payload)) for event in client.durable
    ]


@pytest.mark.feature("S05")
async def test_regression_05_all_transports_of_a_session_hear_the_same(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client, connect(server, session, "sse") as other:
        await client.until("sync")
        await other.until("sync")
        await other.say("hello")
        await client.until("task_completed")
        await other.until("task_completed")
        assert [event.cursor for event in client.durable] == [event.cursor for event in other.durable]
        stats = server.services.hub.stats()
        assert sum(stats.connections.values()) == 2


async def test_a_repeated_command_gets_the_same_reply_and_another_body_a_conflict(
    server: RunningServer, transport: str
) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        first = await client.send(type="user_message", id="one", content="hello")
        assert await client.send(type="user_message", id="one", content="hello") == first
        status, error = await client.send(type="user_message", id="one", content="something else")
        assert status != 200
        assert error["code"] == "conflict"


async def test_a_malformed_command_is_refused_by_name_and_changes_nothing(
    server: RunningServer, transport: str
) -> None:
    session = await server.create_session()
    async with connect(server, session, transport, after=0) as client:
        status, error = await client.send(type="user_message", content=7)
        assert status in {400, 422}
        assert (error["code"], error["path"]) == ("invalid", "$.content")
        status, error = await client.send(type="user_message", content="a\0b")
        assert error["code"] == "invalid"
        assert await client.say("still here")
        await client.until("task_completed")
        assert client.durable[0].event_type == "message_created"
        assert client.payload(client.durable[0])["content"] == "still here"


async def test_commands_for_what_there_is_not_are_refused_by_name(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport, client_id="c") as client:
        await client.until("sync")
        refusals: list[tuple[str, dict[str, Any]]] = [
            ("not_found", {"type": "tool_result", "call_id": "none", "result": 1}),
            ("not_found", {"type": "hitl_decision", "call_id": "none", "decision": "approve"}),
            ("not_found", {"type": "tool_progress", "call_id": "none"}),
            ("no_active_turn", {"type": "cancel"}),
            ("unknown_agent", {"type": "switch_agent", "agent_type": "nobody"}),
        ]
        for code, command in refusals:
            status, error = await client.send(**command)
            assert status != 200
            assert error["code"] == code
            assert error["id"], "a refusal names the command"


@pytest.mark.feature("T03")
async def test_a_ping_is_answered_and_heartbeats_come(make_server: MakeServer, transport: str) -> None:
    clock = ManualClock()
    server = await make_server(clock=clock)
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        connected = client.payload(await client.next())
        assert connected["heartbeat_interval_ms"] == 15_000
        assert await client.send(type="ping", id="p") == (200, {"id": "p", "status": "accepted"})
        (subscriber,) = server.services.hub._channels[UUID(session)].subscribers
        # A client that reads only, for longer than two intervals: its framework's pongs are life enough.
        reading = asyncio.create_task(client.end())
        for count in range(1, 5):
            await clock.advance(15.0)
            await until(lambda: client.types.count("heartbeat") == count)  # noqa: B023 - awaited at once
            if isinstance(client, WebSocketClient):
                await until(lambda: subscriber.heard_at == clock.monotonic())
        assert server.services.hub.stats().closed == {}
        reading.cancel()
        await asyncio.wait({reading})


async def test_connected_tells_who_else_is_here(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport, client_id="first") as first:
        assert first.payload(await first.next())["client_id"] == "first"
        async with connect(server, session, "ndjson") as second:
            connected = second.payload(await second.next())
            assert connected["client_id"], "a client that brings no id is given one"
            name = transport if transport in {"sse", "ndjson"} else "websocket"
            assert connected["clients"] == [{"client_id": "first", "transport": name}]
            assert connected["agent"]["type"] == "offline"


@pytest.mark.parametrize("after", ["nonsense", "-1", "e.e", "1.2.3"])
async def test_a_cursor_that_cannot_be_read_is_refused_before_the_stream(
    server: RunningServer, transport: str, after: str
) -> None:
    session = await server.create_session()
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        async with connect(server, session, transport, after=after):
            pass
    assert caught.value.status == 422


@pytest.mark.parametrize(("after", "reason"), [("elsewhere.1", "epoch_changed"), ("99", "ahead")])
async def test_a_cursor_that_cannot_be_served_is_answered_and_the_stream_goes_on(
    server: RunningServer, transport: str, after: str, reason: str
) -> None:
    session = await server.create_session()
    async with connect(server, session, transport, after=after) as client:
        await client.until("sync")
        assert client.types == ["connected", "resync_required", "sync"]
        resync = client.payload(client.events[1])
        assert (resync["reason"], resync["cursor"]) == (reason, client.payload(client.events[0])["cursor"])
        await client.say("hello")
        await client.until("task_completed")


async def test_a_session_that_is_not_there_is_refused_before_the_stream(server: RunningServer, transport: str) -> None:
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        async with connect(server, "nobody-s", transport):
            pass
    assert caught.value.status == 404


@pytest.mark.feature("T06")
async def test_too_many_streams_are_refused_with_a_time_to_come_back(make_server: MakeServer, transport: str) -> None:
    server = await make_server(channel=ChannelSettings(max_session_connections=1))
    session = await server.create_session()
    async with connect(server, session, "sse"):
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            async with connect(server, session, transport):
                pass
        assert caught.value.status == 429
        assert caught.value.headers is not None
        assert int(caught.value.headers["Retry-After"]) > 0


@pytest.mark.feature("T04", "T08")
async def test_a_stopping_server_says_when_to_come_back(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.until("sync")
        closing = asyncio.create_task(server.services.hub.close(retry_after=1.5))
        farewell = client.payload(await client.until("disconnect"))
        assert farewell["code"] == "shutdown"
        assert farewell["reconnect"] is True
        assert 1_500 <= farewell["retry_after_ms"] <= 3_000
        await client.end()
        if isinstance(client, WebSocketClient):
            assert client.socket.close_code == ErrorCode.SHUTDOWN.close
        await asyncio.wait_for(closing, PATIENCE)


@pytest.mark.feature("T04")
async def test_a_deleted_sessions_stream_ends_for_good(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.until("sync")
        server.services.hub.end_session(UUID(session))
        farewell = client.payload(await client.until("disconnect"))
        assert (farewell["code"], farewell["reconnect"]) == ("session_gone", False)
        await client.end()
        if isinstance(client, WebSocketClient):
            assert client.socket.close_code == ErrorCode.SESSION_GONE.close


@pytest.mark.feature("T03")
async def test_regression_36_a_client_that_vanishes_is_forgotten_without_a_write(
    server: RunningServer, transport: str
) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.until("sync")
        assert len(server.services.hub._admission) == 1
    async with asyncio.timeout(PATIENCE):
        await server.services.hub._admission.emptied()
    assert server.services.hub.stats().connections == {}


@pytest.mark.feature("T10", "S06")
async def test_what_another_process_stores_is_heard(make_server: MakeServer, transport: str, database_url: str) -> None:
    here = await make_server(channel=ChannelSettings(poll_interval=0.05))
    there = await make_server()
    session = await here.create_session()
    async with connect(here, session, transport, after=0) as client:
        await client.until("sync")
        status, _ = await there.command(session, type="user_message", content="from the other side")
        assert status == 200
        created = client.payload(await client.until("message_created"))
        assert created["content"] == "from the other side"
        await client.until("task_completed")
        assert [event.seq for event in client.durable] == list(range(1, len(client.durable) + 1))


@pytest.mark.feature("S07")
async def test_event_types_that_are_yet_to_come_pass_through(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.until("sync")
        state = await server.services.sessions.resolve("local", session)
        new = StoredEvent(1, "yet_to_come", state.created_at, b'{"what":"is this"}')
        server.services.hub.commit(Committed(state.session_id, state.epoch, (new,)))
        event = await client.until("yet_to_come")
        assert event.decode() is None


@pytest.mark.feature("A01", "T05")
async def test_a_long_text_is_streamed_in_pieces_that_fit_together(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    message = UUID(int=5)
    piece = "Füße 🙂 " * 50
    async with connect(server, session, transport) as client:
        await client.until("sync")
        offset = 0
        for _ in range(200):
            delta = MessageDelta(message_id=message, attempt=1, part="content", offset=offset, text=piece)
            server.services.hub.delta(UUID(session), delta)
            offset += len(piece.encode("utf-16-le")) // 2
        text = ""
        while len(text) < 200 * len(piece):
            delta_event = client.payload(await client.until("message_delta"))
            assert delta_event["offset"] == len(text.encode("utf-16-le")) // 2
            text += delta_event["text"]
        assert text == 200 * piece
    server.services.hub.close_message(UUID(session), message)
