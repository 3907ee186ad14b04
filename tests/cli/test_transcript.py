"""A session as growing lines."""

from __future__ import annotations

import io
from typing import Any
from uuid import UUID

import pytest
from msgspec import Raw
from msgspec.structs import replace

from protocol.client import Received, connect
from protocol.delta import MessageText
from protocol.durable import (
    AgentSwitched,
    QueueChanged,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolResultEvent,
    TurnError,
)
from protocol.envelope import Envelope
from protocol.events import EVENT_NAMES, Disconnect, MessageCreated, MessageDelta, Payload, ResyncRequired
from protocol.parts import Usage
from server.cli.transcript import Transcript
from tests.support.server import RunningServer

ID = UUID(int=1)
MOMENT = "2026-01-02T03:04:05.678Z"


def shown(*payloads: Payload, timestamps: bool = False, echo: bool = True) -> tuple[str, str]:
    """What stands on the screen after these events: output, and notes."""
    out, notes = io.StringIO(), io.StringIO()
    transcript = Transcript(out.write, lambda line: print(line, file=notes), timestamps=timestamps, echo=echo)
    client = connect("http://127.0.0.1:1", "x", client_id="me")
    texts: dict[UUID, MessageText] = {}
    for payload in payloads:
        envelope = Envelope(
            event_type=EVENT_NAMES[type(payload)], session_id=str(ID), timestamp=MOMENT, payload=Raw(b"{}")
        )
        text = ""
        if isinstance(payload, MessageDelta):
            message = texts.setdefault(payload.message_id, MessageText(payload.message_id))
            message.apply(payload)
            text = message.text(payload.part)
        transcript.show(Received(envelope, payload, b"", text), client)
    return out.getvalue(), notes.getvalue()


def delta(offset: int, text: str, attempt: int = 1) -> MessageDelta:
    return MessageDelta(message_id=ID, attempt=attempt, part="content", offset=offset, text=text)


def created(content: str) -> MessageCreated:
    return MessageCreated(message_id=ID, role="assistant", content=content, timestamp=MOMENT)


def test_a_message_is_one_line_however_it_came() -> None:
    assert shown(delta(0, "Hel"), delta(3, "lo"), created("Hello!")) == ("assistant> Hello!\n", "")
    assert shown(created("Hello!")) == ("assistant> Hello!\n", "")
    assert shown(delta(0, "Hel"), delta(2, "llo"), delta(9, "gap"), created("Hello")) == ("assistant> Hello\n", "")


def test_a_message_that_is_begun_afresh_is_written_afresh() -> None:
    out, _ = shown(delta(0, "First try"), delta(0, "Second", attempt=2), created("Second."))
    assert out == "assistant> First try\nassistant> Second.\n"


def test_a_message_that_is_begun_afresh_and_says_the_same_is_not_written_again() -> None:
    out, _ = shown(delta(0, "One two"), delta(0, "One", 2), delta(3, " two three", 2), created("One two three."))
    assert out == "assistant> One two three.\n"


def test_each_line_has_its_time_if_that_is_wanted() -> None:
    switch = AgentSwitched(from_agent="a", to_agent="b")
    assert shown(created("Hello"), switch, timestamps=True) == (
        f"{MOMENT} assistant> Hello\n",
        f"-- {MOMENT} b takes over from a\n",
    )


def test_what_one_typed_oneself_stands_on_the_terminal_already() -> None:
    mine = MessageCreated(message_id=ID, role="user", content="hi", timestamp=MOMENT, client_id="me")
    assert shown(mine, echo=False) == ("", "")
    assert shown(replace(mine, client_id="other"), echo=False) == ("user> hi\n", "")


def test_a_note_does_not_run_into_a_message() -> None:
    out, notes = shown(delta(0, "Hel"), Disconnect(code="shutdown", reason="going", reconnect=True), created("Hello"))
    assert out == "assistant> Hel\nassistant> …lo\n"
    assert notes == "-- disconnected: going; coming back\n"


@pytest.mark.parametrize(
    ("payload", "note"),
    [
        (
            ToolCall(call_id="c", turn_id=ID, message_id=ID, name="clock", arguments={}, executor="server"),
            "calls clock()",
        ),
        (ToolResultEvent(call_id="c", turn_id=ID, name="clock", executor="server", result=1), "clock → 1"),
        (ToolResultEvent(call_id="c", turn_id=ID, name="clock", executor="server", error="x"), "clock failed: x"),
        (AgentSwitched(from_agent="a", to_agent="b"), "b takes over from a"),
        (
            TaskCompleted(turn_id=ID, status="cancelled", usage=Usage(), steps=1, duration_ms=1),
            "the turn was cancelled",
        ),
        (TurnError(turn_id=ID, code="model_away", message="No answer", retryable=True), "model_away: No answer"),
        (QueueChanged(change="added", content="later"), "a message waits for its turn: later"),
        (
            ResyncRequired(reason="trimmed", cursor="e.9"),
            "the log does not go on from there (trimmed); going on at e.9",
        ),
        (Disconnect(code="session_gone", reason="It was deleted", reconnect=False), "disconnected: It was deleted"),
    ],
)
def test_what_else_happens_is_a_note(payload: Payload, note: str) -> None:
    assert shown(payload) == ("", f"-- {note}\n")


def test_what_goes_without_saying_is_not_said() -> None:
    assert shown(
        TaskCompleted(turn_id=ID, status="completed", usage=Usage(), steps=1, duration_ms=1),
        QueueChanged(change="started"),
    ) == ("", "")


async def test_nothing_that_is_said_can_rewrite_the_terminal(server: RunningServer) -> None:
    out, notes = io.StringIO(), io.StringIO()
    transcript = Transcript(out.write, lambda line: print(line, file=notes))
    session = await server.create_session()
    async with connect(server.url, session) as client:
        await client.say("hello \x1b[31mred")
        async for event in client:
            transcript.show(event, client)
            if event.event_type == "task_completed":
                break
    asked, answered = (message["content"] for message in await server.history(session))
    assert asked == "hello \x1b[31mred"
    assert out.getvalue() == f"user> hello [31mred\noffline> {answered}\n"
    assert notes.getvalue().startswith("-- connected over WebSocket at ")


@pytest.mark.feature("A05")
def test_what_agents_ask_each_other_is_told_in_a_line() -> None:
    other = UUID(int=2)
    agent: dict[str, Any] = {"agent_type": "coder", "agent_id": ID, "agent_name": "Coder"}
    usage: dict[str, Any] = {"usage": Usage(), "steps": 1, "duration_ms": 1}
    out, notes = shown(
        TaskStarted(turn_id=other, message_id=other, parent_call_id="c", **agent),
        delta(0, "not between us"),
        replace(created("look"), role="user", message_id=other, parent_call_id="c"),
        replace(created("found it"), agent_type="coder", parent_call_id="c"),
        TaskCompleted(turn_id=other, status="completed", parent_call_id="c", **usage),
        MessageCreated(message_id=UUID(int=3), role="assistant", content="So it is.", timestamp=MOMENT),
    )
    assert (out, notes) == ("assistant> So it is.\n", "-- asks: look\n-- coder: found it\n")
