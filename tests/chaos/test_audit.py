"""The audit of a quiet log: it must notice what no log may hold."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.chaos.audit import audit
from tests.support.checker import Ledger, Record

ACK = {"id": "c", "status": "accepted", "seq": 1, "message_id": "u"}
USER = ("message_created", {"message_id": "u", "role": "user", "content": "hi", "turn_id": "t", "command_id": "c"})
STARTED = ("task_started", {"turn_id": "t", "message_id": "u"})
CALLS = (
    "message_created",
    {"message_id": "k", "role": "assistant", "turn_id": "t", "content": "", "attempt": 1, "finish_reason": "tool_calls"}
    | {"tool_calls": [{"call_id": "1"}]},
)
CALL = ("tool_call", {"turn_id": "t", "call_id": "1"})
RESULT = ("tool_result", {"turn_id": "t", "call_id": "1"})
ANSWER = (
    "message_created",
    {"message_id": "a", "role": "assistant", "turn_id": "t", "content": "ho", "attempt": 1, "finish_reason": "stop"},
)
DONE = ("task_completed", {"turn_id": "t", "status": "completed"})

Event = tuple[str, dict[str, Any]]
WHOLE: list[Event] = [USER, STARTED, CALLS, CALL, RESULT, ANSWER, DONE]


def ledger(*events: Event) -> Ledger:
    one = Ledger("s")
    one.sent["c"] = {"content": "hi", "answer": "ho"}
    one.acks["c"] = ACK
    one.opened["a"] = 1
    for seq, (event_type, body) in enumerate(events, 1):
        one.events[seq] = Record(event_type, "now", msgspec.json.encode(body))
    return one


def changed(event: Event, **fields: Any) -> Event:
    return event[0], {**event[1], **fields}


def test_a_whole_turn_passes() -> None:
    assert audit(ledger(*WHOLE)).counts["completed"] == 1


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([], id="an acknowledged message lost"),
        pytest.param(WHOLE[:-1], id="a turn without an end"),
        pytest.param([*WHOLE, *WHOLE], id="everything twice"),
        pytest.param([*WHOLE, changed(USER, message_id="v", turn_id="w")], id="a command with two effects"),
        pytest.param([*WHOLE, DONE], id="two ends"),
        pytest.param([USER, STARTED, CALLS, CALL, ANSWER, DONE], id="a call without a result"),
        pytest.param([USER, STARTED, CALLS, CALL, RESULT, RESULT, ANSWER, DONE], id="a call with two results"),
        pytest.param([USER, STARTED, CALLS, CALL, RESULT, DONE], id="a begun message that never ended"),
        pytest.param([*WHOLE[:5], ANSWER, ANSWER, DONE], id="an answer twice"),
        pytest.param([*WHOLE[:5], changed(ANSWER, content="h"), DONE], id="half an answer called complete"),
        pytest.param([*WHOLE[:5], DONE, ANSWER], id="an answer after the end"),
        pytest.param([changed(USER, content="hey"), *WHOLE[1:]], id="another message than was sent"),
        pytest.param([changed(USER, command_id="d"), *WHOLE[1:]], id="a message that nobody sent"),
    ],
)
def test_a_wrong_log_fails(events: list[Event]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        audit(ledger(*events))


def test_a_hole_fails() -> None:
    one = ledger(*WHOLE)
    del one.events[3]
    with pytest.raises(AssertionError, match="hole"):
        audit(one)


def test_a_refused_command_must_have_no_effect() -> None:
    one = ledger(*WHOLE)
    del one.acks["c"]
    with pytest.raises(AssertionError):
        audit(one)
