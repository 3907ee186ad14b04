"""What events say to people, in one sentence each; the texts in them are made fit for a terminal."""

from __future__ import annotations

import json
from typing import NamedTuple

from protocol.durable import (
    AgentSwitched,
    ApprovalRequired,
    ApprovalResolved,
    QueueChanged,
    SessionUpdated,
    TaskCancelling,
    TaskCompleted,
    ToolCall,
    ToolResultEvent,
    TurnError,
)
from protocol.events import ApprovalTimeoutWarning, Disconnect, ResyncRequired, Warning_
from server.cli.text import arguments_of, one_line, shorten

__all__ = ["Narrator", "Note", "call_of", "result_of"]


class Narrator:
    """Says what events say, but nothing twice: a turn ends with the error that was told of just before."""

    def __init__(self) -> None:
        self._told = ""

    def note_of(self, payload: object) -> Note | None:
        """What is to be said about an event; None for one that goes without saying."""
        if isinstance(payload, TurnError):
            self._told = payload.message
        elif isinstance(payload, TaskCompleted):
            error, told, self._told = payload.error, self._told, ""
            if error is not None and error.message == told:
                return None
        note = _note_of(payload)
        return None if note is None else note._replace(text=one_line(note.text))


class Note(NamedTuple):
    """A sentence, and a style that fits it."""

    text: str
    style: str = "dim"


def _note_of(payload: object) -> Note | None:  # noqa: PLR0911, PLR0912 - a table, a row an event
    match payload:
        case AgentSwitched():
            reason = f": {payload.reason}" if payload.reason else ""
            return Note(f"{payload.to_agent} takes over from {payload.from_agent}{reason}")
        case TaskCancelling():
            return Note("stopping")
        case TaskCompleted() if payload.status != "completed":
            reason = f": {payload.error.message}" if payload.error else ""
            verb = "failed" if payload.status == "failed" else f"was {payload.status}"
            return Note(f"the turn {verb}{reason}", "yellow" if payload.status == "cancelled" else "red")
        case TurnError():
            return Note(f"{payload.code}: {payload.message}", "red")
        case Warning_():
            return Note(f"{payload.code}: {payload.message}", "yellow")
        case QueueChanged(change="added"):
            return Note(f"a message waits for its turn: {shorten(payload.content or '', 200)}")
        case QueueChanged(change="removed"):
            return Note("a waiting message was taken back")
        case SessionUpdated(title=str() as title):
            return Note(f"the session is now called {title}")
        case ApprovalRequired():
            return Note(f"{payload.name}({arguments_of(payload.arguments)}) waits for somebody's decision", "yellow")
        case ApprovalResolved(cause="expiry"):
            return Note("nobody decided about a call in time: it is rejected", "yellow")
        case ApprovalResolved():
            who = {"rule": " by a rule", "cancel": ", as its turn ended"}.get(payload.cause, "")
            return Note(f"a call was decided{who}: {payload.decision}")
        case ApprovalTimeoutWarning():
            return Note(f"a decision is waited for {payload.remaining_ms // 1000} s longer", "yellow")
        case Disconnect():
            return Note(f"disconnected: {payload.reason}" + ("; coming back" if payload.reconnect else ""))
        case ResyncRequired():
            return Note(f"the log does not go on from there ({payload.reason}); going on at {payload.cursor}", "yellow")
        case _:
            return None


def call_of(call: ToolCall) -> str:
    """A tool call as it would be written by hand, shortened."""
    return f"{one_line(call.name, 60)}({arguments_of(call.arguments)})"


def result_of(event: ToolResultEvent, limit: int) -> str:
    """What came of a call, shortened."""
    if event.error is not None:
        return f"failed: {one_line(event.error, limit)}"
    value = event.result
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"→ {one_line(text, limit)}"
