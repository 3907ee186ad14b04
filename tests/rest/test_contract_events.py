"""Metrics, audit and statistics, from rows; and what turns, sessions and users used."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from protocol.ids import parse_timestamp
from tests.rest.scene import AS_ADA, AS_BOB, office, say, shared_office, until, waiting
from tests.rest.test_sessions import ask, refused
from tests.support.server import MakeServer, RunningServer

TALLY = {"count", "success_count", "failure_count", "total_duration_ms"}


async def answered(server: RunningServer, path: str, **options: Any) -> Any:
    status, found = await ask(server, "GET", path, **options)
    assert status == 200, found
    return found


async def busy_day(server: RunningServer) -> str:
    """A session with a look, a burning that was approved, a failure and a switch."""
    session = await server.create_session()
    await say(server, session, "look")
    [pending] = await waiting(server, session)
    body = {"decision": "approve"}
    assert (await ask(server, "POST", f"/approvals/{pending['request_id']}/decision", json=body))[0] == 200
    await until(server, session, "task_completed", 2)
    await say(server, session, "fail", 3)
    await ask(server, "POST", f"/agents/{session}/switch", json={"target_agent": "porter", "reason": "tired"})
    return session


@pytest.mark.feature("S23")
async def test_regression_19_metrics_tell_what_was_done(make_server: MakeServer) -> None:
    server = await office(make_server)
    nothing = await answered(server, "/events/metrics")
    assert set(nothing) == {"metrics", "computed", "timestamp", "since"}
    groups = {"agent_switches", "agent_processing", "tool_executions", "hitl_decisions", "errors"}
    assert (nothing["metrics"], nothing["computed"]) == ({name: {} for name in groups}, {})
    await busy_day(server)
    found = await answered(server, "/events/metrics")
    assert parse_timestamp(found["since"]) < parse_timestamp(found["timestamp"])
    metrics, computed = found["metrics"], found["computed"]
    assert set(metrics) == groups
    assert metrics["agent_switches"] == {"clerk->porter": 1}
    assert metrics["hitl_decisions"] == {"approved": 1}
    assert metrics["errors"] == {"ink_dry": 1}
    assert set(metrics["agent_processing"]) == {"clerk"}
    assert set(metrics["agent_processing"]["clerk"]) == TALLY
    assert metrics["agent_processing"]["clerk"] | {"total_duration_ms": 0} == {
        "count": 5,
        "success_count": 4,
        "failure_count": 1,
        "total_duration_ms": 0,
    }
    assert {name: tally["count"] for name, tally in metrics["tool_executions"].items()} == {"look": 1, "burn": 1}
    assert set(computed) == {
        f"{name}_{what}"
        for name in ("agent_processing", "tool_executions", "clerk", "look", "burn")
        for what in ("avg_duration_ms", "success_rate")
    }
    assert computed["clerk_success_rate"] == computed["agent_processing_success_rate"] == 0.8
    assert computed["burn_success_rate"] == 1.0
    later = await answered(server, "/events/metrics?since=2999-01-01T00:00:00%2B02:00")
    assert (later["metrics"], later["since"]) == (nothing["metrics"], "2998-12-31T22:00:00.000Z")
    assert await refused(server, "GET", "/events/metrics?since=yesterday") == (422, "invalid", "?since")


@pytest.mark.feature("S23")
async def test_metrics_outlive_the_process_and_the_log(make_server: MakeServer) -> None:
    first = await office(make_server)
    session = await busy_day(first)
    told = await answered(first, "/events/metrics")
    await first.stop()
    second = await office(make_server)
    again = await answered(second, "/events/metrics")
    assert (again["metrics"], again["computed"]) == (told["metrics"], told["computed"])
    await ask(second, "DELETE", f"/sessions/{session}")
    kept = (await answered(second, "/events/metrics"))["metrics"]
    assert kept["agent_processing"]["clerk"]["count"] == 5
    assert (await answered(second, "/usage"))["usage"]["total_tokens"] == 500


@pytest.mark.feature("S23", "R02")
async def test_regression_19_the_audit_tells_who_did_what(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session(session_id="desk")
    nothing = await answered(server, "/events/audit-log")
    assert nothing == {
        "audit_log": [],
        "count": 0,
        "filters": {"session_id": None, "event_type": None, "limit": 100},
        "next": None,
    }
    [pending] = await waiting(server, session)
    body = {"decision": "edit", "modified_arguments": {"paper": "draft"}}
    await ask(server, "POST", f"/approvals/{pending['request_id']}/decision", json=body)
    audit = await answered(server, "/events/audit-log?session_id=desk&limit=10")
    assert (audit["count"], audit["filters"]) == (1, {"session_id": "desk", "event_type": None, "limit": 10})
    [entry] = audit["audit_log"]
    assert parse_timestamp(entry["timestamp"])
    assert (entry["session_id"], entry["call_id"], entry["tool"]) == (session, pending["call_id"], "burn")
    assert (entry["user_id"], entry["transport"], entry["cause"]) == ("local", "rest", "person")
    assert (entry["arguments"], entry["executed"]) == ({"paper": "letter"}, {"paper": "draft"})
    assert await answered(server, f"/events/audit-log?session_id={session}") == audit | {
        "filters": {"session_id": session, "event_type": None, "limit": 100}
    }
    for query in (f"session_id={uuid4()}", "session_id=nobody", "event_type=nothing"):
        assert (await answered(server, f"/events/audit-log?{query}"))["count"] == 0
    # It outlives its session.
    await ask(server, "DELETE", "/sessions/desk")
    assert (await answered(server, f"/events/audit-log?session_id={session}"))["audit_log"][-1] == entry


@pytest.mark.feature("S23")
async def test_the_audit_is_read_page_by_page_the_latest_first(make_server: MakeServer) -> None:
    server = await office(make_server)
    services = server.services
    for name in ("one", "two", "three"):
        await services.audit.note("local", name, user_id="local", transport="test", now=services.clock.now())
    page = await answered(server, "/events/audit-log?limit=2")
    assert [entry["event_type"] for entry in page["audit_log"]] == ["three", "two"]
    rest = await answered(server, f"/events/audit-log?limit=2&after={page['next']}")
    assert ([entry["event_type"] for entry in rest["audit_log"]], rest["next"]) == (["one"], None)
    for query, name in (("limit=0", "limit"), ("limit=1001", "limit"), ("after=x", "after"), ("after=Ig", "after")):
        assert await refused(server, "GET", f"/events/audit-log?{query}") == (422, "invalid", f"?{name}")


@pytest.mark.feature("S23")
async def test_statistics_are_of_this_process_and_say_so(make_server: MakeServer) -> None:
    server = await office(make_server)
    stats = await answered(server, "/events/stats")
    assert stats == {
        "total_published": 0,
        "successful_handlers": 0,
        "failed_handlers": 0,
        "last_event_time": None,
        "success_rate": 1.0,
        "scope": "this process since its start",
        "since": stats["since"],
    }
    await say(server, await server.create_session(), "hello")
    stats = await answered(server, "/events/stats")
    assert stats["total_published"] == 4
    assert parse_timestamp(stats["since"]) <= parse_timestamp(stats["last_event_time"])
    assert stats["successful_handlers"] >= 1
    other = await office(make_server)
    assert (await answered(other, "/events/stats"))["total_published"] == 0


@pytest.mark.feature("S23", "A07")
async def test_the_metrics_of_a_session_have_the_expected_shape(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await busy_day(server)
    found = await answered(server, f"/events/metrics/session/{session}")
    sums = {name: value for name, value in found.items() if name not in {"requests", "next"}}
    assert sums | {"total_duration_ms": 0, "average_duration_ms": 0} == {
        "session_id": session,
        "total_requests": 5,
        "successful_requests": 4,
        "failed_requests": 1,
        "total_duration_ms": 0,
        "average_duration_ms": 0,
        "prompt_tokens": 300,
        "completion_tokens": 200,
        "total_tokens": 500,
        "average_tokens_per_request": 100.0,
        "requests_with_tools": 2,
        "cost": pytest.approx(0.05),
    }
    assert found["average_duration_ms"] == found["total_duration_ms"] / 5
    assert found["next"] is None
    latest, *_, first = found["requests"]
    assert (latest["success"], latest["error_code"], latest["finish_reason"]) == (False, "ink_dry", "error")
    assert parse_timestamp(first["started_at"]) <= parse_timestamp(latest["started_at"])
    assert first | {"turn_id": 0, "started_at": 0, "duration_ms": 0} == {
        "turn_id": 0,
        "step": 1,
        "attempt": 1,
        "agent_type": "clerk",
        "model": "quill",
        "started_at": 0,
        "duration_ms": 0,
        "prompt_tokens": 60,
        "completion_tokens": 40,
        "total_tokens": 100,
        "cost": pytest.approx(0.01),
        "tools": 1,
        "finish_reason": "tool_calls",
        "success": True,
        "error_code": None,
    }
    paged, after = [], ""
    for size in (2, 2, 1):
        page = await answered(server, f"/events/metrics/session/{session}?limit=2{after}")
        assert len(page["requests"]) == size
        paged += page["requests"]
        after = f"&after={page['next']}"
    assert paged == found["requests"]
    empty = await answered(server, f"/events/metrics/session/{await server.create_session()}")
    assert (empty["total_requests"], empty["average_duration_ms"], empty["cost"]) == (0, 0.0, None)
    for name in ("nobody", str(uuid4())):
        assert (await refused(server, "GET", f"/events/metrics/session/{name}"))[:2] == (404, "not_found")


@pytest.mark.feature("S23")
async def test_regression_24_the_metrics_of_all_sessions_count_all(make_server: MakeServer) -> None:
    server = await office(make_server)
    empty = await answered(server, "/events/metrics/sessions")
    assert (empty["sessions"], empty["count"]) == ([], 0)
    sessions = [await server.create_session() for _ in range(3)]
    for session in sessions:
        await say(server, session, "hello")
    pages = [await answered(server, f"/events/metrics/sessions?limit=2&offset={offset}") for offset in (0, 2, 4)]
    assert [(len(page["sessions"]), page["count"]) for page in pages] == [(2, 3), (1, 3), (0, 3)]
    listed = [one for page in pages for one in page["sessions"]]
    assert [one["session_id"] for one in listed] == sessions[::-1]
    alone = await answered(server, f"/events/metrics/session/{sessions[0]}")
    assert listed[-1] == {name: value for name, value in alone.items() if name not in {"requests", "next"}}


@pytest.mark.feature("A07")
async def test_turns_are_listed_with_what_they_took(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await busy_day(server)
    status, listed = await ask(server, "GET", f"/sessions/{session}/turns")
    assert (status, set(listed), listed["session_id"]) == (200, {"session_id", "turns", "next"}, session)
    look, burn, fail = listed["turns"]
    history = await server.history(session)
    assert look["user_message_id"] == history[0]["message_id"]
    assert look["cursor"] == history[0]["cursor"]
    assert look | {
        "turn_id": 0,
        "user_message_id": 0,
        "cursor": 0,
        "started_at": 0,
        "finished_at": 0,
        "duration_ms": 0,
    } == {
        "turn_id": 0,
        "user_message_id": 0,
        "agent_type": "clerk",
        "state": "completed",
        "steps": 2,
        "usage": {
            "prompt_tokens": 120,
            "completion_tokens": 80,
            "total_tokens": 200,
            "cost": pytest.approx(0.02),
        },
        "started_at": 0,
        "finished_at": 0,
        "duration_ms": 0,
        "error": None,
        "parent_call_id": None,
        "cursor": 0,
    }
    took = parse_timestamp(look["finished_at"]) - parse_timestamp(look["started_at"])
    assert look["duration_ms"] == round(took.total_seconds() * 1000)
    assert (fail["state"], fail["error"]["code"]) == ("failed", "ink_dry")
    page = await answered(server, f"/sessions/{session}/turns?limit=2")
    assert page["turns"] == [look, burn]
    rest = await answered(server, f"/sessions/{session}/turns?limit=2&after={page['next']}")
    assert (rest["turns"], rest["next"]) == ([fail], None)
    assert await refused(server, "GET", f"/sessions/{session}/turns?after=x") == (422, "invalid", "?after")


@pytest.mark.feature("A07")
async def test_a_turn_that_waits_is_listed_as_waiting(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await waiting(server, session)
    [turn] = (await answered(server, f"/sessions/{session}/turns"))["turns"]
    assert (turn["state"], turn["finished_at"], turn["duration_ms"]) == ("waiting", None, None)


@pytest.mark.feature("A07")
async def test_usage_is_added_up_by_session_and_by_user(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await busy_day(server)
    second = await server.create_session(agent_type="porter")
    await say(server, second, "box")
    used = await answered(server, f"/sessions/{session}/usage")
    whole = {
        "requests": 5,
        "turns": 3,
        "prompt_tokens": 300,
        "completion_tokens": 200,
        "total_tokens": 500,
        "cost": pytest.approx(0.05),
        "unpriced_requests": 0,
        "duration_ms": used["usage"]["duration_ms"],
    }
    assert used == {
        "session_id": session,
        "usage": whole,
        "currency": "EUR",
        "by": "model",
        "groups": [whole | {"key": "quill"}],
        "complete": True,
        "since": None,
        "until": None,
    }
    all_of_it = await answered(server, "/usage?by=session")
    assert [group["key"] for group in all_of_it["groups"]] == [second, session]
    assert all_of_it["groups"][1] | {"key": 0} == whole | {"key": 0}
    assert (all_of_it["usage"]["requests"], all_of_it["usage"]["total_tokens"]) == (6, 500)
    by_agent = await answered(server, "/usage?by=agent")
    assert {group["key"]: group["requests"] for group in by_agent["groups"]} == {"clerk": 5, "porter": 1}
    assert {group["key"]: group["cost"] for group in by_agent["groups"]}["porter"] is None
    [today] = (await answered(server, "/usage"))["groups"]
    assert today["key"] == server.services.clock.now().date().isoformat()
    until_then = await answered(server, "/usage?until=2000-01-01T00:00:00Z")
    assert (until_then["usage"]["requests"], until_then["usage"]["cost"], until_then["groups"]) == (0, None, [])
    for query, name in (("by=hour", "by"), ("since=x", "since"), ("until=2026-01-01", "until")):
        assert await refused(server, "GET", f"/usage?{query}") == (422, "invalid", f"?{name}")


@pytest.mark.feature("S37", "S23")
async def test_regression_20_what_others_do_counts_for_them_alone(make_server: MakeServer) -> None:
    server = await shared_office(make_server)
    _, made = await ask(server, "POST", "/sessions", json={}, **AS_ADA)
    session = made["id"]
    command = {"id": "1", "type": "user_message", "content": "hello"}
    await ask(server, "POST", f"/sessions/{session}/commands", json=command, **AS_ADA)
    await until(server, session, "task_completed", **AS_ADA)
    for path in ("/events/metrics", "/events/metrics/sessions", "/usage", "/events/audit-log"):
        assert (await refused(server, "GET", path))[:2] == (401, "unauthorized")
    assert (await answered(server, "/events/metrics", **AS_ADA))["metrics"]["agent_processing"] != {}
    assert (await answered(server, "/events/metrics", **AS_BOB))["metrics"]["agent_processing"] == {}
    assert (await answered(server, "/events/metrics/sessions", **AS_BOB))["count"] == 0
    assert (await answered(server, "/usage", **AS_BOB))["usage"]["requests"] == 0
    assert (await answered(server, f"/events/audit-log?session_id={session}", **AS_BOB))["count"] == 0
    for path in (f"/events/metrics/session/{session}", f"/sessions/{session}/usage", f"/sessions/{session}/turns"):
        assert (await refused(server, "GET", path, **AS_BOB))[:2] == (404, "not_found")
        assert (await ask(server, "GET", path, **AS_ADA))[0] == 200
