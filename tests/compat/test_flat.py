"""The flat teller by itself: what it makes of events that come late, twice, in pieces, or from a newer server."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

from protocol.cursor import Cursor
from protocol.envelope import Event, payload_json
from protocol.events import (
    EVENT_NAMES,
    AgentStatusChanged,
    ApprovalRequired,
    Heartbeat,
    MessageCreated,
    MessageDelta,
    Payload,
    QueueChanged,
    Sync,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolCallRequest,
    Usage,
)
from server.compat.flat import FlatTeller, Origin
from server.compat.wires import OwnWire

TIME = "2026-01-02T00:00:00.000Z"
MESSAGE, ANSWER, TURN = uuid4(), uuid4(), uuid4()
SYNC = Sync(from_="e.0", through="e.9")
STARTED = TaskStarted(turn_id=TURN, message_id=MESSAGE, agent_type="a", agent_id=uuid4(), agent_name="A")
DONE = {"type": "done", "is_final": True, "metadata": {"status": "completed"}}


def event(payload: Payload) -> Event:
    return Event(EVENT_NAMES[type(payload)], str(uuid4()), TIME, payload_json(payload), cursor=Cursor("e", 1))


def tell(teller: FlatTeller, *payloads: Payload) -> list[dict[str, Any]]:
    """The chunks about these events, which come at once."""
    data = b"".join(teller.told([event(payload) for payload in payloads]))
    return [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: ")]


def delta(text: str, offset: int, attempt: int = 1, message_id: UUID = ANSWER) -> MessageDelta:
    return MessageDelta(message_id=message_id, attempt=attempt, part="content", offset=offset, text=text)


def message(content: str, **more: Any) -> MessageCreated:
    return MessageCreated(message_id=ANSWER, role="assistant", content=content, timestamp=TIME, **more)


def completed(turn_id: UUID = TURN, **more: Any) -> TaskCompleted:
    return TaskCompleted(turn_id=turn_id, status="completed", usage=Usage(), steps=1, duration_ms=1, **more)


def begun() -> FlatTeller:
    teller = FlatTeller(Origin(MESSAGE, "c"))
    assert tell(teller, SYNC, STARTED) == []
    return teller


def tokens(chunks: list[dict[str, Any]]) -> list[str]:
    return [chunk["token"] for chunk in chunks]


def test_deltas_that_come_twice_or_merged_are_told_once() -> None:
    teller = begun()
    pieces = [delta("one ", 0), delta("one two ", 0), delta("two ", 4), delta("🎉 three", 8), delta("🎉 three", 8)]
    assert tokens(tell(teller, *pieces)) == ["one ", "two ", "🎉 three"]


def test_a_piece_that_is_missing_is_healed_by_the_whole() -> None:
    teller = begun()
    assert tokens(tell(teller, delta("one ", 0), delta("three", 8))) == ["one "]
    assert tell(teller, message("one two three"))[0]["content"] == "one two three"


def test_a_new_attempt_begins_anew() -> None:
    teller = begun()
    assert tokens(tell(teller, delta("wrong", 0), delta("ri", 0, attempt=2), delta("wronger", 0))) == ["wrong", "ri"]
    assert tokens(tell(teller, delta("right", 0, attempt=2))) == ["ght"]


def test_what_is_about_other_turns_is_not_told() -> None:
    teller = FlatTeller(Origin(MESSAGE, "c"))
    other = TaskStarted(turn_id=uuid4(), message_id=uuid4(), agent_type="a", agent_id=uuid4(), agent_name="A")
    assert tell(teller, SYNC, other, delta("not ours", 0), message("not ours"), completed()) == []
    assert tell(teller, STARTED, message("ours"), completed()) == [
        {"type": "assistant_message", "content": "ours", "is_final": True},
        DONE,
    ]
    assert teller.over
    assert tell(teller, STARTED, message("late"), completed()) == []


def test_a_message_that_was_taken_back_is_never_answered() -> None:
    teller = FlatTeller(Origin(MESSAGE, "c"))
    removed = QueueChanged(change="removed", message_id=MESSAGE)
    assert tell(teller, SYNC, QueueChanged(change="removed", message_id=uuid4())) == []
    assert tell(teller, removed) == [{"type": "done", "is_final": True, "metadata": {"status": "cancelled"}}]


def test_what_an_asked_agent_says_is_not_told() -> None:
    teller = begun()
    child = uuid4()
    asked = TaskStarted(
        turn_id=child, message_id=uuid4(), agent_type="b", agent_id=uuid4(), agent_name="B", parent_call_id="c1"
    )
    mine = MessageCreated(
        message_id=uuid4(), role="assistant", content="to the other", timestamp=TIME, parent_call_id="c1"
    )
    assert tell(teller, asked, delta("to the", 0, message_id=mine.message_id), mine) == []
    assert tokens(tell(teller, completed(child, parent_call_id="c1"), delta("to you", 0))) == ["to you"]


def step(*, asks: bool) -> tuple[MessageCreated, ToolCall, ToolCall, ApprovalRequired]:
    """A message that calls two tools, of which one may need approval."""
    wanted = [ToolCallRequest(call_id=name, name="write", arguments="{}") for name in ("c1", "c2")]
    calls = [
        ToolCall(call_id=name, turn_id=TURN, message_id=ANSWER, name="write", arguments={}, executor="server")
        for name in ("c1", "c2")
    ]
    approval = ApprovalRequired(
        approval_id=uuid4(),
        call_id="c2",
        turn_id=TURN,
        message_id=ANSWER,
        name="write",
        arguments={},
        arguments_hash="00",
        allowed_decisions=["approve", "reject"],
        expires_at=None,
    )
    return message("", tool_calls=wanted, finish_reason="tool_calls"), *calls, approval  # type: ignore[return-value]


def test_calls_are_told_when_it_is_known_which_need_approval_wherever_the_replay_was_cut() -> None:
    events = step(asks=True)
    for cut in range(len(events) + 1):
        teller = FlatTeller(Origin(MESSAGE, "c"))
        assert tell(teller, STARTED, *events[:cut]) == []
        assert tell(teller, *events[cut:]) == []
        told = tell(teller, SYNC)
        assert [(chunk.get("call_id"), chunk.get("requires_approval")) for chunk in told] == [
            ("c1", False),
            ("c2", True),
            (None, None),
        ]
        assert told[-1]["metadata"] == {"status": "waiting"}


def test_a_call_of_which_it_turns_out_later_that_it_needs_approval_is_told_again() -> None:
    teller = begun()
    made, one, two, approval = step(asks=True)
    assert [chunk["requires_approval"] for chunk in tell(teller, made, one, two)] == [False, False]
    again, rests = tell(teller, approval)
    assert (again["call_id"], again["requires_approval"], rests["type"]) == ("c2", True, "done")
    # A reminder of what is known is nothing new.
    assert tell(teller, approval) == []


def test_heartbeats_are_comments_and_unknown_events_are_passed_over() -> None:
    teller = begun()
    assert b"".join(teller.told([event(Heartbeat())])) == b": heartbeat\n\n"
    newer = Event("something_new", str(uuid4()), TIME, b'{"x":1}')
    assert b"".join(teller.told([newer])) == b""
    assert tell(teller, AgentStatusChanged(agent_type="a", status="waiting")) == []


def test_a_wire_is_its_connections_own() -> None:
    one, two = OwnWire(begun(), chunked=False), OwnWire(begun(), chunked=False)
    assert one == one  # noqa: PLR0124 - that it is equal to itself is the point
    assert one != two
    assert len({one, two}) == 2
    assert one.frame([]) == b""
    assert OwnWire(begun(), chunked=True).frame([event(Heartbeat())]) == b"d\r\n: heartbeat\n\n\r\n"
