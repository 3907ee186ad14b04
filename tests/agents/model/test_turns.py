"""A model behind the whole server: from a user's message over a real endpoint to the stream and the database."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from server.agents.config import AgentOverride, AgentsConfig
from server.agents.model.names import plain_id
from server.agents.model.settings import ModelSettings
from tests.channel.clients import PATIENCE, connect
from tests.support.model_endpoint import ModelEndpoint, answer, call, calls, chunk, model_endpoint, stream, text, usage
from tests.support.server import MakeServer, RunningServer

KEY = "sk-this-is-a-secret"
AGENTS = AgentsConfig(
    default="ask", entry_points=False, overrides={"ask": AgentOverride(tools=("calculate",), prompt="Answer.")}
)


@pytest.fixture
async def fake() -> AsyncIterator[ModelEndpoint]:
    async with model_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def server(make_server: MakeServer, fake: ModelEndpoint) -> RunningServer:
    model = ModelSettings(model="test-model", base_url=fake.url, api_key=KEY, max_retries=0)
    return await make_server(agents=AGENTS, model=model)


@pytest.mark.feature("A06", "A01", "S24")
@pytest.mark.parametrize("transport", ["ws-json", "sse"])
async def test_a_turn_with_a_tool_call(server: RunningServer, fake: ModelEndpoint, transport: str) -> None:
    fake.reply(
        *stream(
            chunk(reasoning_content="multiply"),
            text("Let me "),
            text("see."),
            calls(call(0, "call_of_theirs", "calculate", "")),
            calls(call(0, arguments='{"expression":')),
            calls(call(0, arguments='"6*7"}')),
            chunk("tool_calls"),
            usage(10, 5),
        )
    )
    fake.reply(*answer("It is ", "42.", prompt=20, completion=3))
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.say("What is 6 times 7?")
        done = client.payload(await client.until("task_completed"))
        events = [(event.event_type, client.payload(event)) for event in client.events]

    assert done["status"] == "completed"
    assert done["usage"] == {"prompt_tokens": 30, "completion_tokens": 8, "total_tokens": 38, "cost": None}
    made = next(payload for kind, payload in events if kind == "tool_call")
    assert (made["name"], made["arguments"], made["executor"]) == ("calculate", {"expression": "6*7"}, "server")
    assert next(payload for kind, payload in events if kind == "tool_result")["result"] == 42
    said = [payload for kind, payload in events if kind == "message_created" and payload["role"] == "assistant"]
    assert [(one["content"], one["finish_reason"]) for one in said] == [
        ("Let me see.", "tool_calls"),
        ("It is 42.", "stop"),
    ]
    assert said[0]["reasoning"] == "multiply"

    first, second = (asked.body for asked in fake.asked)
    question = [{"role": "system", "content": "Answer."}, {"role": "user", "content": "What is 6 times 7?"}]
    assert first["messages"] == question
    assert [tool["function"]["name"] for tool in first["tools"]] == ["calculate"]
    function = {"name": "calculate", "arguments": '{"expression":"6*7"}'}
    assert second["messages"] == [
        *question,
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [{"id": plain_id(made["call_id"]), "type": "function", "function": function}],
        },
        {"role": "tool", "content": "42", "tool_call_id": plain_id(made["call_id"]), "name": "calculate"},
    ]


@pytest.mark.feature("A01")
async def test_regression_23_tokens_are_shown_while_the_model_still_speaks(
    server: RunningServer, fake: ModelEndpoint
) -> None:
    fake.reply(*stream(chunk(reasoning_content="hm"), text("so"), done=False), then="hang")
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await client.say("Hello")
        parts: dict[str, str] = {}
        while len(parts) < 2:
            delta = client.payload(await client.until("message_delta"))
            parts[delta["part"]] = delta["text"]
        assert parts == {"reasoning": "hm", "content": "so"}
        # Cancelling reaches the endpoint: what nobody reads is not to be paid for.
        assert (await client.send(type="cancel"))[0] == 200
        await asyncio.wait_for(fake.left.wait(), PATIENCE)
        assert client.payload(await client.until("task_completed"))["status"] == "cancelled"


@pytest.mark.feature("A06")
@pytest.mark.parametrize(
    ("status", "code", "retryable"), [(401, "model_unauthorized", False), (429, "model_rate_limited", True)]
)
async def test_regression_14_a_refusal_is_an_event_and_no_message(
    server: RunningServer, fake: ModelEndpoint, status: int, code: str, *, retryable: bool
) -> None:
    fake.refuse(status, f"The key {KEY} is no good")
    session = await server.create_session()
    async with connect(server, session, "sse") as client:
        await client.say("Hello")
        error = client.payload(await client.until("turn_error"))
        assert (error["code"], error["retryable"]) == (code, retryable)
        assert "The key *** is no good" in error["message"]
        done = client.payload(await client.until("task_completed"))
        assert (done["status"], done["error"]["code"]) == ("failed", code)
        assert [message["role"] for message in await server.history(session)] == ["user"]
        # The next turn goes on from what was said, of which the error is no part.
        fake.reply(*answer("Hi"))
        await client.say("Again")
        await client.until("task_completed")
    said: list[dict[str, Any]] = fake.asked[-1].body["messages"]
    assert [message["content"] for message in said] == ["Answer.", "Hello\n\nAgain"]
    assert KEY.encode() not in b"".join(event.payload for event in client.events)


async def test_an_answer_that_breaks_is_closed_and_its_error_is_never_fed_back(
    server: RunningServer, fake: ModelEndpoint
) -> None:
    fake.reply(*stream(text("half an ans"), {"error": {"message": "engine on fire"}}))
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await client.say("Hello")
        closed = client.payload(await client.until("message_created", lambda message: message["role"] == "assistant"))
        assert (closed["content"], closed["finish_reason"]) == ("half an ans", "error")
        assert "engine on fire" in client.payload(await client.until("turn_error"))["message"]
        await client.until("task_completed")
        fake.reply(*answer("Hi"))
        await client.say("Again")
        await client.until("task_completed")
    assert b"fire" not in msgspec.json.encode(fake.asked[-1].body)


@pytest.mark.feature("A06")
async def test_arguments_without_sense_are_answered_to_the_model(server: RunningServer, fake: ModelEndpoint) -> None:
    fake.reply(*stream(calls(call(0, "a", "calculate", "{oops")), chunk("tool_calls")))
    fake.reply(*answer("Sorry"))
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await client.say("Hello")
        result = client.payload(await client.until("tool_result"))
        assert "not valid JSON" in result["error"]
        assert client.payload(await client.until("task_completed"))["status"] == "completed"
    tried, answered = fake.asked[1].body["messages"][-2:]
    assert msgspec.json.decode(tried["tool_calls"][0]["function"]["arguments"]) == {"not_json": "{oops"}
    assert answered["content"] == result["error"]


@pytest.mark.feature("A06", "A01")
async def test_calls_in_parallel_are_each_answered_once(server: RunningServer, fake: ModelEndpoint) -> None:
    sums = [f"{number}+{number}" for number in range(4)]
    # All at once, in pieces that take turns, and without ids.
    begun = [call(number, None, "calculate", '{"expression":') for number in range(4)]
    ended = [call(number, arguments=f'"{one}"}}') for number, one in enumerate(sums)]
    fake.reply(*stream(calls(*begun), calls(*reversed(ended)), chunk("tool_calls")))
    fake.reply(*answer("done"))
    session = await server.create_session()
    async with connect(server, session, "sse") as client:
        await client.say("Add them")
        await client.until("task_completed")
        results = [client.payload(event) for event in client.events if event.event_type == "tool_result"]
    assert [result["result"] for result in results] == [0, 2, 4, 6]
    assert [message["content"] for message in fake.asked[1].body["messages"][-4:]] == ["0", "2", "4", "6"]


@pytest.mark.feature("A06")
async def test_a_model_may_repair_what_it_wrote(server: RunningServer, fake: ModelEndpoint) -> None:
    for arguments in ('{"expression": "6*7"', '["6*7"]', '{"expresion": "6*7"}', '{"expression": "6*7"}'):
        fake.reply(*stream(calls(call(0, "a", "calculate", arguments)), chunk("tool_calls")))
    fake.reply(*answer("42"))
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await client.say("6*7?")
        assert client.payload(await client.until("task_completed"))["status"] == "completed"
        results = [client.payload(event) for event in client.events if event.event_type == "tool_result"]
    assert [result.get("result") for result in results] == [None, None, None, 42]
    assert [message["content"] for message in fake.asked[-1].body["messages"] if message["role"] == "tool"] == [
        *(result["error"] for result in results[:3]),
        "42",
    ]
    assert "'expression' is missing" in results[2]["error"]


@pytest.mark.feature("A06")
async def test_thoughts_come_back_from_the_database_where_they_are_wanted(
    make_server: MakeServer, fake: ModelEndpoint
) -> None:
    model = ModelSettings(model="test-model", base_url=fake.url, max_retries=0)
    server = await make_server(agents=AGENTS, model=model)
    fake.reply(
        *stream(
            chunk(reasoning_content="multi"),
            chunk(reasoning_content="ply"),
            calls(call(0, "a", "calculate", '{"expression": "6*7"}')),
            chunk("tool_calls"),
        )
    )
    fake.refuse(400, "The `reasoning_content` in the thinking mode must be passed back to the API.")
    fake.reply(*answer("42"))
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await client.say("6*7?")
        assert client.payload(await client.until("task_completed"))["status"] == "completed"
    assert fake.asked[2].body["messages"][2]["reasoning_content"] == "multiply"
    assert "reasoning_content" not in str(fake.asked[1].body)


@pytest.mark.feature("A06", "A04")
async def test_what_is_said_after_a_stop_is_answered(server: RunningServer, fake: ModelEndpoint) -> None:
    fake.reply(*stream(calls(call(0, "a", "calculate", '{"expression": "6*7"}')), chunk("tool_calls")))
    fake.reply(then="hang")
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await client.say("6*7?")
        await asyncio.wait_for(fake.hanging.wait(), PATIENCE)
        assert (await client.send(type="cancel"))[0] == 200
        assert client.payload(await client.until("task_completed"))["status"] == "cancelled"
        fake.refuse(400, "Unexpected role 'user' after role 'tool'")
        fake.reply(*answer("Hi"))
        await client.say("Hello?")
        assert client.payload(await client.until("task_completed"))["status"] == "completed"
    assert [message["role"] for message in fake.asked[-1].body["messages"][1:]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]


@pytest.mark.feature("A06")
async def test_a_session_never_becomes_too_long_for_its_model(server: RunningServer, fake: ModelEndpoint) -> None:
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        for number in range(3):
            fake.reply(*answer(f"answer {number}"))
            await client.say(f"question {number} ".ljust(500, "."))
            await client.until("task_completed")
        fake.refuse(400, "This model's maximum context length is 500 tokens")
        fake.reply(*answer("fine"))
        await client.say("And now?")
        assert client.payload(await client.until("task_completed"))["status"] == "completed"
        # What cannot be said shorter is told, with advice, and stands in nobody's way afterwards.
        for _ in range(5):
            fake.refuse(400, "This model's maximum context length is 500 tokens")
        await client.say("z" * 5000)
        error = client.payload(await client.until("turn_error"))
        assert (error["code"], error["retryable"]) == ("model_context_exceeded", False)
        assert "say it in parts" in error["message"]
        await client.until("task_completed")
    said = [message["content"].rstrip(" .") for message in fake.asked[4].body["messages"]]
    assert "question 0" not in said
    assert said[-2:] == ["answer 2", "And now?"]
    assert len(await server.history(session)) == 9


async def test_an_endpoint_that_comes_up_later_is_found(make_server: MakeServer) -> None:
    # Nobody else can get the port, and nobody listens on it yet.
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
    server = await make_server(agents=AGENTS, model=ModelSettings(model="m", base_url=url, max_retries=0))
    session = await server.create_session()
    async with connect(server, session, "sse") as client:
        await client.say("Hello?")
        error = client.payload(await client.until("turn_error"))
        assert (error["code"], error["retryable"]) == ("model_unreachable", True)
        assert url.removesuffix("/v1") in error["message"]
        await client.until("task_completed")
        async with model_endpoint(bound) as late:
            late.reply(*answer("Hello"))
            await client.say("Hello??")
            assert client.payload(await client.until("task_completed"))["status"] == "completed"


async def test_stopping_the_server_leaves_the_turn_to_the_next_process(
    make_server: MakeServer, fake: ModelEndpoint
) -> None:
    model = ModelSettings(model="test-model", base_url=fake.url)
    first = await make_server(agents=AGENTS, model=model)
    fake.reply(*stream(text("to be "), done=False), then="hang")
    session = await first.create_session()
    await first.command(session, type="user_message", content="Hello")
    await asyncio.wait_for(fake.hanging.wait(), PATIENCE)
    await first.stop()
    await asyncio.wait_for(fake.left.wait(), PATIENCE)
    fake.reply(*answer("done"))
    second = await make_server(agents=AGENTS, model=model)
    async with connect(second, session, "ws-json", after=0) as client:
        await client.until("task_completed")
    assert [message["content"] for message in await second.history(session)] == ["Hello", "done"]
