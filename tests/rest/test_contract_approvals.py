"""What waits for a person, decided over REST; and the rules that people make of their decisions."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from protocol.ids import parse_timestamp
from server.turns.settings import PolicySettings
from tests.rest.scene import AS_ADA, AS_BOB, events, office, shared_office, until, waiting
from tests.rest.test_sessions import ask, refused
from tests.support.server import MakeServer, RunningServer


async def state(server: RunningServer, approval: str) -> dict[str, Any]:
    status, read = await ask(server, "GET", f"/approvals/{approval}")
    assert status == 200
    return dict(read)


@pytest.mark.feature("S22")
async def test_pending_approvals_have_the_expected_shape(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    address = f"/sessions/{session}/pending-approvals"
    assert await ask(server, "GET", address) == (200, {"session_id": session, "pending_approvals": [], "count": 0})
    await waiting(server, session, "burn two", 2)
    status, pending = await ask(server, "GET", address)
    assert (status, pending["session_id"], pending["count"]) == (200, session, 2)
    one, two = pending["pending_approvals"]
    expected = {"request_id", "request_type", "subject", "details", "reason", "created_at", "call_id", "tool_name"}
    assert set(one) == expected | {"arguments", "session_id"}
    assert UUID(one["request_id"]) < UUID(two["request_id"])
    assert parse_timestamp(one["created_at"])
    assert (one["request_type"], one["subject"], one["tool_name"]) == ("tool_call", "burn", "burn")
    assert (one["arguments"], two["arguments"]) == ({"paper": "letter"}, {"paper": "book"})
    details = one["details"]
    assert details["allowed_decisions"] == ["approve", "edit", "reject", "respond"]
    assert details["parameters"]["properties"] == {"paper": {"type": "string"}}
    assert (details["agent_type"], details["rule"]) == ("clerk", "default.unknown")
    # The same as clients of the channel are told.
    told = [payload for event_type, payload in await events(server, session) if event_type == "approval_required"]
    assert [payload["approval_id"] for payload in told] == [one["request_id"], two["request_id"]]
    assert told[0]["call_id"] == one["call_id"]
    assert told[0]["arguments_hash"] == details["arguments_hash"]


@pytest.mark.feature("S22")
async def test_regression_18_pending_approvals_of_no_session_are_not_found(make_server: MakeServer) -> None:
    server = await office(make_server)
    for name in ("nobody", str(uuid4()), "a%20b"):
        assert (await refused(server, "GET", f"/sessions/{name}/pending-approvals"))[:2] == (404, "not_found")
    session = await server.create_session()
    await ask(server, "DELETE", f"/sessions/{session}")
    assert (await refused(server, "GET", f"/sessions/{session}/pending-approvals"))[:2] == (410, "session_gone")


@pytest.mark.feature("A03", "S27")
@pytest.mark.parametrize("by", ["approval", "call"])
async def test_a_decision_over_rest_is_the_command(make_server: MakeServer, by: str) -> None:
    server = await office(make_server)
    session = await server.create_session()
    [pending] = await waiting(server, session)
    approval = pending["request_id"]
    before = await state(server, approval)
    assert before == pending | {
        "state": "pending",
        "decided_at": None,
        "decided_by": None,
        "feedback": None,
        "executed": None,
    }
    address = {
        "approval": f"/approvals/{approval}/decision",
        "call": f"/sessions/{session}/approvals/{pending['call_id']}",
    }[by]
    body = {"decision": "edit", "modified_arguments": {"paper": "draft"}}
    key = {"Idempotency-Key": "mine"}
    status, decided = await ask(server, "POST", address, json=body, headers=key)
    assert status == 200
    assert parse_timestamp(decided["decided_at"])
    assert decided | {"decided_at": None} == before | {
        "state": "edited",
        "decided_by": "local",
        "executed": {"paper": "draft"},
    }
    # The second click is the first one again; another decision comes too late.
    assert await ask(server, "POST", address, json=body, headers=key) == (200, decided)
    late = await refused(server, "POST", address, json={"decision": "reject"})
    assert late[:2] == (409, "already_resolved")
    await until(server, session, "task_completed")
    assert (await server.history(session))[-1]["content"].endswith("ashes of draft")
    assert (await ask(server, "GET", f"/sessions/{session}/pending-approvals"))[1]["count"] == 0


@pytest.mark.feature("A03")
async def test_decisions_that_make_no_sense_are_refused_by_name(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    [pending] = await waiting(server, session)
    address = f"/approvals/{pending['request_id']}/decision"
    for body, expected in (
        ({}, (422, "invalid", "$.decision")),
        ({"decision": "approved"}, (422, "invalid", "$.decision")),
        ({"decision": "approve", "note": "x"}, (422, "invalid", "$.note")),
        ({"decision": "edit"}, (422, "invalid", "$")),
        ({"decision": "respond"}, (422, "invalid", "$")),
        ({"decision": "edit", "modified_arguments": {}, "remember": {"scope": "user"}}, (422, "invalid", "$")),
        ({"decision": "approve", "remember": {"scope": "world"}}, (422, "invalid", "$.remember.scope")),
    ):
        assert await refused(server, "POST", address, json=body) == expected
    assert (await state(server, pending["request_id"]))["state"] == "pending"
    unknown = uuid4()
    for method, path in (
        ("GET", f"/approvals/{unknown}"),
        ("POST", f"/approvals/{unknown}/decision"),
        ("POST", f"/sessions/{session}/approvals/{unknown}"),
        ("GET", "/approvals/nonsense"),
        ("POST", f"/sessions/{session}/approvals/nonsense"),
    ):
        options = {"json": {"decision": "approve"}} if method == "POST" else {}
        assert (await refused(server, method, path, **options))[:2] == (404, "not_found")


@pytest.mark.feature("A03")
async def test_approvals_of_all_sessions_come_page_by_page(make_server: MakeServer) -> None:
    server = await office(make_server)
    asked = []
    for _ in range(3):
        asked += await waiting(server, await server.create_session())
    found, after = [], ""
    page: dict[str, Any] = {}
    for size in (2, 1):
        status, page = await ask(server, "GET", f"/approvals?limit=2{after}")
        assert (status, page["count"]) == (200, size)
        found += page["approvals"]
        after = f"&after={page['next']}"
    assert page["next"] is None
    assert found == asked
    assert await refused(server, "GET", "/approvals?after=x") == (422, "invalid", "?after")


@pytest.mark.feature("A03", "S30")
async def test_rules_are_listed_beside_the_policies_and_revoked_once(make_server: MakeServer) -> None:
    policy = PolicySettings(tool="look", effect="deny", reason="not today", arguments={"place": "there*"})
    server = await office(make_server, policies=(policy,))
    session = await server.create_session()
    [pending] = await waiting(server, session)
    body = {"decision": "approve", "remember": {"scope": "session", "arguments": {"paper": "let*"}}}
    assert (await ask(server, "POST", f"/approvals/{pending['request_id']}/decision", json=body))[0] == 200
    status, listed = await ask(server, "GET", "/policies")
    assert (status, set(listed)) == (200, {"policies", "rules"})
    assert listed["policies"] == [
        {
            "name": "policies[0]",
            "tool": "look",
            "effect": "deny",
            "agent": None,
            "arguments": {"place": "there*"},
            "reason": "not today",
            "timeout": None,
            "decisions": None,
        }
    ]
    [rule] = listed["rules"]
    assert parse_timestamp(rule["created_at"])
    assert rule | {"rule_id": 0, "created_at": 0} == {
        "rule_id": 0,
        "scope": "session",
        "session_id": session,
        "tool": "burn",
        "arguments": {"paper": "let*"},
        "effect": "allow",
        "created_at": 0,
        "created_by": "local",
        "call_id": pending["call_id"],
    }
    other = await server.create_session()
    for name, rules in ((session, [rule]), (other, [])):
        assert (await ask(server, "GET", f"/policies?session_id={name}"))[1]["rules"] == rules
    assert (await refused(server, "GET", "/policies?session_id=nobody"))[0] == 404
    # It is in force: the same call asks nobody.
    await until(server, session, "task_completed")
    await server.command(session, type="user_message", content="burn")
    await until(server, session, "task_completed", 2)
    address = f"/policies/{rule['rule_id']}"
    assert await ask(server, "DELETE", address) == (204, "")
    assert (await refused(server, "DELETE", address))[:2] == (404, "not_found")
    assert (await refused(server, "DELETE", "/policies/0"))[:2] == (404, "not_found")
    assert (await ask(server, "GET", "/policies"))[1]["rules"] == []
    assert len(await waiting(server, session, count=2)) == 1
    _, audit = await ask(server, "GET", "/events/audit-log?event_type=rule_revoked")
    [entry] = audit["audit_log"]
    assert (entry["user_id"], entry["tool"], entry["rule"]) == ("local", "burn", rule["rule_id"])


@pytest.mark.feature("S37", "A03")
async def test_regression_20_nobody_decides_for_others(make_server: MakeServer) -> None:
    server = await shared_office(make_server)
    _, made = await ask(server, "POST", "/sessions", json={}, **AS_ADA)
    session = made["id"]
    command = {"id": "1", "type": "user_message", "content": "burn"}
    assert (await ask(server, "POST", f"/sessions/{session}/commands", json=command, **AS_ADA))[0] == 200
    await until(server, session, "approval_required", **AS_ADA)
    [pending] = (await ask(server, "GET", "/approvals", **AS_ADA))[1]["approvals"]
    assert (await ask(server, "GET", "/approvals", **AS_BOB))[1]["approvals"] == []
    approval, call = pending["request_id"], pending["call_id"]
    body = {"decision": "approve", "remember": {"scope": "user"}}
    for method, path in (
        ("GET", f"/approvals/{approval}"),
        ("POST", f"/approvals/{approval}/decision"),
        ("POST", f"/sessions/{session}/approvals/{call}"),
        ("GET", f"/sessions/{session}/pending-approvals"),
    ):
        options = {"json": body} if method == "POST" else {}
        assert (await refused(server, method, path, **AS_BOB, **options))[:2] == (404, "not_found")
        assert (await refused(server, method, path, **options))[:2] == (401, "unauthorized")
    assert (await ask(server, "GET", f"/approvals/{approval}", **AS_ADA))[1]["state"] == "pending"
    assert (await ask(server, "POST", f"/approvals/{approval}/decision", json=body, **AS_ADA))[0] == 200
    [rule] = (await ask(server, "GET", "/policies", **AS_ADA))[1]["rules"]
    assert (await ask(server, "GET", "/policies", **AS_BOB))[1]["rules"] == []
    assert (await refused(server, "DELETE", f"/policies/{rule['rule_id']}", **AS_BOB))[:2] == (404, "not_found")
    assert len((await ask(server, "GET", "/policies", **AS_ADA))[1]["rules"]) == 1
