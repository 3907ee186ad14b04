"""What all these surfaces have in common: one log, one hub, one door."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from server.config import AuthSettings, TokenSettings
from tests.auth.door import ADA, BOB
from tests.compat.support import ask, chunks, event_stream
from tests.support.server import MakeServer, RunningServer

LINES = {"Accept": "application/x-ndjson"}


async def lines(server: RunningServer, path: str, until: str, times: int = 1) -> list[bytes]:
    """The durable events of a stream of lines, as they came, up to the last of so many of a type."""
    found = []
    async with server.client.get(path, headers=LINES) as stream:
        async for line in stream.content:
            event = json.loads(line)
            if "seq" in event:
                found.append(line)
            times -= event["event_type"] == until
            if not times:
                break
    return found


@pytest.mark.feature("S05", "S11", "S12", "S28")
async def test_regression_05_what_one_surface_takes_all_others_tell(server: RunningServer) -> None:
    services = server.services
    project = await services.projects.create("local", name="One", now=services.clock.now(), most=10)
    chat = f"/my/projects/{project.project_id}/chat"
    _, session = await ask(server, "POST", f"{chat}/sessions/", json={"session_id": "mine"})
    # Said in three ways.
    await chunks(server, "mine", {"type": "user_message", "content": "one"})
    await ask(server, "POST", f"{chat}/mine/message/", json={"content": "two"})
    await lines(server, "/sessions/mine/events?after=0", "task_completed", 2)
    await server.command("mine", type="user_message", content="three")
    native = await lines(server, "/sessions/mine/events?after=0", "task_completed", 3)
    # Told in three ways, by the very same bytes.
    for path in (f"{chat}/mine/events/?since=0", f"/my/chat/{session['id']}/events/?since=0"):
        assert await lines(server, path, "task_completed", 3) == native
    _, page = await ask(server, "GET", f"{chat}/sessions/mine/messages/")
    said = [message["content"] for message in page["messages"]]
    assert said == [message["content"] for message in await server.history("mine")]
    assert said[::2] == ["one", "two", "three"]


@pytest.mark.feature("S11", "S12")
async def test_regression_07_streams_that_open_in_the_middle_repeat_and_lose_nothing(server: RunningServer) -> None:
    await ask(server, "POST", "/my/chat/sessions/", json={"session_id": "mine"})
    total = 8

    async def say() -> None:
        for number in range(total):
            await ask(server, "POST", "/my/chat/mine/message/", json={"content": str(number)})

    saying = asyncio.create_task(say())
    streams = [lines(server, "/my/chat/mine/events/?since=0", "task_completed", total) for _ in range(6)]
    heard = await asyncio.gather(*streams)
    await saying
    for events in heard:
        assert [json.loads(event)["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events == heard[0]


@pytest.mark.feature("S13", "S17")
async def test_regression_02_messages_are_in_the_database_whatever_became_of_the_stream(server: RunningServer) -> None:
    body = {"session_id": "mine", "message": {"type": "user_message", "content": "hello"}}
    async with server.client.post("/agent/message/stream", json=body) as stream:
        assert stream.status == 200
    _, session = await ask(server, "GET", "/sessions/mine")
    await lines(server, "/sessions/mine/events?after=0", "task_completed")
    async with server.services.db.pool.acquire() as connection:
        found = await connection.fetch(
            "SELECT role FROM messages WHERE session_id = $1::uuid ORDER BY seq", session["id"]
        )
    assert [row["role"] for row in found] == ["user", "assistant"]


async def test_regression_26_a_deleted_session_takes_nothing(server: RunningServer) -> None:
    await ask(server, "POST", "/my/chat/sessions/", json={"session_id": "mine"})
    await ask(server, "DELETE", "/my/chat/sessions/mine")
    for path, body in (
        ("/my/chat/mine/message/", {"content": "x"}),
        ("/agent/message/stream", {"session_id": "mine", "message": {"type": "user_message", "content": "x"}}),
        ("/agent/message/stream", {"session_id": "mine", "message": {"type": "tool_result", "call_id": "c"}}),
    ):
        status, problem = await ask(server, "POST", path, json=body)
        assert (status, problem["code"]) == (410, "session_gone")


@pytest.mark.feature("S37")
async def test_regression_20_what_is_somebody_elses_is_not_there(make_server: MakeServer) -> None:
    reader = "a-token-that-is-good-for-reading-only"
    entries = (
        TokenSettings(user="ada", token=ADA),
        TokenSettings(user="bob", token=BOB),
        TokenSettings(user="ada", token=reader, scope="read"),
    )
    server = await make_server(auth=AuthSettings(tokens=entries))
    ada, bob, reads = ({"headers": {"Authorization": f"Bearer {token}"}} for token in (ADA, BOB, reader))
    _, session = await ask(server, "POST", "/my/chat/sessions/", json={"session_id": "mine"}, **ada)
    requests: list[tuple[str, str, Any]] = [
        ("GET", f"/my/chat/sessions/{session['id']}/messages/", None),
        ("GET", f"/my/chat/{session['id']}/events/", None),
        ("POST", f"/my/chat/{session['id']}/message/", {"content": "x"}),
        ("DELETE", f"/my/chat/sessions/{session['id']}", None),
        (
            "POST",
            "/agent/message/stream",
            {"session_id": session["id"], "message": {"type": "tool_result", "call_id": "c"}},
        ),
    ]
    for method, path, body in requests:
        assert (await ask(server, method, path, json=body, **bob))[0] == 404
        assert (await ask(server, method, path, json=body))[0] == 401
    assert (await ask(server, "GET", "/my/chat/stats/", **bob))[1]["sessions"] == 0
    # A thread of the same name is another one.
    said = {"thread_id": "t", "message": "hello"}
    for who in (ada, bob):
        assert (await ask(server, "POST", "/agents/offline/messages", json=said, **who))[0] == 200
    assert (await ask(server, "GET", "/my/chat/sessions/", **bob))[1]["total"] == 1
    # A token for reading hears threads that there are, and makes none.
    assert (await ask(server, "POST", "/agents/offline/messages", json=said, **reads))[0] == 403
    assert (await ask(server, "GET", "/agents/offline/sse?thread_id=other", **reads))[0] == 403
    async with event_stream(server, "/agents/offline/sse?thread_id=t", **reads) as events:
        assert (await anext(events)).event == "connected"


async def test_where_no_stream_can_be_had_nothing_is_done(server: RunningServer) -> None:
    await server.create_session(session_id="mine")
    await server.services.hub.close()
    body = {"session_id": "mine", "message": {"type": "user_message", "content": "hello"}}
    status, problem = await ask(server, "POST", "/agent/message/stream", json=body)
    assert (status, problem["code"]) == (503, "shutdown")
    assert await server.history("mine") == []
