"""What an endpoint is asked: the conversation, the tools and the settings in its shapes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.events import ToolCallRequest
from server.agents.client_tools import CLIENT_TOOLS
from server.agents.interface import AgentDefinition, HistoryMessage, ToolSpec
from server.agents.model.agent import ModelAgent
from server.agents.model.names import plain_id
from server.version import VERSION
from tests.agents.model.support import CODER, KEY, bench
from tests.agents.support import assistant, context, result, run, user
from tests.support.model_endpoint import answer

CALL = ToolCallRequest(call_id="0197-call", name="read_file", arguments='{"path": "a.py"}')
SYSTEM = {"role": "system", "content": "You write code."}


async def asked(*history: HistoryMessage, tools: tuple[ToolSpec, ...] = (), **settings: Any) -> dict[str, Any]:
    """The body of the request that a step makes."""
    async with bench(**settings) as one:
        one.fake.reply(*answer("x"))
        await one.step(*history, tools=tools)
        return one.fake.asked[0].body


@pytest.mark.feature("A06")
async def test_the_least_that_is_asked() -> None:
    assert await asked(user("Hello")) == {
        "model": "test-model",
        "messages": [SYSTEM, {"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.feature("A06")
async def test_calls_and_their_results_go_back_under_ids_that_all_accept() -> None:
    other = ToolCallRequest(call_id="0198-call", name="clock", arguments="")
    body = await asked(
        user("Read it"),
        assistant("Reading.", CALL, other),
        result(CALL, "print()"),
        result(other, "noon"),
        user("And?"),
    )
    function = {"name": "read_file", "arguments": '{"path": "a.py"}'}
    assert body["messages"][2:5] == [
        {
            "role": "assistant",
            "content": "Reading.",
            "tool_calls": [
                {"id": plain_id("0197-call"), "type": "function", "function": function},
                {"id": plain_id("0198-call"), "type": "function", "function": {"name": "clock", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "content": "print()", "tool_call_id": plain_id("0197-call"), "name": "read_file"},
        {"role": "tool", "content": "noon", "tool_call_id": plain_id("0198-call"), "name": "clock"},
    ]


async def test_a_message_that_only_calls_has_no_content() -> None:
    body = await asked(user("Read it"), assistant("", CALL), result(CALL, ""))
    assert body["messages"][2]["content"] is None
    assert body["messages"][3]["content"] == ""


@pytest.mark.parametrize("written", ["{half", "[1]", "7", "null", "\ufffd"])
async def test_arguments_that_are_no_object_go_back_as_one(written: str) -> None:
    call = ToolCallRequest(call_id="c", name="f", arguments=written)
    body = await asked(user("x"), assistant("", call), result(call, "invalid"))
    sent = body["messages"][2]["tool_calls"][0]["function"]["arguments"]
    assert msgspec.json.decode(sent) == {"not_json": written}


async def test_names_are_made_plain() -> None:
    call = ToolCallRequest(call_id="c", name="functions.read file", arguments="{}")
    named = HistoryMessage(role="user", content="x", name="Ada Lovelace")
    messages = (await asked(named, assistant("", call), result(call, "y")))["messages"]
    assert messages[1]["name"] == "Ada_Lovelace"
    assert messages[2]["tool_calls"][0]["function"]["name"] == messages[3]["name"] == "functions_read_file"


async def test_an_agent_without_a_prompt_sends_no_system_message() -> None:
    async with bench() as one:
        one.fake.reply(*answer("x"))
        silent = ModelAgent(AgentDefinition(type="silent", name="Silent"), one.endpoint)
        await run(silent, context(silent, "Hello"))
        assert one.fake.asked[0].body["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.feature("A06")
async def test_tools_are_functions_with_our_schemas() -> None:
    spec, strange = CLIENT_TOOLS["read_file"], ToolSpec(name="my.tool", description="d" * 2000, parameters={})
    tools = (await asked(user("x"), tools=(spec, strange)))["tools"]
    assert tools[0] == {
        "type": "function",
        "function": {"name": "read_file", "description": spec.description, "parameters": spec.parameters},
    }
    assert tools[1]["function"]["name"] == "my_tool"
    assert len(tools[1]["function"]["description"]) == 1024


async def test_settings_are_sent_if_they_are_set_and_others_may_be_added() -> None:
    extra = {"seed": 7, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    body = await asked(user("x"), temperature=0.0, max_tokens=9, extra_body=extra)
    assert (body["temperature"], body["max_tokens"], body["seed"]) == (0.0, 9, 7)
    assert body["stream_options"]["continuous_usage_stats"] is True


@pytest.mark.feature("A06")
async def test_an_agent_may_have_a_model_of_its_own() -> None:
    async with bench() as one:
        one.fake.reply(*answer("x"))
        own = ModelAgent(msgspec.structs.replace(CODER, model="another"), one.endpoint)
        await run(own, context(own, "Hello"))
        assert one.fake.asked[0].body["model"] == "another"


async def test_headers() -> None:
    async with bench(extra_headers={"x-title": "Parley"}) as one:
        one.fake.reply(*answer("x"))
        await one.step()
        request = one.fake.asked[0]
    assert request.path == "/v1/chat/completions"
    sent = {name.title(): value for name, value in request.headers.items()}
    wanted = {
        "Authorization": f"Bearer {KEY}",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"parley-server/{VERSION}",
        "X-Title": "Parley",
    }
    assert sent.items() >= wanted.items()


async def test_without_a_key_none_is_sent_and_a_header_may_take_its_place() -> None:
    async with bench(api_key=None) as one:
        one.fake.reply(*answer("x"))
        await one.step()
        assert "Authorization" not in one.fake.asked[0].headers
    async with bench(extra_headers={"authorization": "Basic Zm9v"}) as one:
        one.fake.reply(*answer("x"))
        await one.step()
        assert one.fake.asked[0].headers["Authorization"] == "Basic Zm9v"
