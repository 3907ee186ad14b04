from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from protocol.envelope import Event, payload_json
from protocol.events import Heartbeat
from protocol.ids import format_timestamp
from server.compat.threads import ThreadTeller
from tests.compat.support import ask, event_stream
from tests.support.server import RunningServer

THANKS = {"status": "success", "message": "Message sent to agent."}


async def send(server: RunningServer, agent: str, thread: str, message: str, **options: Any) -> None:
    body = {"thread_id": thread, "message": message}
    assert await ask(server, "POST", f"/agents/{agent}/messages", json=body, **options) == (200, THANKS)


@pytest.mark.feature("S34", "S35", "S31")
async def test_what_is_said_in_a_thread_is_heard_there(server: RunningServer) -> None:
    async with event_stream(server, "/agents/offline/sse?thread_id=t-1") as events:
        first = await anext(events)
        assert first.event == "connected"
        place = json.loads(first.data)
        assert (place["agent_id"], place["thread_id"]) == ("offline", "t-1")
        assert first.id
        await send(server, "offline", "t-2", "not here")
        await send(server, "offline", "t-1", "hello")
        said = await anext(events)
    assert said.event == "message"
    frame = json.loads(said.data)
    assert set(frame) == {"agent_id", "thread_id", "message"}
    assert (frame["agent_id"], frame["thread_id"]) == ("offline", "t-1")
    thread = await server.services.sessions.thread("local", "offline", "t-1")
    assert thread is not None
    history = await server.history(str(thread.session_id))
    assert frame["message"] == history[1]["content"]
    assert [one["content"] for one in history if one["role"] == "user"] == ["hello"]


@pytest.mark.feature("S34")
async def test_regression_06_a_thread_goes_on_where_it_broke_off(server: RunningServer) -> None:
    async with event_stream(server, "/agents/offline/sse?thread_id=t") as events:
        begun = (await anext(events)).id
        await send(server, "offline", "t", "one")
        heard = await anext(events)
    await send(server, "offline", "t", "two")
    for last, expected in ((heard.id, 1), (begun, 2)):
        async with event_stream(server, "/agents/offline/sse?thread_id=t", headers={"Last-Event-ID": last}) as events:
            assert (await anext(events)).event == "connected"
            answers = [await anext(events) for _ in range(expected)]
        assert [one.event for one in answers] == ["message"] * expected
        assert len({one.id for one in answers}) == expected
        assert (heard.id in {one.id for one in answers}) == (last == begun)


@pytest.mark.feature("S34", "S35")
async def test_a_thread_is_one_agents_and_one_owners(server: RunningServer) -> None:
    agent = server.services.registry.get("coder").definition
    await send(server, "offline", "t", "one")
    await send(server, "coder", "t", "two")
    await send(server, str(agent.agent_id), "t", "three")
    _, listed = await ask(server, "GET", "/sessions")
    assert {one["alias"] for one in listed["sessions"]} == {"offline/t", "coder/t"}
    # No other name can be one of a thread, and the thread's own name is free.
    assert (await ask(server, "POST", "/sessions", json={"session_id": "t"}))[0] == 201
    assert (await ask(server, "POST", "/sessions", json={"session_id": "coder/t"}))[0] == 422


@pytest.mark.feature("S35")
async def test_a_message_with_a_key_is_sent_once(server: RunningServer) -> None:
    for _ in range(3):
        await send(server, "offline", "t", "once", headers={"Idempotency-Key": "k"})
    thread = await server.services.sessions.thread("local", "offline", "t")
    assert thread is not None
    history = await server.history(str(thread.session_id))
    assert [one["content"] for one in history if one["role"] == "user"] == ["once"]


@pytest.mark.feature("S35")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "$.thread_id"),
        ({"thread_id": "t"}, "$.message"),
        ({"thread_id": "t", "message": ""}, "$.message"),
        ({"thread_id": "a b", "message": "x"}, "$.thread_id"),
    ],
)
async def test_a_bad_message_is_refused_by_its_field(server: RunningServer, body: Any, path: str) -> None:
    status, problem = await ask(server, "POST", "/agents/offline/messages", json=body)
    assert (status, problem["path"]) == (422, path)
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 0


async def test_an_agent_that_is_not_there_is_not_found(server: RunningServer) -> None:
    assert (await ask(server, "GET", "/agents/nobody/sse?thread_id=t"))[0] == 404
    assert (await ask(server, "POST", "/agents/nobody/messages", json={"thread_id": "t", "message": "x"}))[0] == 404


async def test_a_stream_says_which_thread_it_wants(server: RunningServer) -> None:
    for query in ("", "?thread_id=", "?thread_id=a&thread_id=b", "?thread_id=a%20b"):
        status, problem = await ask(server, "GET", f"/agents/offline/sse{query}")
        assert (status, problem["path"]) == (422, "?thread_id")
    status, problem = await ask(server, "GET", "/agents/offline/sse?thread_id=t", headers={"Last-Event-ID": "x y"})
    assert (status, problem["path"]) == (422, "Last-Event-ID")
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 0


async def test_a_deleted_thread_tells_a_browser_to_stop(server: RunningServer) -> None:
    await send(server, "offline", "t", "x")
    thread = await server.services.sessions.thread("local", "offline", "t")
    assert thread is not None
    await ask(server, "DELETE", f"/sessions/{thread.session_id}")
    path = "/agents/offline/sse?thread_id=t"
    assert (await ask(server, "GET", path))[0] == 410
    assert (await ask(server, "GET", path, headers={"Last-Event-ID": "1"}))[0] == 204


@pytest.mark.feature("S34")
def test_a_heartbeat_comes_every_thirty_seconds() -> None:
    teller = ThreadTeller("a", "t")
    begin = datetime(2026, 1, 1, tzinfo=UTC)

    def beat(seconds: int) -> bytes:
        timestamp = format_timestamp(begin + timedelta(seconds=seconds))
        return b"".join(teller.told([Event("heartbeat", "s", timestamp, payload_json(Heartbeat()))]))

    said = [beat(seconds) for seconds in range(0, 91, 15)]
    assert [bool(one) for one in said] == [True, False, True, False, True, False, True]
    assert said[0].startswith(b"event: heartbeat\ndata: {")
