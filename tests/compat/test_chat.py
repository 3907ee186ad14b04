from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from aiohttp import ClientResponse

from protocol.ids import format_timestamp, parse_timestamp
from tests.compat.support import ask, event_stream
from tests.support.server import RunningServer

Event = dict[str, Any]


@asynccontextmanager
async def lines(server: RunningServer, path: str, **options: Any) -> AsyncIterator[AsyncIterator[Event]]:
    async with server.client.get(path, **options) as stream:
        assert stream.status == 200, await stream.text()
        assert stream.content_type == "application/x-ndjson"
        yield _lines(stream)


async def _lines(stream: ClientResponse) -> AsyncIterator[Event]:
    async for line in stream.content:
        yield json.loads(line)


async def until(events: AsyncIterator[Event], event_type: str, times: int = 1) -> list[Event]:
    """The events up to and with the last of these."""
    found = []
    async for event in events:
        found.append(event)
        times -= event["event_type"] == event_type
        if not times:
            break
    return found


@pytest.fixture(params=["project", "alone"])
async def prefix(request: pytest.FixtureRequest, server: RunningServer) -> str:
    """The beginning of the paths, in a project and without."""
    if request.param == "alone":
        return "/my/chat"
    services = server.services
    project = await services.projects.create("local", name="One", now=services.clock.now(), most=10)
    return f"/my/projects/{project.project_id}/chat"


@pytest.mark.feature("S11", "S10", "S08")
async def test_a_message_is_posted_and_both_messages_are_streamed(server: RunningServer, prefix: str) -> None:
    status, session = await ask(server, "POST", f"{prefix}/sessions/", json={"title": "Ideas"})
    assert status == 201
    assert (session["title"], session["message_count"]) == ("Ideas", 0)
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/x-ndjson"}):
        async with lines(server, f"{prefix}/{session['id']}/events/", headers=headers) as events:
            assert (await anext(events))["event_type"] == "connected"
            status, posted = await ask(server, "POST", f"{prefix}/{session['id']}/message/", json={"content": "hello"})
            assert status == 200
            assert set(posted) == {"id", "role", "content", "agent_id", "timestamp"}
            assert (posted["role"], posted["content"]) == ("user", "hello")
            heard = await until(events, "task_completed")
        messages = [one for one in heard if one["event_type"] == "message_created"]
        assert [one["payload"]["role"] for one in messages] == ["user", "assistant"]
        user, answer = messages
        assert (user["payload"]["message_id"], user["timestamp"]) == (posted["id"], posted["timestamp"])
        assert user["session_id"] == session["id"]
        assert answer["payload"]["agent_id"] == posted["agent_id"]
        assert {"task_started", "task_completed"} <= {one["event_type"] for one in heard}


@pytest.mark.feature("S11", "S31")
async def test_events_come_as_an_event_stream_to_those_who_ask(server: RunningServer, prefix: str) -> None:
    _, session = await ask(server, "POST", f"{prefix}/sessions/")
    headers = {"Accept": "text/event-stream"}
    async with event_stream(server, f"{prefix}/{session['id']}/events/", headers=headers) as events:
        assert (await anext(events)).event == "connected"
        await ask(server, "POST", f"{prefix}/{session['id']}/message/", json={"content": "hello"})
        names = [(await anext(events)).event for _ in range(3)]
    assert "message_created" in names


@pytest.mark.feature("S11")
async def test_sessions_are_listed_and_deleted_and_messages_read(server: RunningServer, prefix: str) -> None:
    made = [(await ask(server, "POST", f"{prefix}/sessions/", json={"session_id": name}))[1] for name in "abc"]
    _, listed = await ask(server, "GET", f"{prefix}/sessions/?limit=2")
    assert [one["alias"] for one in listed["sessions"]] == ["c", "b"]
    assert (listed["total"], listed["limit"], listed["offset"]) == (3, 2, 0)
    assert listed["sessions"][0] == made[2]
    session = made[0]["id"]
    async with lines(server, f"{prefix}/{session}/events/") as events:
        for number in range(3):
            await ask(server, "POST", f"{prefix}/{session}/message/", json={"content": f"message {number}"})
        await until(events, "task_completed", 3)
    _, whole = await ask(server, "GET", f"{prefix}/sessions/{session}/messages/")
    assert (whole["total"], whole["limit"], whole["offset"]) == (6, 50, 0)
    assert [one["role"] for one in whole["messages"]] == ["user", "assistant"] * 3
    assert all(set(one) == {"id", "role", "content", "agent_id", "timestamp"} for one in whole["messages"])
    offline = str(server.services.registry.get("offline").definition.agent_id)
    assert [one["agent_id"] for one in whole["messages"]] == [None, offline] * 3
    _, page = await ask(server, "GET", f"{prefix}/sessions/{session}/messages/?limit=2&offset=3")
    assert (page["messages"], page["total"]) == (whole["messages"][3:5], 6)
    _, beyond = await ask(server, "GET", f"{prefix}/sessions/{session}/messages/?offset=99")
    assert (beyond["messages"], beyond["total"]) == ([], 6)
    assert await ask(server, "DELETE", f"{prefix}/sessions/{session}") == (204, "")
    assert (await ask(server, "GET", f"{prefix}/sessions/{session}/messages/"))[0] == 410
    assert (await ask(server, "GET", f"{prefix}/sessions/"))[1]["total"] == 2


@pytest.mark.feature("S11")
async def test_a_message_may_be_for_another_agent(server: RunningServer, prefix: str) -> None:
    _, session = await ask(server, "POST", f"{prefix}/sessions/")
    coder = server.services.registry.get("coder").definition
    body = {"content": "hello", "target_agent": str(coder.agent_id)}
    async with lines(server, f"{prefix}/{session['id']}/events/") as events:
        status, posted = await ask(server, "POST", f"{prefix}/{session['id']}/message/", json=body)
        assert (status, posted["agent_id"]) == (200, str(coder.agent_id))
        heard = await until(events, "task_completed")
    assert "direct_agent_call" in {one["event_type"] for one in heard}
    assert [one["payload"]["agent_type"] for one in heard if one["event_type"] == "task_started"] == ["coder"]
    body["target_agent"] = "nobody"
    status, problem = await ask(server, "POST", f"{prefix}/{session['id']}/message/", json=body)
    assert (status, problem["code"], problem["path"]) == (422, "unknown_agent", "$.target_agent")


@pytest.mark.feature("S11")
async def test_a_message_with_a_key_is_posted_once_and_answered_the_same(server: RunningServer, prefix: str) -> None:
    _, session = await ask(server, "POST", f"{prefix}/sessions/")
    answers = [
        await ask(
            server,
            "POST",
            f"{prefix}/{session['id']}/message/",
            json={"content": "hello"},
            headers={"Idempotency-Key": "k"},
        )
        for _ in range(3)
    ]
    assert answers[0][0] == 200
    assert answers == [answers[0]] * 3


@pytest.mark.feature("S11")
async def test_regression_06_events_begin_after_a_time_or_a_cursor(server: RunningServer, prefix: str) -> None:
    _, session = await ask(server, "POST", f"{prefix}/sessions/")
    path = f"{prefix}/{session['id']}/events/"
    async with lines(server, path) as events:
        await ask(server, "POST", f"{prefix}/{session['id']}/message/", json={"content": "one"})
        heard = [one for one in await until(events, "task_completed") if "seq" in one]
    for given in (event["cursor"] for event in heard):
        async with lines(server, f"{path}?since={given}") as events:
            replayed = [one["seq"] for one in await until(events, "sync") if "seq" in one]
        assert replayed == [
            one["seq"] for one in heard if one["cursor"] > given or one["seq"] > int(given.split(".")[1])
        ]
    for moment in {event["timestamp"] for event in heard}:
        later = [one["seq"] for one in heard if one["timestamp"] > moment]
        shifted = parse_timestamp(moment).isoformat()
        for given in (moment, quote(shifted), shifted):
            async with lines(server, f"{path}?since={given}") as events:
                assert [one["seq"] for one in await until(events, "sync") if "seq" in one] == later
    before = format_timestamp(parse_timestamp(heard[0]["timestamp"]) - timedelta(days=1))
    async with lines(server, f"{path}?since={before}") as events:
        assert [one["seq"] for one in await until(events, "sync") if "seq" in one] == [one["seq"] for one in heard]


@pytest.mark.feature("S11")
async def test_bad_input_is_refused_by_name(server: RunningServer, prefix: str) -> None:
    _, session = await ask(server, "POST", f"{prefix}/sessions/", json={"session_id": "mine"})
    wrong: list[tuple[str, str, Any, int, str | None]] = [
        ("POST", "/sessions/", {"session_id": "mine"}, 409, "$.session_id"),
        ("POST", "/sessions/", {"session_id": "a b"}, 422, "$.session_id"),
        ("POST", f"/{session['id']}/message/", {}, 422, "$.content"),
        ("POST", f"/{session['id']}/message/", {"content": ""}, 422, "$.content"),
        ("GET", "/sessions/?limit=0", None, 422, "?limit"),
        ("GET", "/sessions/mine/messages/?limit=x", None, 422, "?limit"),
        ("GET", "/mine/events/?since=yesterday", None, 422, "?since"),
        ("GET", "/mine/events/?since=2026-01-01T00:00:00", None, 422, "?since"),
        ("GET", f"/{uuid4()}/events/", None, 404, None),
        ("GET", "/sessions/nobody/messages/", None, 404, None),
        ("DELETE", "/sessions/nobody", None, 404, None),
        ("POST", "/nobody/message/", {"content": "x"}, 404, None),
    ]
    for method, path, body, expected, field in wrong:
        status, problem = await ask(server, method, prefix + path, json=body)
        assert (status, problem.get("path")) == (expected, field), (method, path)


@pytest.mark.feature("S11")
async def test_a_session_is_in_its_own_project_only(server: RunningServer) -> None:
    services = server.services
    one, two = [
        await services.projects.create("local", name=name, now=services.clock.now(), most=10) for name in ("One", "Two")
    ]
    _, session = await ask(server, "POST", f"/my/projects/{one.project_id}/chat/sessions/")
    assert UUID(session["project_id"]) == one.project_id
    other = f"/my/projects/{two.project_id}/chat"
    for method, path in (
        ("GET", f"/sessions/{session['id']}/messages/"),
        ("GET", f"/{session['id']}/events/"),
        ("POST", f"/{session['id']}/message/"),
        ("DELETE", f"/sessions/{session['id']}"),
    ):
        body = {"content": "x"} if method == "POST" else None
        assert (await ask(server, method, other + path, json=body))[0] == 404
        assert (await ask(server, method, f"/my/projects/{uuid4()}/chat{path}", json=body))[0] == 404
    assert (await ask(server, "GET", f"{other}/sessions/"))[1]["total"] == 0
    # Without a project all are there.
    assert (await ask(server, "GET", "/my/chat/sessions/"))[1]["total"] == 1


@pytest.mark.feature("S11", "S32")
async def test_statistics_count_what_is_mine_and_the_streams(server: RunningServer) -> None:
    _, empty = await ask(server, "GET", "/my/chat/stats/")
    assert (empty["sessions"], empty["messages"], empty["last_activity"]) == (0, 0, None)
    _, session = await ask(server, "POST", "/my/chat/sessions/")
    async with lines(server, f"/my/chat/{session['id']}/events/") as events:
        await ask(server, "POST", f"/my/chat/{session['id']}/message/", json={"content": "x"})
        await until(events, "task_completed")
        _, stats = await ask(server, "GET", "/my/chat/stats/")
    assert (stats["sessions"], stats["messages"], stats["running_turns"], stats["waiting_messages"]) == (1, 2, 0, 0)
    assert (stats["streams"]["connections"], stats["streams"]["sessions_with_subscribers"]) == (1, 1)
    assert stats["streams"]["events_sent"] > 0


async def test_a_deleted_session_tells_a_browser_to_stop(server: RunningServer, prefix: str) -> None:
    _, session = await ask(server, "POST", f"{prefix}/sessions/")
    await ask(server, "DELETE", f"{prefix}/sessions/{session['id']}")
    path = f"{prefix}/{session['id']}/events/"
    assert (await ask(server, "GET", path))[0] == 410
    assert (await ask(server, "GET", path, headers={"Last-Event-ID": "1"}))[0] == 204
