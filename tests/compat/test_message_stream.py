from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest

from server.agents.interface import AgentContext, AgentDefinition, AgentOutput, FunctionAgent, Text
from tests.compat.support import ask, chunks
from tests.support.server import MakeServer, RunningServer

KEYS = {
    "type",
    "content",
    "token",
    "is_final",
    "call_id",
    "tool_name",
    "arguments",
    "requires_approval",
    "error",
    "metadata",
}


@pytest.mark.feature("S12")
async def test_one_request_says_something_and_streams_until_the_turn_rests(server: RunningServer) -> None:
    said = await chunks(server, "new-one", {"type": "user_message", "content": "hello there"})
    assert all(set(chunk) <= KEYS for chunk in said)
    *pieces, whole, done = said
    assert all(chunk == {"type": "assistant_message", "token": chunk["token"], "is_final": False} for chunk in pieces)
    assert whole == {"type": "assistant_message", "content": whole["content"], "is_final": True}
    assert done == {"type": "done", "is_final": True, "metadata": {"status": "completed"}}
    # The session was made under the name that the client gave it.
    status, session = await ask(server, "GET", "/sessions/new-one")
    assert (status, session["alias"], session["message_count"]) == (200, "new-one", 2)
    history = await server.history("new-one")
    assert [message["role"] for message in history] == ["user", "assistant"]
    assert history[1]["content"] == whole["content"]


def speaker(gate: asyncio.Event, *words: str) -> FunctionAgent:
    """An agent that says the first word, waits, and says the others."""

    async def speak(context: AgentContext) -> AsyncGenerator[AgentOutput | str, None]:
        yield Text(words[0])
        await gate.wait()
        for word in words[1:]:
            yield Text(word)

    return FunctionAgent(AgentDefinition(type="speaker", name="Speaker"), speak)


@pytest.mark.feature("S12")
async def test_regression_23_streaming_is_more_than_one_chunk_at_the_end(make_server: MakeServer) -> None:
    gate = asyncio.Event()
    server = await make_server(speaker(gate, "Once ", "upon a time"))
    body = {"session_id": "a", "message": {"type": "user_message", "content": "tell"}}
    async with server.client.post("/agent/message/stream", json=body) as stream:
        first = json.loads((await stream.content.readline()).removeprefix(b"data: "))
        assert first == {"type": "assistant_message", "token": "Once ", "is_final": False}
        gate.set()
        rest = [
            json.loads(line[6:]) for line in (await stream.content.read()).splitlines() if line.startswith(b"data: ")
        ]
    assert "".join(chunk.get("token", "") for chunk in rest) == "upon a time"
    assert rest[-2]["content"] == "Once upon a time"


@pytest.mark.feature("S12", "S13")
async def test_regression_01_who_drops_the_stream_loses_nothing_and_may_have_it_again(make_server: MakeServer) -> None:
    gate = asyncio.Event()
    server = await make_server(speaker(gate, "one ", "two ", "three"))
    body = {"session_id": "a", "message": {"type": "user_message", "content": "count"}}
    key = {"Idempotency-Key": uuid4().hex}
    async with server.client.post("/agent/message/stream", json=body, headers=key) as stream:
        assert await stream.content.readline()
    gate.set()
    # The same request again is the same message: the whole turn, and nothing was said twice.
    said = await chunks(server, "a", body["message"], headers=key)  # type: ignore[arg-type]
    assert said[-2:] == [
        {"type": "assistant_message", "content": "one two three", "is_final": True},
        {"type": "done", "is_final": True, "metadata": {"status": "completed"}},
    ]
    assert await chunks(server, "a", body["message"], headers=key) == said[-2:]  # type: ignore[arg-type]
    assert [message["role"] for message in await server.history("a")] == ["user", "assistant"]


@pytest.mark.feature("S12", "S26")
async def test_the_agent_is_switched(server: RunningServer) -> None:
    said = await chunks(server, "a", {"type": "switch_agent", "agent_type": "coder", "reason": "code"})
    metadata = {"from_agent": "offline", "to_agent": "coder", "reason": "code"}
    assert said == [
        {"type": "agent_switched", "is_final": True, "metadata": metadata},
        {"type": "done", "is_final": True, "metadata": {"status": "completed"}},
    ]
    assert (await ask(server, "GET", "/sessions/a"))[1]["current_agent"] == "coder"


@pytest.mark.feature("S12")
async def test_a_message_that_must_wait_is_streamed_when_its_turn_comes(make_server: MakeServer) -> None:
    gate = asyncio.Event()
    server = await make_server(speaker(gate, "first ", "answer"))
    one = {"session_id": "a", "message": {"type": "user_message", "content": "1"}}
    async with (
        server.client.post("/agent/message/stream", json=one) as first,
        server.client.post("/agent/message/stream", json=one) as second,
    ):
        assert await first.content.readline()
        gate.set()
        answers = [await stream.content.read() for stream in (first, second)]
    for answer in answers:
        assert answer.count(b'"type":"done"') == 1
        assert answer.count(b'"content":"first answer"') == 1


@pytest.mark.feature("S12")
async def test_a_turn_that_fails_says_so(make_server: MakeServer) -> None:
    async def fail(context: AgentContext) -> AsyncGenerator[AgentOutput | str, None]:
        yield Text("I ")
        raise RuntimeError("secret detail")

    server = await make_server(FunctionAgent(AgentDefinition(type="failing", name="Failing"), fail))
    said = await chunks(server, "a", {"type": "user_message", "content": "try"})
    error, done = said[-2:]
    assert (error["type"], error["is_final"], done["metadata"]) == ("error", True, {"status": "failed"})
    assert error["error"]
    assert error["metadata"]["code"]
    assert "secret" not in json.dumps(said)


@pytest.mark.feature("S12")
@pytest.mark.parametrize(
    ("body", "path", "said"),
    [
        ({}, "$.session_id", "session_id"),
        ({"session_id": "a"}, "$.message", "message"),
        ({"session_id": "a b", "message": {"type": "user_message", "content": "x"}}, "$.session_id", "128"),
        ({"session_id": "a", "message": {}}, "$.message.type", "type"),
        ({"session_id": "a", "message": {"type": "shout", "content": "x"}}, "$.message.type", "shout"),
        ({"session_id": "a", "message": {"type": "user_message"}}, "$.message.content", "content"),
        ({"session_id": "a", "message": {"type": "tool_result", "result": 1}}, "$.message.call_id", "call_id"),
        ({"session_id": "a", "message": {"type": "switch_agent"}}, "$.message.agent_type", "agent_type"),
        ({"session_id": "a", "message": {"type": "hitl_decision", "call_id": "c"}}, "$.message.decision", "decision"),
        (
            {"session_id": "a", "message": {"type": "hitl_decision", "call_id": "c", "decision": "edit"}},
            "$.message",
            "modified_arguments",
        ),
    ],
)
async def test_what_cannot_be_understood_is_refused_by_name(
    server: RunningServer, body: dict[str, Any], path: str, said: str
) -> None:
    status, problem = await ask(server, "POST", "/agent/message/stream", json=body)
    assert (status, problem["code"], problem["path"]) == (400, "malformed", path)
    assert said in problem["detail"]
    assert (await ask(server, "GET", "/sessions"))[1]["total"] == 0


@pytest.mark.feature("S12", "S27")
@pytest.mark.parametrize("word", ["approved", "APPROVE", "Approve", "yes", "rejected", ""])
async def test_regression_17_words_that_only_look_like_decisions_are_refused(server: RunningServer, word: str) -> None:
    message = {"type": "hitl_decision", "call_id": "c", "decision": word}
    body = {"session_id": await server.create_session(), "message": message}
    status, problem = await ask(server, "POST", "/agent/message/stream", json=body)
    assert (status, problem["path"]) == (400, "$.message.decision")
    assert "approve, edit, reject, respond" in problem["detail"]


@pytest.mark.feature("S12")
async def test_fields_that_are_not_known_are_passed_over(server: RunningServer) -> None:
    said = await chunks(server, "a", {"type": "user_message", "content": "hi", "role": "user", "stream": True})
    assert said[-1]["type"] == "done"


async def test_a_key_is_another_message_only_once(server: RunningServer) -> None:
    key = {"headers": {"Idempotency-Key": "k-1"}}
    await chunks(server, "a", {"type": "user_message", "content": "hi"}, **key)
    body = {"session_id": "a", "message": {"type": "user_message", "content": "something else"}}
    status, problem = await ask(server, "POST", "/agent/message/stream", json=body, **key)
    assert (status, problem["code"]) == (409, "conflict")
    key["headers"]["Idempotency-Key"] = "not valid"
    status, problem = await ask(server, "POST", "/agent/message/stream", json=body, **key)
    assert (status, problem["code"], problem["path"]) == (422, "invalid", "Idempotency-Key")


async def test_a_deleted_session_is_gone(server: RunningServer) -> None:
    await chunks(server, "a", {"type": "user_message", "content": "hi"})
    await ask(server, "DELETE", "/sessions/a")
    body = {"session_id": "a", "message": {"type": "user_message", "content": "hi"}}
    assert (await ask(server, "POST", "/agent/message/stream", json=body))[0] == 410
