"""The agent that acts in a session: read, and switched."""

from __future__ import annotations

import pytest

from protocol.ids import parse_timestamp
from tests.rest.scene import AS_ADA, AS_BOB, events, office, say, shared_office
from tests.rest.test_sessions import ask, refused
from tests.support.server import MakeServer


@pytest.mark.feature("S19")
async def test_the_agents_are_listed_in_the_expected_shape(make_server: MakeServer) -> None:
    server = await office(make_server)
    status, listed = await ask(server, "GET", "/agents")
    assert (status, set(listed), listed["total"]) == (200, {"agents", "total"}, 2)
    for one in listed["agents"]:
        assert set(one) >= {"type", "name", "description", "allowed_tools", "has_file_restrictions"}
    assert listed["agents"][0]["allowed_tools"] == ["look", "burn"]


@pytest.mark.feature("S19")
async def test_the_acting_agent_is_read_and_switched_with_its_history(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    status, read = await ask(server, "GET", f"/agents/{session}/current?include_history=true")
    assert status == 200
    context = read["context"]
    assert context == {
        "id": session,
        "session_id": session,
        "current_agent": "clerk",
        "switch_count": 0,
        "switch_history": [],
        "last_switch_at": None,
        "created_at": (await ask(server, "GET", f"/sessions/{session}"))[1]["created_at"],
    }
    body = {"target_agent": "porter", "reason": "heavy", "confidence": 0.75}
    status, switched = await ask(server, "POST", f"/agents/{session}/switch", json=body)
    assert status == 200
    context = switched["context"]
    assert (context["current_agent"], context["switch_count"]) == ("porter", 1)
    [switch] = context["switch_history"]
    assert parse_timestamp(switch["switched_at"]) == parse_timestamp(context["last_switch_at"])
    assert switch | {"switched_at": 0} == {
        "from_agent": "clerk",
        "to_agent": "porter",
        "reason": "heavy",
        "switched_at": 0,
        "confidence": 0.75,
    }
    assert (await ask(server, "GET", f"/agents/{session}/current?include_history"))[1] == switched
    short = (await ask(server, "GET", f"/agents/{session}/current"))[1]["context"]
    assert short == context | {"switch_history": []}
    [(event_type, payload)] = await events(server, session)
    assert (event_type, payload["to_agent"], payload["confidence"]) == ("agent_switched", "porter", 0.75)
    await say(server, session, "box")
    assert (await server.history(session))[-1]["content"] == "porter heard box"


@pytest.mark.feature("S19", "S28")
async def test_a_switch_is_a_command_with_the_requests_key_for_its_id(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    key = {"Idempotency-Key": "switch-1"}
    address, porter, clerk = f"/agents/{session}/switch", {"target_agent": "porter"}, {"target_agent": "clerk"}
    first = await ask(server, "POST", address, json=porter, headers=key)
    assert first[0] == 200
    assert await ask(server, "POST", address, json=porter, headers=key) == first
    assert await refused(server, "POST", address, json=clerk, headers=key) == (409, "conflict", "$.id")
    # Over another route it is the same command.
    assert (await server.command(session, id="switch-1", type="switch_agent", agent_type="porter"))[0] == 200
    assert len(await events(server, session)) == 1
    for bad in ("no spaces", "", "x" * 129):
        expected = (422, "invalid", "Idempotency-Key")
        assert await refused(server, "POST", address, json=clerk, headers={"Idempotency-Key": bad}) == expected


@pytest.mark.feature("S19")
async def test_what_cannot_be_switched_to_is_refused(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    address = f"/agents/{session}/switch"
    for body, expected in (
        ({"target_agent": "nobody", "reason": "x"}, (400, "unknown_agent", "$.target_agent")),
        ({"reason": "x"}, (422, "invalid", "$.target_agent")),
        ({"target_agent": "porter", "confidence": 1.5}, (422, "invalid", "$.confidence")),
        ({"target_agent": "porter", "sure": True}, (422, "invalid", "$.sure")),
    ):
        assert await refused(server, "POST", address, json=body) == expected
    for method, path in (("GET", "current"), ("POST", "switch")):
        for name in ("nobody", "a%20b"):
            options = {"json": {"target_agent": "porter"}} if method == "POST" else {}
            assert (await refused(server, method, f"/agents/{name}/{path}", **options))[:2] == (404, "not_found")
    assert await events(server, session) == []


@pytest.mark.feature("S37")
async def test_regression_20_agents_of_others_sessions_are_out_of_reach(make_server: MakeServer) -> None:
    server = await shared_office(make_server)
    _, made = await ask(server, "POST", "/sessions", json={}, **AS_ADA)
    address = f"/agents/{made['id']}"
    assert (await refused(server, "GET", f"{address}/current", **AS_BOB))[0] == 404
    assert (await refused(server, "POST", f"{address}/switch", json={"target_agent": "porter"}, **AS_BOB))[0] == 404
    assert (await ask(server, "GET", f"{address}/current", **AS_ADA))[1]["context"]["switch_count"] == 0
