"""Conversations that no longer fit a model."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.events import ToolCallRequest
from server.agents.interface import HistoryMessage
from server.agents.model.fitting import Rooms, fitting, size
from server.agents.model.prompt import LEFT_OUT
from tests.agents.model.support import bench
from tests.agents.support import assistant, result, run, user
from tests.support.model_endpoint import answer

TOO_LONG = "This model's maximum context length is 8192 tokens"


def exchange(number: int, length: int = 1000) -> list[HistoryMessage]:
    call = ToolCallRequest(call_id=f"call {number}", name="read_file", arguments="{}")
    question = user(f"question {number} ".ljust(length, "."))
    return [question, assistant("", call), result(call, "x" * length), assistant("y" * length)]


def conversation(count: int) -> list[HistoryMessage]:
    return [message for number in range(count) for message in exchange(number)] + [user("now")]


def questions(body: dict[str, list[dict[str, str]]]) -> list[str]:
    return [message["content"].rstrip(" .") for message in body["messages"] if message["role"] == "user"]


@pytest.mark.feature("A06")
async def test_a_conversation_that_is_too_long_goes_on_without_its_beginning() -> None:
    async with bench() as one:
        for _ in range(2):
            one.fake.refuse(400, TOO_LONG)
        one.fake.reply(*answer("fine"))
        assert (await one.step(*conversation(40))).text == "fine"
        assert one.clock.sleeps == []
        whole, half, quarter = (asked.body for asked in one.fake.asked)
    assert len(questions(whole)) == 41
    assert 15 <= len(questions(half)) <= 20
    assert 6 <= len(questions(quarter)) <= 10
    assert questions(quarter)[-2:] == ["question 39", "now"]
    # The model is told, and so can tell.
    assert LEFT_OUT not in whole["messages"][0]["content"]
    assert half["messages"][0] == {"role": "system", "content": f"You write code.\n\n{LEFT_OUT}"}


async def test_what_was_learnt_is_known_in_the_next_step_of_this_session_only() -> None:
    async with bench() as one:
        one.fake.refuse(413)
        for _ in range(3):
            one.fake.reply(*answer("x"))
        await one.step(*conversation(8))
        await one.step(*conversation(8))
        other = replace(one.context(*conversation(8)), session_id=UUID(int=9))
        await run(one.agent, other)
        counts = [len(questions(asked.body)) for asked in one.fake.asked]
    assert counts[0] == counts[3] == 9
    assert counts[1] == counts[2] < 9


async def test_a_question_that_is_too_long_by_itself_is_an_error_and_spoils_nothing() -> None:
    async with bench() as one:
        one.fake.refuse(400, TOO_LONG)
        one.fake.refuse(400, TOO_LONG)
        history = [*exchange(0), user("z" * 100_000)]
        error = await one.failure(*history)
        assert (error.code, error.retryable, len(one.fake.asked)) == ("model_context_exceeded", False, 2)
        assert "start a new session" in error.message
        assert "8192 tokens" in error.message
        # The next question does not drag it along.
        one.fake.reply(*answer("fine"))
        assert (await one.step(*history, assistant("(nothing)"), user("short"))).text == "fine"
        assert questions(one.fake.asked[2].body) == ["short"]


async def test_it_is_too_late_in_the_middle_of_an_answer() -> None:
    async with bench() as one:
        one.fake.reply(*answer("so")[:2], b'data: {"error": {"message": "maximum context length"}}\n\n')
        assert (await one.failure(*conversation(8))).code == "model_context_exceeded"
        assert len(one.fake.asked) == 1


async def test_a_history_that_begins_in_the_middle_begins_with_a_question() -> None:
    async with bench() as one:
        one.fake.reply(*answer("x"))
        await one.step(*exchange(0)[1:], *exchange(1))
        assert questions(one.fake.asked[0].body) == ["question 1"]
        assert LEFT_OUT in one.fake.asked[0].body["messages"][0]["content"]


def test_there_may_be_no_question_at_all() -> None:
    history = exchange(0)[1:]
    assert list(fitting(history, None)) == list(fitting(history, 1)) == history


HISTORIES = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.integers(0, 300)), min_size=1, max_size=60)


@given(HISTORIES, st.integers(0, 10_000))
def test_what_is_kept_is_an_end_of_whole_exchanges_that_fits(shape: list[tuple[str, int]], room: int) -> None:
    history = [user("x" * length) if role == "user" else assistant("x" * length) for role, length in shape]
    kept = list(fitting(history, room))
    assert kept == history[len(history) - len(kept) :]
    asked = [position for position, message in enumerate(history) if message.role == "user"]
    if asked:
        assert kept[0].role == "user"
        assert len(kept) >= len(history) - asked[-1]
        last = history[asked[-1] :]
        assert sum(map(size, kept)) <= room or kept == last


def test_the_beginning_stays_the_same_for_many_messages() -> None:
    room = 40_000
    beginnings = [fitting(conversation(count), room)[0].content for count in range(1, 200)]
    # A quarter of the room is freed at once, which holds three exchanges.
    assert len(set(beginnings)) < len(beginnings) / 2.5
    assert sum(map(size, fitting(conversation(200), room))) > room / 2


def test_only_so_many_sessions_are_remembered() -> None:
    rooms = Rooms(most=2)
    for number in (1, 2):
        rooms.refused(UUID(int=number), "m", 100)
    assert rooms.get(UUID(int=1), "m") == 50
    rooms.refused(UUID(int=3), "m", 100)
    assert [rooms.get(UUID(int=number), "m") for number in (1, 2, 3)] == [50, None, 50]
    assert rooms.get(UUID(int=1), "another") is None
