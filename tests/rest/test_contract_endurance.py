"""What is over stays over, what is large is copied whole, and what is away is said to be away."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest

from server.agents.interface import AgentContext, AgentYield, ToolCallDelta, agent
from server.app import create_app
from tests.rest.scene import events, office, porter, say, until, waiting
from tests.rest.test_routes import routes
from tests.rest.test_sessions import ask
from tests.support.server import MakeServer


@pytest.mark.feature("S22", "A03")
async def test_regression_14_a_rejected_approval_does_not_come_back(make_server: MakeServer) -> None:
    first = await office(make_server)
    session = await first.create_session()
    rejected, left = await waiting(first, session, "burn two", 2)
    body = {"decision": "reject", "feedback": "keep it"}
    assert (await ask(first, "POST", f"/approvals/{rejected['request_id']}/decision", json=body))[0] == 200
    await first.stop()
    second = await office(make_server)
    _, pending = await ask(second, "GET", f"/sessions/{session}/pending-approvals")
    assert pending["pending_approvals"] == [left]
    _, decided = await ask(second, "GET", f"/approvals/{rejected['request_id']}")
    assert (decided["state"], decided["feedback"], decided["executed"]) == ("rejected", "keep it", None)
    # What is left is decided by the other process, and the turn goes on there.
    assert (await ask(second, "POST", f"/approvals/{left['request_id']}/decision", json={"decision": "approve"}))[
        0
    ] == 200
    assert (await until(second, session, "task_completed"))["status"] == "completed"
    assert (await ask(second, "GET", "/approvals"))[1]["approvals"] == []


@pytest.mark.feature("S21")
async def test_regression_14_what_failed_is_no_message(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await say(server, session, "fail")
    _, history = await ask(server, "GET", f"/sessions/{session}/history")
    assert "no ink" not in str(history)
    [turn] = (await ask(server, "GET", f"/sessions/{session}/turns"))[1]["turns"]
    assert turn["error"] == {"code": "ink_dry", "message": "there is no ink"}


@agent(type="boss", description="Asks others.", delegates=("porter",))
async def boss(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Asks the porter, and says what he said."""
    last = context.history[-1]
    if last.role == "tool":
        yield f"he says: {last.content}"
    else:
        yield ToolCallDelta(0, "a", "ask_agent", '{"agent_type": "porter", "task": "carry"}')


@pytest.mark.feature("A07", "A08")
async def test_what_agents_ask_each_other_is_no_part_of_the_conversation(make_server: MakeServer) -> None:
    server = await make_server(boss, porter)
    session = await server.create_session()
    # The inner turn's end, and the outer one's.
    await say(server, session, "please", 2)
    outer, inner = (await ask(server, "GET", f"/sessions/{session}/turns"))[1]["turns"]
    history = await server.history(session)
    assert [message["content"] for message in history][-1] == "he says: porter heard carry"
    assert (outer["agent_type"], outer["parent_call_id"]) == ("boss", None)
    assert (inner["agent_type"], inner["parent_call_id"]) == ("porter", history[2]["tool_call_id"])
    _, fork = await ask(server, "POST", f"/sessions/{session}/fork")
    assert [message["content"] for message in await server.history(fork["id"])] == [
        message["content"] for message in history
    ]


@pytest.mark.feature("A08")
async def test_a_long_conversation_is_copied_in_one_piece(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    # As many as several statements take; written as the product's own statements would.
    async with server.services.db.pool.acquire() as connection:
        await connection.execute(
            "WITH m AS (INSERT INTO messages (message_id, session_id, seq, role, content, created_at) "
            "SELECT gen_random_uuid(), $1, g, CASE g % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, 'text ' || g, now() "
            "FROM generate_series(1, 1234) g RETURNING seq) "
            "INSERT INTO events SELECT $1, seq, 'message_created', now(), '{}' FROM m",
            session,
        )
        await connection.execute("UPDATE sessions SET seq = 1234, message_count = 1234 WHERE session_id = $1", session)
    status, made = await ask(server, "POST", f"/sessions/{session}/fork", json={"seq": 1200})
    assert (status, made["message_count"], made["forked_at"]) == (201, 1200, 1200)
    assert made["cursor"].endswith(".1200")
    contents, after = [], "0"
    while after is not None:
        _, page = await ask(server, "GET", f"/sessions/{made['id']}/history?limit=1000&after={after}")
        contents += [message["content"] for message in page["messages"]]
        after = page["next"]
    assert contents == [f"text {number}" for number in range(1, 1201)]
    assert [payload["content"] for _, payload in await events(server, made["id"])] == contents


async def test_without_its_database_no_route_fails_by_accident(make_server: MakeServer) -> None:
    server = await office(make_server)
    session = await server.create_session()
    await server.services.db.close()
    names = {"session": session, "agent": "clerk", "user": "ada"}
    seen = 0
    for method, path, _ in routes(create_app(server.services)):
        address = re.sub(r"\{(\w+)[^}]*\}", lambda match: names.get(match[1], str(uuid4())), path)
        if method != "GET" or address.endswith("/ws"):
            continue
        async with server.client.get(address, allow_redirects=False) as response:
            assert response.status != 500, address
            if response.status == 503:
                seen += 1
                assert int(response.headers["Retry-After"]) >= 1
    assert seen > 15
