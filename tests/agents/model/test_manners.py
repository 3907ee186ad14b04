"""Endpoints that want to be asked otherwise than OpenAI: what a refusal teaches, and for how long it is known."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.events import ToolCallRequest
from server.agents.interface import HistoryMessage
from server.agents.model.agent import ModelAgent
from server.agents.model.manners import Manners, learn
from server.agents.model.names import plain_id
from server.agents.model.prompt import STOPPED
from tests.agents.model.support import CODER, Bench, bench
from tests.agents.support import assistant, result, run, user
from tests.support.model_endpoint import answer

CALL = ToolCallRequest(call_id="0197-call", name="read_file", arguments="{}")


def thinking(content: str, thought: str | None, *calls: ToolCallRequest) -> HistoryMessage:
    return HistoryMessage(role="assistant", content=content, reasoning=thought, tool_calls=calls)


async def second_body(one: Bench, said: str, *history: HistoryMessage) -> dict[str, Any]:
    """What is asked after a refusal in these words."""
    one.fake.refuse(400, said)
    one.fake.reply(*answer("fine"))
    assert (await one.step(*history)).text == "fine"
    assert len(one.fake.asked) == 2
    assert one.clock.sleeps == []
    return one.fake.asked[1].body


# --- reasoning


CONVERSATION = (
    user("Read it"),
    thinking("", "I need the file.", CALL),
    result(CALL, "print()"),
    thinking("It prints.", None),
    user("And?"),
)


@pytest.mark.feature("A06")
async def test_reasoning_stays_here_unless_it_is_asked_for() -> None:
    async with bench() as one:
        one.fake.reply(*answer("x"))
        await one.step(*CONVERSATION)
        assert "I need the file" not in str(one.fake.asked[0].body)


@pytest.mark.feature("A06")
@pytest.mark.parametrize(
    "said",
    [
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "Missing `reasoning_content` field in the assistant message at message index 2.",
    ],
)
async def test_who_wants_to_read_its_thoughts_again_gets_them_from_then_on(said: str) -> None:
    async with bench() as one:
        messages = (await second_body(one, said, *CONVERSATION))["messages"]
        thoughts = [message["reasoning_content"] for message in messages if message["role"] == "assistant"]
        # Also the empty field: one that is missing is what it refuses.
        assert thoughts == ["I need the file.", ""]
        assert not any("reasoning_content" in message for message in messages if message["role"] != "assistant")
        one.fake.reply(*answer("y"))
        await one.step(*CONVERSATION)
        assert one.fake.asked[2].body["messages"][2]["reasoning_content"] == "I need the file."


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning_is_sent_under_the_name_that_is_configured(field: str) -> None:
    async with bench(reasoning_field=field) as one:
        one.fake.reply(*answer("x"))
        await one.step(*CONVERSATION)
        assert one.fake.asked[0].body["messages"][2][field] == "I need the file."


# --- the rest


async def test_newer_models_have_another_name_for_the_limit() -> None:
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    async with bench(max_tokens=9) as one:
        body = await second_body(one, said, user("Hello"))
    assert (body["max_completion_tokens"], "max_tokens" in body, "stream_options" in body) == (9, False, True)


async def test_results_that_nobody_answered_are_closed_where_that_is_wanted() -> None:
    stopped = (user("Read it"), assistant("", CALL), result(CALL, "Cancelled by the user"), user("Never mind"))
    async with bench() as one:
        messages = (await second_body(one, "Unexpected role 'user' after role 'tool'", *stopped))["messages"]
    assert [(message["role"], message["content"]) for message in messages[-2:]] == [
        ("assistant", STOPPED),
        ("user", "Never mind"),
    ]


async def test_several_things_are_learnt_one_after_the_other() -> None:
    async with bench(max_tokens=9) as one:
        one.fake.refuse(422, "Extra inputs are not permitted")
        one.fake.refuse(400, "use max_completion_tokens")
        one.fake.refuse(400, "reasoning_content is missing")
        one.fake.reply(*answer("at last"))
        assert (await one.step(*CONVERSATION)).text == "at last"
        body = one.fake.asked[3].body
        assert ("stream_options" in body, body["max_completion_tokens"]) == (False, 9)
        assert body["messages"][2]["reasoning_content"] == "I need the file."


async def test_what_one_model_wants_is_not_asked_of_another() -> None:
    async with bench() as one:
        await second_body(one, "Unknown parameter: stream_options", user("Hello"))
        one.fake.reply(*answer("x"))
        other = ModelAgent(replace(CODER, model="another"), one.endpoint)
        await run(other, one.context())
        assert ["stream_options" in asked.body for asked in one.fake.asked] == [True, False, True]


@pytest.mark.parametrize(
    "said", ["unknown", "reasoning_content", "max_completion_tokens", "role 'user' after role 'tool'"]
)
async def test_who_refuses_for_ever_is_not_asked_for_ever(said: str) -> None:
    async with bench() as one:
        for _ in range(10):
            one.fake.refuse(400, said)
        assert (await one.failure()).code == "model_refused"
        assert len(one.fake.asked) == 2


@given(st.text(max_size=60))
def test_learning_comes_to_an_end(said: str) -> None:
    words = f"{said} stream_options max_completion_tokens reasoning_content role user after role tool"
    manners: Manners | None = Manners()
    for _ in range(4):
        assert manners is not None
        manners = learn(manners, words)
    assert manners is not None
    assert learn(manners, words) is None


# --- what no endpoint refuses


async def test_questions_without_an_answer_between_them_are_one() -> None:
    async with bench() as one:
        one.fake.reply(*answer("x"))
        await one.step(user("Hello"), user("Are you there?"), assistant("Yes"), user("Good"))
        assert [message["content"] for message in one.fake.asked[0].body["messages"][1:]] == [
            "Hello\n\nAre you there?",
            "Yes",
            "Good",
        ]


async def test_what_two_people_say_stays_apart() -> None:
    async with bench() as one:
        one.fake.reply(*answer("x"))
        ada, bob = (HistoryMessage(role="user", content="Hello", name=name) for name in ("Ada", "Bob"))
        # Two of the user's in a row are refused by the strictest endpoints; who gives names has others.
        await one.failure(ada, bob)
        assert [message["name"] for message in one.fake.asked[0].body["messages"][1:]] == ["Ada", "Bob"]


@given(st.sets(st.text(max_size=40), max_size=50))
def test_ids_are_nine_letters_and_digits_and_stay_apart(ids: set[str]) -> None:
    made = {plain_id(call_id) for call_id in ids}
    assert len(made) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9]{9}", one) for one in made)
    assert made == {plain_id(call_id) for call_id in ids}
