"""Projects and their agents; and a user's own worker space."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import pytest

from protocol.ids import parse_timestamp
from server.agents.interface import AgentContext, AgentYield, agent
from server.turns.limits import LimitSettings
from tests.rest.scene import AS_ADA, AS_BOB, TWO_USERS, office, say, shared_office, until
from tests.rest.test_sessions import ask, refused
from tests.support.server import MakeServer, RunningServer

SCRIBE: dict[str, Any] = {
    "type": "scribe",
    "name": "The Scribe",
    "description": "Writes down.",
    "prompt": "You write.",
    "tools": ["look", "write_file"],
    "file_patterns": ["*.md"],
}


async def made(server: RunningServer, path: str, **body: Any) -> dict[str, Any]:
    status, found = await ask(server, "POST", path, json=body)
    assert status == 201, found
    return dict(found)


@pytest.mark.feature("S11")
async def test_projects_are_made_read_changed_and_deleted(make_server: MakeServer) -> None:
    server = await office(make_server)
    async with server.client.post("/projects", json={"name": "Archive", "project_id": "archive"}) as response:
        project = await response.json()
        assert response.status == 201
        assert response.headers["Location"] == f"/projects/{project['id']}"
    assert UUID(project["id"]).version == 7
    assert parse_timestamp(project["created_at"]) == parse_timestamp(project["updated_at"])
    assert project | {"id": 0, "created_at": 0, "updated_at": 0} == {
        "id": 0,
        "alias": "archive",
        "name": "Archive",
        "description": None,
        "created_at": 0,
        "updated_at": 0,
    }
    for name in (project["id"], "archive"):
        assert await ask(server, "GET", f"/projects/{name}") == (200, project)
    status, changed = await ask(server, "PATCH", "/projects/archive", json={"description": "Old things"})
    assert (status, changed["name"], changed["description"]) == (200, "Archive", "Old things")
    assert parse_timestamp(changed["updated_at"]) > parse_timestamp(project["updated_at"])
    assert (await ask(server, "PATCH", "/projects/archive", json={}))[1] == changed
    assert (await ask(server, "PATCH", "/projects/archive", json={"description": ""}))[1]["description"] is None
    again = {"name": "Other", "project_id": "archive"}
    assert await refused(server, "POST", "/projects", json=again) == (409, "conflict", "$.project_id")
    for body, path in (({}, "$.name"), ({"name": ""}, "$.name"), ({"name": "x", "project_id": "a b"}, "$.project_id")):
        assert await refused(server, "POST", "/projects", json=body) == (422, "invalid", path)
    assert await ask(server, "DELETE", "/projects/archive") == (204, "")
    for name in (project["id"], "archive", "nobody", str(uuid4()), "a%20b"):
        for method in ("GET", "PATCH", "DELETE"):
            assert (await refused(server, method, f"/projects/{name}"))[:2] == (404, "not_found")
    # The name is free again.
    assert (await ask(server, "POST", "/projects", json=again))[0] == 201


@pytest.mark.feature("S11")
async def test_regression_24_projects_come_page_by_page_with_their_total(make_server: MakeServer) -> None:
    server = await office(make_server, limits=LimitSettings(projects=3))
    assert (await ask(server, "GET", "/projects"))[1] == {"projects": [], "total": 0, "next": None}
    names = [(await made(server, "/projects", name=name))["name"] for name in ("a", "b", "c")]
    assert (await refused(server, "POST", "/projects", json={"name": "d"}))[:2] == (429, "limit_reached")
    _, first = await ask(server, "GET", "/projects?limit=2")
    _, second = await ask(server, "GET", f"/projects?limit=2&after={first['next']}")
    assert [project["name"] for page in (first, second) for project in page["projects"]] == names
    assert (first["total"], second["total"], second["next"]) == (3, 3, None)


@pytest.mark.feature("S11", "S20")
async def test_sessions_of_a_project_are_listed_by_it(make_server: MakeServer) -> None:
    server = await office(make_server)
    project = await made(server, "/projects", name="Archive", project_id="archive")
    inside = [await server.create_session(project_id=name, title="old") for name in ("archive", project["id"])]
    await server.create_session(title="old")
    for query in ("project_id=archive", f"project_id={project['id']}", "project_id=archive&q=old"):
        _, listed = await ask(server, "GET", f"/sessions?{query}")
        assert [one["id"] for one in listed["sessions"]] == inside[::-1]
        assert listed["total"] == 2
        assert {one["project_id"] for one in listed["sessions"]} == {project["id"]}
    assert (await ask(server, "GET", "/sessions?project_id=archive&offset=5"))[1]["total"] == 2
    assert (await ask(server, "GET", "/sessions?q=old"))[1]["total"] == 3
    nobody = {"project_id": "nobody"}
    assert await refused(server, "POST", "/sessions", json=nobody) == (404, "not_found", "$.project_id")
    assert await refused(server, "GET", "/sessions?project_id=nobody") == (404, "not_found", "?project_id")
    # Its sessions outlive it.
    await ask(server, "DELETE", "/projects/archive")
    assert (await ask(server, "GET", f"/sessions/{inside[0]}"))[1]["project_id"] is None
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 3


@pytest.mark.feature("S33")
async def test_agents_of_a_project_are_made_read_changed_and_deleted(make_server: MakeServer) -> None:
    server = await office(make_server, limits=LimitSettings(agents=1, models=("small",)))
    await made(server, "/projects", name="Archive", project_id="archive")
    address = "/projects/archive/agents"
    assert (await ask(server, "GET", address))[1] == {"agents": [], "total": 0}
    scribe = await made(server, address, **SCRIBE)
    assert scribe | {"agent_id": 0, "created_at": 0, "updated_at": 0} == SCRIBE | {
        "agent_id": 0,
        "model": None,
        "created_at": 0,
        "updated_at": 0,
    }
    assert (await ask(server, "GET", address))[1] == {"agents": [scribe], "total": 1}
    for name in ("scribe", scribe["agent_id"]):
        assert await ask(server, "GET", f"{address}/{name}") == (200, scribe)
    assert (await refused(server, "POST", address, json=SCRIBE))[:2] in ((409, "conflict"), (429, "limit_reached"))
    body = {name: value for name, value in SCRIBE.items() if name != "type"} | {"model": "small", "tools": ["*"]}
    status, changed = await ask(server, "PUT", f"{address}/scribe", json=body)
    assert status == 200
    assert changed == scribe | {"model": "small", "tools": ["*"], "updated_at": changed["updated_at"]}
    for bad, code, path in (
        ({"type": "clerk"}, "conflict", "$.type"),
        ({"type": "a b"}, "invalid", "$.type"),
        ({"type": str(uuid4())}, "invalid", "$.type"),
        ({"name": ""}, "invalid", "$.name"),
        ({"tools": ["look*"]}, "invalid", "$.tools[0]"),
        ({"model": "huge"}, "invalid", "$.model"),
        ({"rights": "all"}, "invalid", "$.rights"),
    ):
        assert (await refused(server, "POST", address, json=SCRIBE | bad))[1:] == (code, path)
    assert (await refused(server, "POST", address, json=SCRIBE | {"type": "other"}))[:2] == (429, "limit_reached")
    assert await ask(server, "DELETE", f"{address}/scribe") == (204, "")
    for method in ("GET", "PUT", "DELETE"):
        assert (await refused(server, method, f"{address}/scribe", json=body))[:2] == (404, "not_found")


@pytest.mark.feature("S33", "S19")
async def test_an_agent_of_a_project_acts_in_its_sessions_and_nowhere_else(make_server: MakeServer) -> None:
    server = await office(make_server)
    await made(server, "/projects", name="Archive", project_id="archive")
    scribe = await made(server, "/projects/archive/agents", **SCRIBE)
    session = await server.create_session(project_id="archive", agent_type="scribe")
    assert (await ask(server, "GET", f"/sessions/{session}"))[1]["current_agent"] == "scribe"
    await say(server, session, "hello")
    answer = (await server.history(session))[-1]
    assert (answer["role"], answer["agent_type"], answer["finish_reason"]) == ("assistant", "scribe", "stop")
    # By its type or its id, as any other; configured ones are there as well.
    for name, acting in (("clerk", "clerk"), (scribe["agent_id"], "scribe")):
        status, switched = await ask(server, "POST", f"/agents/{session}/switch", json={"target_agent": name})
        assert (status, switched["context"]["current_agent"]) == (200, acting)
    for query in (f"session_id={session}", "project_id=archive"):
        _, listed = await ask(server, "GET", f"/agents?{query}")
        assert [one["type"] for one in listed["agents"]] == ["clerk", "porter", "scribe"]
        assert "prompt" not in listed["agents"][2]
    assert (await ask(server, "GET", "/agents"))[1]["total"] == 2
    for query in ("session_id=nobody", "project_id=nobody"):
        assert (await refused(server, "GET", f"/agents?{query}"))[:2] == (404, "not_found")
    outside = await server.create_session()
    unknown = (400, "unknown_agent", "$.target_agent")
    for name in ("scribe", scribe["agent_id"]):
        assert await refused(server, "POST", f"/agents/{outside}/switch", json={"target_agent": name}) == unknown
    assert (await refused(server, "POST", "/sessions", json={"agent_type": "scribe"}))[:2] == (422, "unknown_agent")
    # What is taken away answers no more, and says so.
    await ask(server, "DELETE", "/projects/archive/agents/scribe")
    status, problem = await server.command(session, type="user_message", content="still there?")
    assert (status, problem["code"]) == (422, "unknown_agent")


@pytest.mark.feature("S37")
async def test_regression_20_projects_of_others_do_not_exist(make_server: MakeServer) -> None:
    server = await shared_office(make_server)
    body = {"json": {"name": "Archive", "project_id": "archive"}}
    _, project = await ask(server, "POST", "/projects", **body, **AS_ADA)
    await ask(server, "POST", "/projects/archive/agents", json=SCRIBE, **AS_ADA)
    for name in (project["id"], "archive"):
        for method, path in (
            ("GET", ""),
            ("PATCH", ""),
            ("DELETE", ""),
            ("GET", "/agents"),
            ("POST", "/agents"),
            ("GET", "/agents/scribe"),
            ("PUT", "/agents/scribe"),
            ("DELETE", "/agents/scribe"),
        ):
            address = f"/projects/{name}{path}"
            assert (await refused(server, method, address, **AS_BOB))[:2] == (404, "not_found")
            assert (await refused(server, method, address))[:2] == (401, "unauthorized")
        found = await refused(server, "POST", "/sessions", json={"project_id": name}, **AS_BOB)
        assert found == (404, "not_found", "$.project_id")
        assert (await refused(server, "GET", f"/sessions?project_id={name}", **AS_BOB))[0] == 404
    assert (await ask(server, "GET", "/projects", **AS_BOB))[1]["total"] == 0
    assert (await ask(server, "GET", "/projects/archive/agents", **AS_ADA))[1]["total"] == 1
    assert (await ask(server, "POST", "/projects", **body, **AS_BOB))[0] == 201


@pytest.mark.feature("S33")
async def test_each_user_has_a_space_in_which_so_many_turns_run(make_server: MakeServer) -> None:
    release = asyncio.Event()

    @agent(type="sleeper", description="Waits to be woken.")
    async def sleeper(_context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        await release.wait()
        yield "awake"

    server = await make_server(sleeper, limits=LimitSettings(turns=2), auth=TWO_USERS)

    async def begin(user: dict[str, Any]) -> str:
        _, session = await ask(server, "POST", "/sessions", json={}, **user)
        command = {"id": "1", "type": "user_message", "content": "hello"}
        assert (await ask(server, "POST", f"/sessions/{session['id']}/commands", json=command, **user))[0] == 200
        return str(session["id"])

    _, before = await ask(server, "GET", "/spaces/me", **AS_ADA)
    assert before == {
        "user_id": "ada",
        "limits": {"turns": 2, "tools": 64, "sessions": 10_000, "projects": 1_000, "agents": 100},
        "running": 0,
        "waiting": 0,
        "tools_running": 0,
        "sessions": 0,
        "projects": 0,
        "counts": {"begun": 0, "waited": 0, "ended": 0, "since": None},
    }
    sessions = [await begin(AS_ADA) for _ in range(4)]
    other = await begin(AS_BOB)
    _, hers = await ask(server, "GET", "/spaces/me", **AS_ADA)
    assert (hers["running"], hers["waiting"], hers["sessions"]) == (2, 2, 4)
    assert hers["counts"] == {"begun": 2, "waited": 2, "ended": 0, "since": hers["counts"]["since"]}
    # What she runs is nothing to him.
    _, his = await ask(server, "GET", "/spaces/me", **AS_BOB)
    assert (his["user_id"], his["running"], his["waiting"]) == ("bob", 1, 0)
    release.set()
    for session in sessions:
        await until(server, session, "task_completed", **AS_ADA)
    await until(server, other, "task_completed", **AS_BOB)
    assert (await refused(server, "GET", "/spaces/me"))[:2] == (401, "unauthorized")
