from __future__ import annotations

import io
import json
from typing import Any
from uuid import UUID

import pytest
from aiohttp import WSServerHandshakeError

from protocol.ids import parse_timestamp
from server.config import AuthSettings, TokenSettings
from storage.messages import MAX_BYTES
from tests.auth.door import ADA, BOB
from tests.support.server import MakeServer, RunningServer

Answer = tuple[int, Any]


async def ask(server: RunningServer, method: str, path: str, **options: Any) -> Answer:
    """One request; its status, and its body if that is JSON."""
    async with server.client.request(method, path, **options) as response:
        text = await response.text()
        return response.status, json.loads(text) if "json" in response.content_type else text


async def refused(server: RunningServer, method: str, path: str, **options: Any) -> tuple[int, str, str | None]:
    """Status, code and path of a problem."""
    status, problem = await ask(server, method, path, **options)
    assert problem["status"] == status
    return status, problem["code"], problem.get("path")


@pytest.mark.feature("S20")
async def test_a_session_is_made_and_read(server: RunningServer) -> None:
    async with server.client.post(
        "/sessions", json={"session_id": "my-own:name", "title": "Ideas", "agent_type": "coder"}
    ) as response:
        made = await response.json()
        assert response.status == 201
        assert response.headers["Location"] == f"/sessions/{made['id']}"
    assert UUID(made["id"]).version == 7
    assert parse_timestamp(made["created_at"]) == parse_timestamp(made["last_activity"])
    assert made | {"id": 0, "created_at": 0, "last_activity": 0, "cursor": 0} == {
        "id": 0,
        "alias": "my-own:name",
        "title": "Ideas",
        "message_count": 0,
        "created_at": 0,
        "last_activity": 0,
        "is_active": True,
        "owner": "local",
        "role": "owner",
        "current_agent": "coder",
        "cursor": 0,
        "project_id": None,
        "forked_from": None,
        "forked_at": None,
    }
    for name in (made["id"], "my-own:name", made["id"].upper()):
        status, read = await ask(server, "GET", f"/sessions/{name}")
        assert status == 200
        assert read == made | {"description": None, "duration_seconds": 0.0, "active_turn": None, "queued": 0}


@pytest.mark.feature("S20")
async def test_everything_about_a_new_session_may_be_left_out(server: RunningServer) -> None:
    given: tuple[dict[str, Any], ...] = ({}, {"json": {}}, {"data": b"  "})
    for options in given:
        status, made = await ask(server, "POST", "/sessions", **options)
        assert (status, made["alias"], made["title"], made["current_agent"]) == (201, None, None, "offline")


async def test_an_agent_is_named_by_type_or_by_id(server: RunningServer) -> None:
    agent = server.services.registry.get("debug").definition
    status, made = await ask(server, "POST", "/sessions", json={"agent_type": str(agent.agent_id)})
    assert (status, made["current_agent"]) == (201, "debug")


async def test_a_name_can_be_taken_once(server: RunningServer) -> None:
    assert (await ask(server, "POST", "/sessions", json={"session_id": "mine"}))[0] == 201
    assert await refused(server, "POST", "/sessions", json={"session_id": "mine"}) == (409, "conflict", "$.session_id")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"session_id": "no spaces"}', (422, "invalid", "$.session_id")),
        ('{"session_id": ""}', (422, "invalid", "$.session_id")),
        ('{"session_id": 7}', (422, "invalid", "$.session_id")),
        ('{"title": ""}', (422, "invalid", "$.title")),
        ('{"title": "a\\u0000b"}', (422, "invalid", "$.title")),
        (json.dumps({"title": "x" * 501}), (422, "invalid", "$.title")),
        ('{"agent_type": "nobody"}', (422, "unknown_agent", "$.agent_type")),
        ('{"nonsense": 1}', (422, "invalid", "$.nonsense")),
        ("[]", (422, "invalid", "$")),
        ("{", (400, "malformed", "$")),
        ("\xff", (400, "malformed", "$")),
        ('{"title": "\\ud800"}', (400, "malformed", "$")),
        ("[" * 100_000, (400, "malformed", "$")),
        ('{"a":' * 70 + "1" + "}" * 70, (413, "too_large", None)),
    ],
)
async def test_a_bad_body_is_refused_by_the_name_of_its_field(
    server: RunningServer, body: str, expected: tuple[int, str, str | None]
) -> None:
    status, code, path = await refused(server, "POST", "/sessions", data=body.encode("latin-1"))
    assert (status, code) == expected[:2]
    assert expected[2] is None or path == expected[2]
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 0


async def test_a_huge_body_is_refused(make_server: MakeServer) -> None:
    server = await make_server()
    limit = server.services.config.channel.max_command_bytes
    body = b'{"title": "' + b"x" * limit + b'"}'
    assert (await refused(server, "POST", "/sessions", data=io.BytesIO(body)))[:2] == (413, "too_large")


@pytest.mark.feature("S20")
async def test_sessions_are_listed_the_latest_first(server: RunningServer) -> None:
    for name in ("a", "b", "c"):
        await server.create_session(session_id=name)
    await server.command("a", type="user_message", content="hello")
    _, listed = await ask(server, "GET", "/sessions")
    assert [session["alias"] for session in listed["sessions"]] == ["a", "c", "b"]
    assert listed["sessions"][0]["title"] == "hello"
    assert (listed["limit"], listed["offset"]) == (100, 0)


@pytest.mark.feature("S20")
async def test_regression_24_total_counts_all_not_the_page(server: RunningServer) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await server.create_session(session_id=name)
    await ask(server, "DELETE", "/sessions/e")
    pages = []
    for query in ("limit=2", "limit=2&offset=2", "limit=2&offset=4", "limit=1000&offset=999", "active_only=false"):
        _, page = await ask(server, "GET", f"/sessions?{query}")
        pages.append((len(page["sessions"]), page["total"]))
    assert pages == [(2, 4), (2, 4), (0, 4), (0, 4), (5, 5)]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=-1", "offset"),
        ("active_only=maybe", "active_only"),
        ("q=", "q"),
        ("q=%20%09", "q"),
        ("q=" + "x" * 201, "q"),
        ("q=a%00b", "q"),
        ("q=a&q=b", "q"),
    ],
)
async def test_a_bad_parameter_is_refused_by_its_name(server: RunningServer, query: str, name: str) -> None:
    status, problem = await ask(server, "GET", f"/sessions?{query}")
    assert (status, problem["code"], problem["path"]) == (422, "invalid", f"?{name}")
    assert problem["detail"].startswith(f"query parameter {name!r}: ")


async def test_unknown_parameters_are_ignored(server: RunningServer) -> None:
    assert (await ask(server, "GET", "/sessions?_=123&utm_source=x"))[0] == 200


async def finished(server: RunningServer, session: str, turns: int) -> None:
    """Wait until that many turns have ended: a stream says so."""
    headers = {"Accept": "application/x-ndjson"}
    async with server.client.get(f"/sessions/{session}/events?after=0", headers=headers) as stream:
        async for line in stream.content:
            turns -= json.loads(line)["event_type"] == "task_completed"
            if not turns:
                return


@pytest.mark.feature("S21", "T06")
async def test_a_page_of_the_history_has_a_size_whatever_was_asked_for(server: RunningServer) -> None:
    session = await server.create_session(agent_type="offline")
    texts = [f"message {number} {'x' * 900_000}" for number in range(6)]
    for text in texts:
        await server.command(session, type="user_message", content=text)
    written = 0
    while written < 2 * len(texts):
        written = (await ask(server, "GET", f"/sessions/{session}"))[1]["message_count"]
    contents, sizes, after = [], [], "0"
    while after is not None:
        _, page = await ask(server, "GET", f"/sessions/{session}/history?limit=1000&after={after}")
        contents += [message["content"] for message in page["messages"] if message["role"] == "user"]
        sizes.append(sum(len(message["content"]) for message in page["messages"]))
        after = page["next"]
    assert contents == texts
    assert max(sizes) < MAX_BYTES + 1_000_000


@pytest.mark.feature("S21")
async def test_the_history_is_read_page_by_page(server: RunningServer) -> None:
    session = await server.create_session(agent_type="offline")
    for number in range(3):
        await server.command(session, type="user_message", content=f"message {number}")
        await finished(server, session, number + 1)
    status, whole = await ask(server, "GET", f"/sessions/{session}/history")
    assert status == 200
    assert [message["role"] for message in whole["messages"]] == ["user", "assistant"] * 3
    assert [message["content"] for message in whole["messages"][::2]] == ["message 0", "message 1", "message 2"]
    assert (whole["session_id"], whole["message_count"], whole["next"]) == (session, 6, None)
    assert [span["agent_type"] for span in whole["agent_history"]] == ["offline"]
    assistant = whole["messages"][1]
    assert (assistant["agent_type"], assistant["finish_reason"]) == ("offline", "stop")
    assert UUID(assistant["message_id"])
    assert parse_timestamp(assistant["timestamp"])

    paged, after = [], "0"
    while after is not None:
        _, page = await ask(server, "GET", f"/sessions/{session}/history?limit=2&after={after}")
        assert len(page["messages"]) <= 2
        paged += page["messages"]
        after = page["next"]
    assert paged == whole["messages"]

    bare = paged[1]["cursor"].partition(".")[2]
    for cursor in (paged[1]["cursor"], bare):
        _, rest = await ask(server, "GET", f"/sessions/{session}/history?after={cursor}")
        assert rest["messages"] == paged[2:]
    _, nothing = await ask(server, "GET", f"/sessions/{session}/history?after={whole['cursor']}")
    assert (nothing["messages"], nothing["next"]) == ([], None)


@pytest.mark.feature("S21")
async def test_a_cursor_of_the_history_continues_on_a_stream(server: RunningServer) -> None:
    session = await server.create_session()
    await server.command(session, type="user_message", content="one")
    await finished(server, session, 1)
    _, history = await ask(server, "GET", f"/sessions/{session}/history")
    headers = {"Accept": "application/x-ndjson"}
    async with server.client.get(f"/sessions/{session}/events?after={history['cursor']}", headers=headers) as stream:
        first = [json.loads(await stream.content.readline())["event_type"] for _ in range(2)]
    assert first == ["connected", "sync"]


@pytest.mark.feature("S21")
async def test_regression_18_the_history_names_the_acting_agent(server: RunningServer) -> None:
    session = await server.create_session(agent_type="coder")
    _, history = await ask(server, "GET", f"/sessions/{session}/history")
    assert history["current_agent"] == "coder"
    assert (await server.command(session, type="switch_agent", agent_type="debug"))[0] == 200
    _, history = await ask(server, "GET", f"/sessions/{session}/history")
    assert history["current_agent"] == "debug"


@pytest.mark.parametrize("after", ["x", "-1", "1.2.3", "", "99999999999999999999", "deadbeef.1"])
async def test_a_cursor_that_cannot_be_served_is_refused(server: RunningServer, after: str) -> None:
    session = await server.create_session()
    assert await refused(server, "GET", f"/sessions/{session}/history?after={after}") == (422, "invalid", "?after")


async def test_a_session_is_read_with_its_messages_when_asked(server: RunningServer) -> None:
    session = await server.create_session()
    await server.command(session, type="user_message", content="hello")
    await finished(server, session, 1)
    for query in ("", "?include_messages=false"):
        assert "messages" not in (await ask(server, "GET", f"/sessions/{session}{query}"))[1]
    _, read = await ask(server, "GET", f"/sessions/{session}?include_messages")
    assert [message["role"] for message in read["messages"]] == ["user", "assistant"]
    assert read["message_count"] == 2
    assert read["duration_seconds"] >= 0


@pytest.mark.feature("S20")
async def test_a_deleted_session_leaves_a_tombstone(server: RunningServer) -> None:
    session = await server.create_session(session_id="mine")
    async with server.client.get(f"/sessions/{session}/events") as stream:
        assert await stream.content.readline()
        assert await ask(server, "DELETE", f"/sessions/{session}") == (204, "")
        rest = await stream.content.read()
    assert b"session_gone" in rest
    for method, path in (
        ("GET", ""),
        ("GET", "/history"),
        ("GET", "/events"),
        ("DELETE", ""),
        ("POST", "/commands"),
    ):
        for name in (session, "mine"):
            options = {"json": {"type": "ping"}} if method == "POST" else {}
            assert (await refused(server, method, f"/sessions/{name}{path}", **options))[:2] == (410, "session_gone")
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 0


@pytest.mark.parametrize(
    "name", ["nobody", "51280bbf-f1ea-4670-865e-55a37720a86a", "a%20b", "%00", "..%2f..", "x" * 129, "%ff"]
)
async def test_a_session_that_is_not_there_is_not_found(server: RunningServer, name: str) -> None:
    for method, path in (("GET", ""), ("GET", "/history"), ("DELETE", ""), ("POST", "/commands"), ("GET", "/events")):
        options = {"json": {"type": "ping"}} if method == "POST" else {}
        assert (await refused(server, method, f"/sessions/{name}{path}", **options))[:2] == (404, "not_found")


@pytest.mark.feature("S37")
async def test_regression_20_what_is_somebody_elses_does_not_exist(make_server: MakeServer) -> None:
    entries = (TokenSettings(user="ada", token=ADA), TokenSettings(user="bob", token=BOB))
    server = await make_server(auth=AuthSettings(tokens=entries))
    ada, bob = ({"headers": {"Authorization": f"Bearer {token}"}} for token in (ADA, BOB))
    status, made = await ask(server, "POST", "/sessions", json={"session_id": "shared-name"}, **ada)
    assert status == 201
    command = {"json": {"id": "1", "type": "user_message", "content": "x"}}
    for method, path in (("GET", ""), ("GET", "/history"), ("DELETE", ""), ("POST", "/commands"), ("GET", "/events")):
        for name in (made["id"], "shared-name"):
            options = command if method == "POST" else {}
            address = f"/sessions/{name}{path}"
            assert (await refused(server, method, address, **bob, **options))[:2] == (404, "not_found")
            assert (await refused(server, method, address, **options))[:2] == (401, "unauthorized")
    for protocols, expected in (((f"parley.bearer.{BOB}",), 404), ((), 401), ((f"parley.bearer.{BOB}x",), 401)):
        with pytest.raises(WSServerHandshakeError) as caught:
            await server.client.ws_connect(f"/sessions/{made['id']}/ws", protocols=("parley.v1.json", *protocols))
        assert caught.value.status == expected
    assert (await ask(server, "GET", "/sessions", **bob))[1]["total"] == 0
    # Nothing of all that had an effect, and the name is free for others.
    assert (await ask(server, "GET", "/sessions/shared-name", **ada))[1]["message_count"] == 0
    assert (await ask(server, "POST", "/sessions", json={"session_id": "shared-name"}, **bob))[0] == 201
