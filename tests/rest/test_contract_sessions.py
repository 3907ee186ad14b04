"""Sessions in the expected shapes; renamed, with news for whoever is connected."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.ids import parse_timestamp
from server.turns.limits import LimitSettings
from tests.rest.scene import events, office, say
from tests.rest.test_sessions import ask, refused
from tests.support.server import MakeServer, RunningServer


@pytest.mark.feature("S18")
async def test_health_has_the_expected_shape(server: RunningServer) -> None:
    status, health = await ask(server, "GET", "/health")
    assert (status, set(health)) == (200, {"status", "service", "version"})


@pytest.mark.feature("S20", "S21")
async def test_sessions_have_the_expected_shapes(make_server: MakeServer) -> None:
    server = await office(make_server)
    status, made = await ask(server, "POST", "/sessions", json={"session_id": "desk"})
    assert status == 201
    assert set(made) >= {"id", "message_count", "created_at", "is_active", "current_agent"}
    assert (await ask(server, "POST", "/sessions", json={"session_id": "desk"}))[0] == 409
    await say(server, "desk", "look")
    _, listed = await ask(server, "GET", "/sessions?limit=100&offset=0&active_only=true")
    assert set(listed) == {"sessions", "total", "limit", "offset"}
    [one] = listed["sessions"]
    assert set(one) >= {"id", "title", "message_count", "last_activity", "is_active", "current_agent"}
    _, read = await ask(server, "GET", "/sessions/desk?include_messages=true")
    assert set(read) >= {*one, "description", "duration_seconds", "messages"}
    _, history = await ask(server, "GET", "/sessions/desk/history")
    expected = {"session_id", "messages", "message_count", "last_activity", "current_agent", "agent_history"}
    assert set(history) >= expected
    asked, called, result, answer = history["messages"]
    assert (asked["role"], asked["content"]) == ("user", "look")
    assert set(called["tool_calls"][0]) == {"call_id", "name", "arguments"}
    assert (result["role"], result["name"]) == ("tool", "look")
    assert result["tool_call_id"] == called["tool_calls"][0]["call_id"]
    assert answer["content"] == "done: seen here"
    assert history["message_count"] == 4
    assert [span["agent_type"] for span in history["agent_history"]] == ["clerk"]
    assert parse_timestamp(history["last_activity"])


@pytest.mark.feature("S20")
async def test_a_session_is_renamed_and_its_clients_are_told(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    updated: dict[str, Any] = {}
    changes: tuple[dict[str, Any], ...] = (
        {"title": "Letters"},
        {"description": "All of them"},
        {"title": "Letters", "description": ""},
    )
    for change in changes:
        status, updated = await ask(server, "PATCH", f"/sessions/{session}", json=change)
        assert status == 200
        assert updated == (await ask(server, "GET", f"/sessions/{session}"))[1]
    assert (updated["title"], updated["description"]) == ("Letters", None)
    # What stays as it is, is no news.
    for same in ({}, {"title": "Letters"}, {"description": ""}):
        assert (await ask(server, "PATCH", f"/sessions/{session}", json=same)) == (200, updated)
    assert await events(server, session) == [
        ("session_updated", {"title": "Letters"}),
        ("session_updated", {"description": "All of them"}),
        ("session_updated", {"description": ""}),
    ]
    # A title that somebody chose is not replaced by the first message's.
    await say(server, session, "hello")
    assert (await ask(server, "GET", f"/sessions/{session}"))[1]["title"] == "Letters"
    for bad, path in (
        ({"title": ""}, "$.title"),
        ({"title": None, "x": 1}, "$.x"),
        ({"description": 7}, "$.description"),
    ):
        assert await refused(server, "PATCH", f"/sessions/{session}", json=bad) == (422, "invalid", path)
    assert (await refused(server, "PATCH", "/sessions/nobody", json={"title": "x"}))[:2] == (404, "not_found")
    await ask(server, "DELETE", f"/sessions/{session}")
    assert (await refused(server, "PATCH", f"/sessions/{session}", json={"title": "x"}))[:2] == (410, "session_gone")


@pytest.mark.feature("S33")
async def test_a_user_has_so_many_sessions_and_no_more(make_server: MakeServer) -> None:
    server = await office(make_server, limits=LimitSettings(sessions=2))
    first, _ = [await server.create_session() for _ in range(2)]
    assert (await refused(server, "POST", "/sessions"))[:2] == (429, "limit_reached")
    assert (await refused(server, "POST", f"/sessions/{first}/fork"))[:2] == (429, "limit_reached")
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 2
    await ask(server, "DELETE", f"/sessions/{first}")
    assert (await ask(server, "POST", "/sessions"))[0] == 201
