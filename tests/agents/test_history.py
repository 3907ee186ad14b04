from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.events import ToolCallRequest
from server.agents.history import NO_RESULT, StoredMessage, build_history
from server.agents.interface import HistoryMessage


def said(content: str, number: int | None = None) -> StoredMessage:
    return StoredMessage(role="user", content=content, message_id=None if number is None else UUID(int=number))


def called(*call_ids: str, content: str = "", finish_reason: str = "tool_calls") -> StoredMessage:
    calls = tuple(ToolCallRequest(call_id=call_id, name="clock", arguments="{}") for call_id in call_ids)
    return StoredMessage(role="assistant", content=content, tool_calls=calls, finish_reason=finish_reason)


def answered(call_id: str, content: str) -> StoredMessage:
    return StoredMessage(role="tool", call_id=call_id, content=content, name="clock")


def shape(history: list[HistoryMessage]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in history]


def test_regression_11_the_current_message_is_there_exactly_once() -> None:
    stored = [said("first", 1), StoredMessage(role="assistant", content="yes"), said("now", 2)]
    assert shape(build_history(stored)) == [("user", "first"), ("assistant", "yes"), ("user", "now")]
    assert build_history(stored, stored[-1]) == build_history(stored)
    assert build_history(stored[:-1], stored[-1]) == build_history(stored)
    # The same words twice are two messages.
    assert shape(build_history([said("now", 1)], said("now", 2))) == [("user", "now"), ("user", "now")]


def test_regression_12_every_call_has_exactly_one_result() -> None:
    history = build_history([said("go"), called("a", "b", "c"), answered("b", "2"), answered("a", "1"), said("on")])
    assert [(message.role, message.call_id, message.content) for message in history] == [
        ("user", None, "go"),
        ("assistant", None, ""),
        ("tool", "a", "1"),
        ("tool", "b", "2"),
        ("tool", "c", NO_RESULT),
        ("user", None, "on"),
    ]
    assert [message.name for message in history if message.role == "tool"] == ["clock"] * 3


def test_regression_12_a_second_result_and_one_without_a_call_are_left_out() -> None:
    history = build_history([answered("x", "0"), said("go"), called("a"), answered("a", "1"), answered("a", "again")])
    assert shape(history) == [("user", "go"), ("assistant", ""), ("tool", "1")]


def test_a_result_that_comes_after_other_messages_is_moved_to_its_call() -> None:
    history = build_history([said("go"), called("a"), said("wait"), answered("a", "1")])
    assert shape(history) == [("user", "go"), ("assistant", ""), ("tool", "1"), ("user", "wait")]


def test_an_id_that_is_used_again_gets_the_result_that_follows_it() -> None:
    history = build_history([called("a"), answered("a", "1"), called("a"), answered("a", "2")])
    assert shape(history) == [("assistant", ""), ("tool", "1"), ("assistant", ""), ("tool", "2")]
    history = build_history([called("a"), called("a"), answered("a", "1")])
    assert shape(history) == [("assistant", ""), ("tool", NO_RESULT), ("assistant", ""), ("tool", "1")]


@pytest.mark.parametrize("reason", ["error", "cancelled", "interrupted"])
def test_regression_14_what_was_cut_short_before_it_said_anything_is_left_out(reason: str) -> None:
    empty = StoredMessage(role="assistant", content=" \n", finish_reason=reason)
    partial = StoredMessage(role="assistant", content="I was say", finish_reason=reason)
    assert shape(build_history([said("go"), empty, said("again")])) == [("user", "go"), ("user", "again")]
    assert shape(build_history([said("go"), partial])) == [("user", "go"), ("assistant", "I was say")]
    # A call that was still being written was never made.
    assert shape(build_history([said("go"), called("a", finish_reason=reason)])) == [("user", "go")]


def test_calls_count_on_assistant_messages_only() -> None:
    odd = StoredMessage(role="user", content="x", tool_calls=called("a").tool_calls)
    assert build_history([odd])[0].tool_calls == ()
    assert len(build_history([odd, answered("a", "1")])) == 1


_ids = st.sampled_from(["a", "b", "c"])
_calls = st.lists(_ids.map(lambda i: ToolCallRequest(call_id=i, name="t", arguments="{}")), max_size=3).map(tuple)
_messages = st.lists(
    st.builds(
        StoredMessage,
        role=st.sampled_from(["system", "user", "assistant", "tool"]),
        content=st.sampled_from(["", " ", "x", "y"]),
        tool_calls=_calls,
        call_id=st.none() | _ids,
        message_id=st.none() | st.integers(1, 5).map(lambda number: UUID(int=number)),
        finish_reason=st.sampled_from([None, "stop", "tool_calls", "cancelled", "error"]),
    ),
    max_size=12,
)


@given(_messages)
def test_what_models_require_holds_whatever_is_stored(stored: list[StoredMessage]) -> None:
    history = build_history(stored)
    position = 0
    while position < len(history):
        message = history[position]
        # Results were consumed with the message that asked for them.
        assert message.role != "tool"
        assert message.role != "assistant" or message.tool_calls or message.content.strip()
        results = history[position + 1 : position + 1 + len(message.tool_calls)]
        assert [(item.role, item.call_id) for item in results] == [("tool", c.call_id) for c in message.tool_calls]
        position += 1 + len(message.tool_calls)
    ids = [message.message_id for message in history if message.message_id is not None]
    assert len(ids) == len(set(ids))
    users = [message.content for message in history if message.role == "user" and message.message_id is None]
    assert users == [message.content for message in stored if message.role == "user" and message.message_id is None]
