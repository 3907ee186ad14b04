"""Health, readiness, agents, statistics, and what all answers have in common."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import ParleyError
from server.app import LIFECYCLE
from server.config import AuthSettings, DatabaseSettings, TokenSettings
from server.services import Phase
from server.store import Store, StoreError
from server.version import VERSION
from tests.auth.door import ADA
from tests.rest.test_sessions import ask, refused
from tests.support.clock import ManualClock
from tests.support.server import MakeServer, RunningServer, start_server


@pytest.mark.feature("S18")
async def test_health_says_that_the_process_answers(server: RunningServer) -> None:
    assert await ask(server, "GET", "/health") == (200, {"status": "ok", "service": "parley", "version": VERSION})


async def test_readiness_says_whether_to_send_requests_here(server: RunningServer) -> None:
    status, ready = await ask(server, "GET", "/ready")
    assert (status, ready["status"], ready["database"]) == (200, "ready", "ok")
    await server.services.db.close()
    async with server.client.get("/ready") as response:
        body = await response.json()
        assert (response.status, body["status"], body["database"]) == (503, "unavailable", "away")
        assert response.headers["Retry-After"] == "1"
    server.services.phase = Phase.DRAINING
    assert (await ask(server, "GET", "/ready"))[1]["status"] == "draining"
    assert (await ask(server, "GET", "/health"))[0] == 200


async def test_a_lost_database_is_said_to_be_lost(server: RunningServer) -> None:
    session = await server.create_session()
    await server.services.db.close()
    for method, path in (("GET", "/sessions"), ("POST", "/sessions"), ("GET", f"/sessions/{session}")):
        async with server.client.request(method, path) as response:
            problem = await response.json()
            assert (response.status, problem["code"]) == (503, "unavailable")
            assert int(response.headers["Retry-After"]) >= 1


async def test_a_server_starts_without_its_database_and_waits_for_it(database_url: str, unused_tcp_port: int) -> None:
    clock = ManualClock()
    server = await start_server(f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/x", clock=clock)
    try:
        assert (await ask(server, "GET", "/ready"))[1]["status"] == "starting"
        assert (await ask(server, "GET", "/health"))[0] == 200
        assert (await refused(server, "POST", "/sessions"))[:2] == (503, "unavailable")
        server.services.store = Store(DatabaseSettings(url=database_url))
        while server.services.phase is not Phase.SERVING:
            await clock.advance(1)
        assert (await ask(server, "GET", "/ready"))[1]["status"] == "ready"
        assert (await ask(server, "POST", "/sessions"))[0] == 201
    finally:
        await server.stop()


async def test_a_database_that_cannot_be_used_is_no_reason_to_wait(database_url: str) -> None:
    nowhere = database_url.replace("parley_test_", "parley_nowhere_")
    with pytest.raises(StoreError, match="does not exist"):
        await start_server(nowhere)


async def test_a_database_that_comes_back_unusable_is_a_failure(database_url: str, unused_tcp_port: int) -> None:
    clock = ManualClock()
    server = await start_server(f"postgresql://nobody@127.0.0.1:{unused_tcp_port}/x", clock=clock)
    failures: list[Exception] = []
    try:
        server._runner.app[LIFECYCLE].on_failure = failures.append
        nowhere = database_url.replace("parley_test_", "parley_nowhere_")
        server.services.store = Store(DatabaseSettings(url=nowhere))
        while not failures:
            await clock.advance(1)
    finally:
        await server.stop()
    assert isinstance(failures[0], StoreError)


async def test_health_and_readiness_need_no_token_and_all_else_does(make_server: MakeServer) -> None:
    server = await make_server(auth=AuthSettings(tokens=(TokenSettings(user="ada", token=ADA),)))
    for path in ("/health", "/ready", "/"):
        assert (await ask(server, "GET", path))[0] == 200
    for path in ("/agents", "/sessions", "/events/streams", "/nothing"):
        assert (await refused(server, "GET", path))[:2] == (401, "unauthorized")
        status, _ = await ask(server, "GET", path, headers={"Authorization": f"Bearer {ADA}"})
        assert status == (404 if path == "/nothing" else 200)


@pytest.mark.feature("S19")
async def test_the_agents_are_listed(server: RunningServer) -> None:
    status, listed = await ask(server, "GET", "/agents")
    assert status == 200
    assert listed["total"] == len(listed["agents"]) == len(server.services.registry.definitions)
    agents = {agent["type"]: agent for agent in listed["agents"]}
    assert agents.keys() >= {"orchestrator", "coder", "architect", "debug", "ask", "universal"}
    assert [agent["type"] for agent in listed["agents"] if agent["is_default"]] == ["offline"]
    assert agents["architect"]["has_file_restrictions"] is True
    assert agents["coder"]["has_file_restrictions"] is False
    assert "write_file" in agents["coder"]["allowed_tools"]
    assert all(agent["name"] and agent["description"] and "prompt" not in agent for agent in listed["agents"])


async def test_streams_are_counted(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.get(f"/sessions/{session}/events") as stream:
        await stream.content.readline()
        _, stats = await ask(server, "GET", "/events/streams")
    assert stats["connections"] == {"sse": 1}
    assert stats["sessions_with_subscribers"] == 1


async def test_what_http_itself_refuses_is_a_problem_too(server: RunningServer) -> None:
    assert (await refused(server, "GET", "/nothing"))[:2] == (404, "not_found")
    async with server.client.put("/sessions") as response:
        problem = await response.json()
        assert (response.status, problem["status"], problem["code"]) == (405, 405, "not_supported")
        assert response.headers["Allow"] == "GET, HEAD, POST"
        assert response.content_type == "application/problem+json"


async def test_every_answer_has_a_request_id_and_is_taken_for_what_it_is(server: RunningServer) -> None:
    made = []
    for path, given in (("/health", None), ("/nothing", "mine:1"), ("/health", "not sane"), ("/health", "x" * 129)):
        async with server.client.get(path, headers={} if given is None else {"X-Request-ID": given}) as response:
            made.append(response.headers["X-Request-ID"])
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["Server"] == "parley"
    assert made[1] == "mine:1"
    assert len(set(made)) == 4
    assert all(len(made[index]) == 16 for index in (0, 2, 3))
    async with server.client.get("/nothing", headers={"X-Request-ID": "mine"}) as response:
        assert (await response.json())["request_id"] == "mine"


async def test_an_unexpected_exception_is_answered_generically(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise LookupError("the secret of the house")

    monkeypatch.setattr(server.services.sessions, "list", fail)
    async with server.client.get("/sessions") as response:
        problem = await response.json()
    assert (response.status, problem["code"]) == (500, "internal")
    assert problem["request_id"] in problem["detail"]
    assert "secret" not in str(problem)


async def test_starting_and_stopping_twice_is_harmless(make_server: MakeServer) -> None:
    server = await make_server()
    await server.stop()
    await server.stop()
    assert server.services.phase is Phase.STOPPED
    with pytest.raises(ParleyError):
        await server.services.db.ping()
