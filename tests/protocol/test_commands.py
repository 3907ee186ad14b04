"""What each command allows, and what it refuses by name."""

from __future__ import annotations

import json
from typing import Any, get_args
from uuid import UUID

import pytest

from protocol.codec import decode_command
from protocol.commands import (
    COMMANDS,
    STORED,
    Command,
    HitlDecision,
    QueueUpdate,
    RefreshToken,
    TextPart,
    ToolResult,
    UserMessage,
    text_of,
)
from protocol.errors import ErrorCode, ParleyError

TURN = "018f0000-0000-7000-8000-000000000001"


def decode(**fields: Any) -> Command:
    return decode_command(json.dumps(fields))


def refusal(**fields: Any) -> ParleyError:
    with pytest.raises(ParleyError) as caught:
        decode(**fields)
    assert caught.value.code is ErrorCode.INVALID
    return caught.value


def test_the_table_is_the_union() -> None:
    assert set(COMMANDS.values()) == set(get_args(Command))
    assert {kind.__struct_config__.tag: kind for kind in COMMANDS.values()} == COMMANDS


def test_what_is_stored() -> None:
    assert {kind.__struct_config__.tag for kind in STORED} == {
        "user_message",
        "tool_result",
        "switch_agent",
        "hitl_decision",
        "cancel",
        "queue_update",
    }


@pytest.mark.feature("S24")
def test_user_message() -> None:
    command = decode(type="user_message", id="c1", content="hello", agent_type="coder")
    assert command == UserMessage(id="c1", content="hello", agent_type="coder", on_busy="enqueue")
    parts = decode(type="user_message", id="c1", content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    assert isinstance(parts, UserMessage)
    assert parts.content == [TextPart(text="a"), TextPart(text="b")]
    assert text_of(parts.content) == "ab"
    assert text_of("ab") == "ab"


@pytest.mark.feature("S25")
def test_tool_result() -> None:
    assert decode(type="tool_result", id="c1", call_id="t", result={"a": [1]}) == ToolResult(
        id="c1", call_id="t", result={"a": [1]}
    )
    assert decode(type="tool_result", id="c1", call_id="t", error="no such file") == ToolResult(
        id="c1", call_id="t", error="no such file"
    )
    # A tool that returns nothing has returned.
    assert decode(type="tool_result", id="c1", call_id="t") == ToolResult(id="c1", call_id="t")


@pytest.mark.feature("S27")
def test_hitl_decision() -> None:
    command = decode(type="hitl_decision", id="c1", call_id="t", decision="edit", modified_arguments={"path": "b"})
    assert command == HitlDecision(id="c1", call_id="t", decision="edit", modified_arguments={"path": "b"})


def test_regression_17_an_edit_carries_its_arguments_and_decisions_have_one_spelling() -> None:
    decision: dict[str, Any] = {"type": "hitl_decision", "id": "c1", "call_id": "t"}
    assert "modified_arguments" in refusal(**decision, decision="edit").message
    assert "modified_arguments" in refusal(**decision, decision="approve", modified_arguments={}).message
    for spelling in ("approved", "APPROVE", "Approve", "rejected", ""):
        error = refusal(**decision, decision=spelling)
        assert error.path == "$.decision"
        assert error.message.endswith("allowed are approve, edit, reject, respond")


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"type": "user_message"}, "$.id", "missing required field `id`"),
        ({"type": "user_message", "id": "c1"}, "$.content", "missing required field `content`"),
        ({"type": "user_message", "id": "c1", "content": ""}, "$.content", "length >= 1"),
        ({"type": "user_message", "id": "c1", "content": []}, "$.content", "length >= 1"),
        ({"type": "user_message", "id": "c1", "content": 5}, "$.content", "got `int`"),
        ({"type": "user_message", "id": "c1", "content": [{"type": "image"}]}, "$.content[0].type", "allowed are text"),
        ({"type": "user_message", "id": "c 1", "content": "a"}, "$.id", "1-128 characters out of"),
        ({"type": "user_message", "id": "c1\n", "content": "a"}, "$.id", "1-128 characters out of"),
        ({"type": "user_message", "id": "c1", "content": "a", "on_bussy": "reject"}, "$.on_bussy", "unknown field"),
        ({"type": "user_message", "id": "c1", "content": "a", "on_busy": "wait"}, "$.on_busy", "allowed are enqueue"),
        ({"type": "user_message", "id": "c1", "content": "a", "n": 0}, "$.n", ">= 1"),
        ({"type": "user_message", "id": "c1", "content": "a", "n": 1.5}, "$.n", "Expected `int"),
        ({"type": "tool_result", "id": "c1", "call_id": ""}, "$.call_id", "length >= 1"),
        ({"type": "tool_result", "id": "c1", "call_id": "t", "result": 1, "error": "x"}, "$", "not both"),
        ({"type": "hitl_decision", "id": "c1", "call_id": "t", "decision": "respond"}, "$", "`feedback`"),
        (
            {"type": "hitl_decision", "id": "c1", "call_id": "t", "decision": "approve", "remember": {"scope": "all"}},
            "$.remember.scope",
            "allowed are call, session, user",
        ),
        (
            {"type": "hitl_decision", "id": "c1", "call_id": "t", "decision": "respond", "feedback": "x"}
            | {"remember": {"scope": "call"}},
            "$",
            "remembered",
        ),
        ({"type": "cancel", "id": "c1", "turn_id": "now"}, "$.turn_id", "Invalid UUID"),
        ({"type": "queue_update", "id": "c1"}, "$", "exactly one"),
        ({"type": "queue_update", "id": "c1", "order": [TURN], "remove": TURN}, "$", "exactly one"),
        ({"type": "queue_update", "id": "c1", "order": [TURN, TURN]}, "$", "twice"),
        (
            {"type": "register_tools", "id": "c1", "tools": [{"name": "a b", "parameters": {}}]},
            "$.tools[0].name",
            "1-64 characters out of",
        ),
        ({"type": "register_tools", "id": "c1", "tools": [{"name": "a", "parameters": {}}] * 2}, "$", "twice"),
        ({"type": "tool_progress", "id": "c1", "call_id": "t", "fraction": 2}, "$.fraction", "<= 1.0"),
        ({"type": "refresh_token", "id": "c1", "token": ""}, "$.token", "length >= 1"),
        ({"type": "say"}, "$.type", "allowed are user_message, "),
        ({"type": ["ping"]}, "$.type", "Expected `str`"),
        ({"id": "c1"}, "$.type", "missing required field `type`"),
    ],
)
def test_a_refusal_names_field_and_rule(fields: dict[str, Any], path: str, words: str) -> None:
    error = refusal(**fields)
    assert error.path == path
    assert words in error.message
    assert error.id == (fields["id"] if fields.get("id") == "c1" else None)


def test_a_token_is_not_shown_in_logs() -> None:
    command = decode(type="refresh_token", id="c1", token="secret")
    assert isinstance(command, RefreshToken)
    assert command.token == "secret"
    assert "secret" not in repr(command)


def test_queue_update() -> None:
    assert decode(type="queue_update", id="c1", remove=TURN) == QueueUpdate(id="c1", remove=UUID(TURN))
    assert decode(type="queue_update", id="c1", order=[TURN]) == QueueUpdate(id="c1", order=[UUID(TURN)])
