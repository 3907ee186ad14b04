"""Forks, retries and edits: what was said stays as it is, and goes on elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from server.turns.limits import LimitSettings
from tests.rest.scene import AS_ADA, AS_BOB, events, office, say, shared_office, until, waiting
from tests.rest.test_sessions import ask, refused
from tests.support.server import MakeServer, RunningServer

Messages = list[dict[str, Any]]


async def branch(server: RunningServer, session: str, what: str, key: str | None = None, **body: Any) -> dict[str, Any]:
    """The new session, as it is answered."""
    headers = {} if key is None else {"Idempotency-Key": key}
    async with server.client.post(f"/sessions/{session}/{what}", json=body, headers=headers) as response:
        made: dict[str, Any] = await response.json()
        assert response.status == 201, made
        assert response.headers["Location"] == f"/sessions/{made['id']}"
    return made


def said(messages: Messages) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in messages]


@pytest.mark.feature("A08")
async def test_a_fork_is_a_copy_under_new_ids_that_goes_on_by_itself(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session(title="Letters")
    await say(server, session, "look")
    before = await server.history(session)
    log = await events(server, session)
    made = await branch(server, session, "fork")
    fork = made["id"]
    assert (made["title"], made["forked_from"], made["forked_at"]) == ("Fork of Letters", session, len(log))
    assert (made["message_count"], made["current_agent"], made["turn_id"]) == (4, "clerk", None)
    copied = await server.history(fork)
    new = {"message_id", "cursor", "turn_id", "tool_calls", "tool_call_id"}
    for one, other in zip(before, copied, strict=True):
        assert {name: one[name] for name in one if name not in new} == {
            name: other[name] for name in other if name not in new
        }
        assert one["message_id"] != other["message_id"]
        assert "turn_id" not in other
    assert copied[1]["tool_calls"][0]["call_id"] == copied[2]["tool_call_id"] != before[2]["tool_call_id"]
    # The fork's log begins with its messages, as clients show them.
    told = await events(server, fork)
    assert [event_type for event_type, _ in told] == ["message_created"] * 4
    for (_, payload), message in zip(told, copied, strict=True):
        assert (payload["message_id"], payload["content"]) == (message["message_id"], message["content"])
        assert payload["timestamp"] == message["timestamp"]
    assert told[1][1]["agent_name"] == "clerk"
    # Both go on, each by itself.
    await say(server, fork, "in the fork")
    await say(server, session, "in the source", 2)
    assert said(await server.history(fork))[4:] == [("user", "in the fork"), ("assistant", "you said: in the fork")]
    assert (await server.history(session))[:4] == before
    assert (await ask(server, "GET", f"/sessions/{fork}/turns"))[1]["turns"][0]["user_message_id"] not in {
        message["message_id"] for message in copied
    }
    # Nor does one go with the other.
    await ask(server, "DELETE", f"/sessions/{fork}")
    assert len((await ask(server, "GET", f"/sessions/{session}/turns"))[1]["turns"]) == 2


@pytest.mark.feature("A08")
async def test_a_session_forks_at_any_of_its_numbers(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await say(server, session, "look")
    await say(server, session, "hello", 2)
    messages = await server.history(session)
    numbers = [int(message["cursor"].partition(".")[2]) for message in messages]
    _, called, result, *_ = messages
    head = len(await events(server, session))
    for at in range(head + 1):
        expected = [message for message, number in zip(messages, numbers, strict=True) if number <= at]
        if called in expected and result not in expected:
            # Between a call and its result there is no history that a model would take.
            expected = expected[:1]
        made = await branch(server, session, "fork", seq=at)
        assert said(await server.history(made["id"])) == said(expected), at
        assert made["message_count"] == len(expected)
        assert made["forked_at"] == (at if len(expected) != 1 else min(at, numbers[1] - 1))
    for place in (
        {"cursor": messages[3]["cursor"]},
        {"message_id": messages[3]["message_id"]},
        {"cursor": str(numbers[3])},
    ):
        made = await branch(server, session, "fork", **place)
        assert said(await server.history(made["id"])) == said(messages[:4])


@pytest.mark.feature("A08")
async def test_places_that_there_are_not_are_refused(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session(session_id="desk")
    await say(server, session, "hello")
    assistant = (await server.history(session))[1]["message_id"]
    for what, body, expected in (
        ("fork", {"seq": 99}, (422, "invalid", "$.seq")),
        ("fork", {"seq": -1}, (422, "invalid", "$.seq")),
        ("fork", {"cursor": "99"}, (422, "invalid", "$.cursor")),
        ("fork", {"cursor": "x"}, (422, "invalid", "$.cursor")),
        ("fork", {"cursor": "deadbeef.1"}, (422, "invalid", "$.cursor")),
        ("fork", {"seq": 1, "cursor": "1"}, (422, "invalid", "$")),
        ("fork", {"message_id": str(uuid4())}, (404, "not_found", None)),
        ("fork", {"session_id": "desk"}, (409, "conflict", "$.session_id")),
        ("retry", {"content": "x"}, (422, "invalid", "$.content")),
        (f"messages/{uuid4()}/edit", {"content": "x"}, (404, "not_found", None)),
        ("messages/nonsense/edit", {"content": "x"}, (404, "not_found", None)),
        (f"messages/{assistant}/edit", {"content": "x"}, (422, "invalid", None)),
        (f"messages/{assistant}/edit", {}, (422, "invalid", "$.content")),
    ):
        assert await refused(server, "POST", f"/sessions/{session}/{what}", json=body) == expected, what
    empty = await server.create_session()
    assert (await refused(server, "POST", f"/sessions/{empty}/retry"))[:2] == (409, "conflict")
    for name in ("nobody", str(uuid4())):
        for what in ("fork", "retry", f"messages/{uuid4()}/edit"):
            assert (await refused(server, "POST", f"/sessions/{name}/{what}", json={"content": "x"}))[0] in (404, 422)
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 2


@pytest.mark.feature("A08")
async def test_a_retry_says_the_last_message_again_in_a_fork(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await say(server, session, "first")
    alone = await branch(server, session, "retry")
    await until(server, alone["id"], "task_completed")
    assert said(await server.history(alone["id"])) == said(await server.history(session))
    # To the agent alone to which it was said.
    await server.command(session, type="user_message", content="second", agent_type="porter")
    await until(server, session, "task_completed", 2)
    made = await branch(server, session, "retry", title="Once more")
    assert (made["title"], made["current_agent"], made["forked_from"]) == ("Once more", "clerk", session)
    await until(server, made["id"], "task_completed")
    messages = await server.history(made["id"])
    assert said(messages) == said(await server.history(session))
    assert made["message_id"] == messages[2]["message_id"]
    assert [event_type for event_type, _ in await events(server, made["id"])][2:5] == [
        "message_created",
        "direct_agent_call",
        "task_started",
    ]


@pytest.mark.feature("A08")
async def test_an_edit_says_something_else_in_a_fork(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session(title="Letters")
    for number, content in enumerate(("one", "two", "three"), 1):
        await say(server, session, content, number)
    before = await server.history(session)
    body: dict[str, Any] = {"content": [{"type": "text", "text": "tw"}, {"type": "text", "text": "ice"}]}
    made = await branch(server, session, f"messages/{before[2]['message_id']}/edit", **body)
    await until(server, made["id"], "task_completed")
    assert made["title"] == "Edit of Letters"
    assert said(await server.history(made["id"])) == [
        ("user", "one"),
        ("assistant", "you said: one"),
        ("user", "twice"),
        ("assistant", "you said: twice"),
    ]
    assert await server.history(session) == before


@pytest.mark.feature("A08")
async def test_a_fork_while_a_call_waits_leaves_the_call_behind(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await say(server, session, "hello")
    [pending] = await waiting(server, session)
    made = await branch(server, session, "fork")
    assert said(await server.history(made["id"]))[2:] == [("user", "burn")]
    assert (await ask(server, "GET", f"/sessions/{made['id']}/pending-approvals"))[1]["count"] == 0
    await say(server, made["id"], "never mind")
    assert (await ask(server, "GET", f"/approvals/{pending['request_id']}"))[1]["state"] == "pending"


@pytest.mark.feature("A08")
async def test_a_request_with_a_key_makes_one_branch(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await say(server, session, "first")
    message = (await server.history(session))[0]["message_id"]
    for what, body in (("fork", {"seq": 1}), ("retry", {}), (f"messages/{message}/edit", {"content": "other"})):
        first = await branch(server, session, what, key=f"key:{what[:4]}", **body)
        if what == "retry":
            # Whatever is said meanwhile.
            await say(server, session, "second", 2)
        await say(server, first["id"], "go on", 1 if what == "fork" else 2)
        again = await branch(server, session, what, key=f"key:{what[:4]}", **body)
        assert (again["id"], again["message_id"]) == (first["id"], first["message_id"])
        changed = {**body, "title": "other"}
        address, headers = f"/sessions/{session}/{what}", {"Idempotency-Key": f"key:{what[:4]}"}
        assert (await refused(server, "POST", address, json=changed, headers=headers))[:2] == (409, "conflict")
        await ask(server, "DELETE", f"/sessions/{first['id']}")
        assert (await refused(server, "POST", address, json=body, headers=headers))[:2] == (410, "session_gone")
    _, listed = await ask(server, "GET", "/sessions")
    assert listed["total"] == 1
    at_once = await asyncio.gather(*(branch(server, session, "fork", key="at-once") for _ in range(5)))
    assert len({made["id"] for made in at_once}) == 1
    two = [await branch(server, session, "fork") for _ in range(2)]
    assert two[0]["id"] != two[1]["id"]


@pytest.mark.feature("A08")
async def test_the_agent_of_a_fork_is_the_one_that_acted_at_its_place(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await server.command(session, type="switch_agent", agent_type="porter")
    await say(server, session, "hello")
    await server.command(session, type="switch_agent", agent_type="clerk")
    agents = [(await branch(server, session, "fork", seq=seq))["current_agent"] for seq in range(7)]
    assert agents == ["clerk", "porter", "porter", "porter", "porter", "porter", "clerk"]


@pytest.mark.feature("A08")
async def test_what_is_too_much_to_copy_is_refused_whole(make_server: MakeServer) -> None:
    server = await office(make_server, limits=LimitSettings(fork_messages=3))
    session = await server.create_session()
    await say(server, session, "one")
    await say(server, session, "two", 2)
    assert (await refused(server, "POST", f"/sessions/{session}/fork"))[:2] == (413, "too_large")
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 1
    made = await branch(server, session, "retry")
    assert made["message_count"] >= 3


@pytest.mark.feature("A08", "S37")
async def test_regression_20_a_member_forks_for_himself_and_a_stranger_not(make_server: MakeServer) -> None:
    server = await shared_office(make_server)
    _, source = await ask(server, "POST", "/sessions", json={}, **AS_ADA)
    session = source["id"]
    command = {"id": "1", "type": "user_message", "content": "hello"}
    await ask(server, "POST", f"/sessions/{session}/commands", json=command, **AS_ADA)
    await until(server, session, "task_completed", **AS_ADA)
    for what in ("fork", "retry"):
        assert (await refused(server, "POST", f"/sessions/{session}/{what}", **AS_BOB))[:2] == (404, "not_found")
        assert (await refused(server, "POST", f"/sessions/{session}/{what}"))[:2] == (401, "unauthorized")
    services = server.services
    await services.members.put(
        (await services.sessions.resolve("ada", session)).session_id,
        "bob",
        "observer",
        by="ada",
        now=services.clock.now(),
    )
    status, made = await ask(server, "POST", f"/sessions/{session}/retry", **AS_BOB)
    assert (status, made["owner"], made["role"]) == (201, "bob", "owner")
    await until(server, made["id"], "task_completed", **AS_BOB)
    assert (await refused(server, "GET", f"/sessions/{made['id']}", **AS_ADA))[0] == 404
