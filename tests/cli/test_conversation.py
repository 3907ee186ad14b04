"""A chat's conversation without a terminal: what rarer events make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from msgspec import Raw

from protocol.client import HistoryMessage, Received
from protocol.durable import (
    AgentSwitched,
    QueueChanged,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolDispatched,
    ToolResultEvent,
)
from protocol.envelope import Envelope
from protocol.events import (
    EVENT_NAMES,
    AgentInfo,
    ApprovalRequired,
    Connected,
    Limits,
    MessageCreated,
    Payload,
    SessionInfo,
    ToolProgressEvent,
    TurnError,
    Usage,
)
from protocol.parts import ToolCallRequest
from server.cli.chat.conversation import Conversation
from server.cli.markdown import Painter, Row

ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))
MOMENT = "2026-01-02T03:04:05.678Z"


class Page:
    """A conversation, and what it has printed."""

    def __init__(self) -> None:
        self.printed: list[str] = []
        self.conversation = Conversation(Painter(60), self._put, now=lambda: 0.0)

    def _put(self, rows: Sequence[Row]) -> None:
        self.printed += [row.text for row in rows]

    def show(self, *payloads: Payload) -> Page:
        for payload in payloads:
            name = EVENT_NAMES[type(payload)]
            envelope = Envelope(event_type=name, session_id=str(ONE), timestamp=MOMENT, payload=Raw(b"{}"))
            self.conversation.show(Received(envelope, payload, b""))
        return self

    @property
    def open(self) -> list[str]:
        return [row.text for row in self.conversation.open()]


def created(content: str, role: str = "assistant", **fields: object) -> MessageCreated:
    return MessageCreated(message_id=ONE, role=role, content=content, timestamp=MOMENT, **fields)  # type: ignore[arg-type]


def connected(active_turn: UUID | None) -> Connected:
    session = SessionInfo(
        session_id=ONE,
        current_agent="coder",
        is_active=True,
        message_count=0,
        created_at=MOMENT,
        last_activity=MOMENT,
        active_turn=active_turn,
    )
    return Connected(
        client_id="me",
        cursor="e.1",
        session=session,
        limits=Limits(max_command_bytes=1, max_nesting=1),
        heartbeat_interval_ms=1000,
        agent=AgentInfo(type="coder", agent_id=ONE, name="Coder"),
        clients=[],
        server_version="0",
    )


def test_notes_and_calls_stand_together_and_what_is_said_apart() -> None:
    page = Page().show(
        created("hi", "user"),
        created("hello", agent_type="coder"),
        AgentSwitched(from_agent="coder", to_agent="debug", reason="it is\nbroken"),
        TurnError(turn_id=ONE, code="model_away", message="No answer", retryable=True),
        created("here", agent_type="debug"),
        created("again", agent_type="debug"),
    )
    assert page.printed == [
        *("> hi", "", "● coder", "hello", ""),
        *("debug takes over from coder: it is broken", "model_away: No answer", ""),
        *("● debug", "here", "", "again"),
    ]


def test_a_call_is_shown_while_it_runs_and_printed_when_it_is_done() -> None:
    call = ToolCall(
        call_id="c", turn_id=ONE, message_id=ONE, name="clock", arguments={"zone": "UTC"}, executor="server"
    )
    page = Page().show(call)
    assert page.open == ["", '▸ clock(zone="UTC") …']
    page.show(ToolResultEvent(call_id="c", turn_id=ONE, name="clock", executor="server", result={"time": 1}))
    assert (page.open, page.printed) == ([], ['▸ clock(zone="UTC") → {"time": 1}'])
    page.show(ToolResultEvent(call_id="unknown", turn_id=ONE, name="x", executor="client", error="no\nway"))
    assert page.printed[-1] == "✗ x() failed: no way"


def test_calls_that_never_end_go_with_their_turn() -> None:
    call = ToolCall(call_id="c", turn_id=ONE, message_id=ONE, name="clock", arguments={}, executor="client")
    end = TaskCompleted(turn_id=ONE, status="interrupted", usage=Usage(), steps=1, duration_ms=1)
    page = Page().show(call, end)
    assert (page.open, page.printed) == ([], ["the turn was interrupted"])


def test_what_waits_is_shown_in_its_order() -> None:
    page = Page().show(
        QueueChanged(change="added", message_id=ONE, content="first"),
        QueueChanged(change="added", message_id=TWO, content="second\nline"),
        QueueChanged(change="added", message_id=THREE, content="third"),
    )
    assert page.open == ["", "> first (waits)", "> second line (waits)", "> third (waits)"]
    page.show(QueueChanged(change="reordered", order=[THREE, ONE, TWO]))
    assert page.open[1] == "> third (waits)"
    page.show(QueueChanged(change="removed", message_id=ONE), QueueChanged(change="started", message_id=THREE))
    assert page.open == ["", "> second line (waits)"]
    page.conversation.unseen = 2
    page.show(QueueChanged(change="started", message_id=UUID(int=9)))
    assert page.conversation.unseen == 1
    for number in range(10, 15):
        page.show(QueueChanged(change="added", message_id=UUID(int=number), content="more"))
    assert page.open[-1] == "> and 3 more"


def test_a_connection_says_whether_a_turn_is_running() -> None:
    page = Page()
    page.conversation.joined(connected(ONE))
    assert page.conversation.agent == "coder"
    assert page.conversation.turn is not None
    page.conversation.joined(connected(None))
    assert page.conversation.turn is None


def test_what_is_replaced_is_forgotten() -> None:
    page = Page().show(
        TaskStarted(turn_id=ONE, message_id=ONE, agent_type="coder", agent_id=ONE, agent_name="Coder"),
        QueueChanged(change="added", message_id=TWO, content="waits"),
    )
    page.conversation.start_over()
    assert page.open == []
    assert page.conversation.turn is None


def test_somebody_has_to_decide() -> None:
    approval = ApprovalRequired(
        approval_id=ONE,
        call_id="c",
        turn_id=ONE,
        message_id=ONE,
        name="rm",
        arguments={"path": "/"},
        arguments_hash="x",
        allowed_decisions=["approve"],
        expires_at=None,
    )
    assert Page().show(approval).printed == ['rm(path="/") waits for somebody\'s decision']


@pytest.mark.parametrize(("arguments", "shown"), [('{"a": 1}', "a=1"), ("{broken", '"{broken"')])
def test_the_past_looks_like_the_present(arguments: str, shown: str) -> None:
    def message(role: str, content: str, **fields: object) -> HistoryMessage:
        return HistoryMessage(
            message_id=ONE,
            role=role,
            content=content,
            timestamp=MOMENT,
            cursor="e.1",
            **fields,  # type: ignore[arg-type]
        )

    call = ToolCallRequest(call_id=str(TWO), name="sum", arguments=arguments)
    page = Page()
    page.conversation.past(
        [
            message("user", "add **it**"),
            message("assistant", "", tool_calls=[call], agent_type="coder"),
            message("tool", "1", tool_call_id=TWO, name="sum"),
            message("tool", "2", tool_call_id=THREE),
            message("assistant", "It is **1**.", reasoning="One and nothing.", agent_type="coder"),
        ]
    )
    assert page.printed == [
        *("> add **it**", "", f"▸ sum({shown}) → 1", "▸ tool() → 2", ""),
        *("● coder", "One and nothing.", "", "It is 1."),
    ]


@pytest.mark.feature("A02", "A05")
def test_what_agents_ask_each_other_stands_indented_and_disturbs_nothing() -> None:
    page = Page()
    agent: dict[str, Any] = {"agent_type": "boss", "agent_id": ONE, "agent_name": "Boss"}
    call = ToolCall(call_id="a", turn_id=ONE, message_id=ONE, name="ask_agent", arguments={}, executor="server")
    inner = ToolCall(call_id="b", turn_id=TWO, message_id=TWO, name="read", arguments={}, executor="client")
    page.show(TaskStarted(turn_id=ONE, message_id=ONE, **agent), call)
    page.show(TaskStarted(turn_id=TWO, message_id=TWO, parent_call_id="a", **(agent | {"agent_type": "coder"})))
    page.show(created("look into it", role="user", turn_id=TWO, parent_call_id="a"), inner)
    page.show(
        ToolDispatched(call_id="b", turn_id=TWO, deadline=None, name="read", arguments={"edited": 1}, client_id="me"),
        ToolProgressEvent(call_id="b", message="half\x1b", fraction=0.5),
    )
    assert page.open[-2:] == ["\u25b8 ask_agent() \u2026", "  \u25b8 read(edited=1) \u2026 half 50%"]
    page.show(ToolResultEvent(call_id="b", turn_id=TWO, name="read", executor="client", result="text"))
    page.show(created("found it", turn_id=TWO, parent_call_id="a", agent_type="coder"))
    done: dict[str, Any] = {"usage": Usage(), "steps": 1, "duration_ms": 1}
    page.show(TaskCompleted(turn_id=TWO, status="completed", parent_call_id="a", **done))
    # It was the asked agent's turn that ended, not ours.
    assert page.conversation.turn is not None
    assert page.conversation.agent == "boss"
    assert page.printed == [
        "  \u25cf asks: look into it",
        "  \u25b8 read(edited=1) \u2192 text",
        "  \u25cf coder: found it",
    ]
    page.show(TaskCompleted(turn_id=ONE, status="completed", **done))
    running: object = page.conversation.turn
    assert (running, page.open) == (None, [])
