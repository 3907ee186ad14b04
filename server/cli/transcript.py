"""A session as lines on a terminal, growing while messages are written."""

from __future__ import annotations

from typing import Final, TextIO
from uuid import UUID

from protocol.client import Client, Received
from protocol.durable import (
    AgentSwitched,
    MessageCreated,
    QueueChanged,
    TaskCancelling,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolResultEvent,
    TurnError,
)
from protocol.events import Connected, Disconnect, MessageDelta, ResyncRequired, Warning_

__all__ = ["Transcript"]

_TRANSPORTS: Final = {"ws": "WebSocket", "sse": "server-sent events", "ndjson": "NDJSON"}


class Transcript:
    """Writes what is said to `out`, and what is to be known about the connection and the turns to `notes`."""

    def __init__(self, out: TextIO, notes: TextIO) -> None:
        self._out = out
        self._notes = notes
        #: The message whose line is open, and what of it is on the screen.
        self._writing: UUID | None = None
        self._written = ""
        self._speaker = "assistant"

    def show(self, event: Received, client: Client) -> None:
        """Write what the event adds; `client` is where it came from."""
        match event.payload:
            case MessageDelta(part="content", message_id=message_id):
                self._grow(message_id, self._speaker, client.texts[message_id].text())
            case TaskStarted(agent_type=agent_type):
                self._speaker = agent_type
            case MessageCreated() as message:
                self._finish(message)
            case Connected() as connected:
                transport = _TRANSPORTS.get(client.transport or "", "?")
                self._note(f"connected over {transport} at {connected.cursor}; agent: {connected.agent.type}")
            case Disconnect() as farewell:
                self._note(f"disconnected: {farewell.reason}" + ("; coming back" if farewell.reconnect else ""))
            case ResyncRequired() as resync:
                self._note(f"the log does not go on from there ({resync.reason}); going on at {resync.cursor}")
            case payload:
                note = _note_of(payload)
                if note is not None:
                    self._note(note)

    def _grow(self, message_id: UUID, speaker: str, text: str) -> None:
        if self._writing != message_id or not text.startswith(self._written):
            # Another message, or the same one begun afresh by another process.
            self._end_line()
            self._out.write(f"{speaker}> ")
            self._writing = message_id
        self._out.write(_plain(text[len(self._written) :]))
        self._written = text
        self._out.flush()

    def _finish(self, message: MessageCreated) -> None:
        if message.role in {"user", "assistant"} and (message.content or self._writing == message.message_id):
            self._grow(message.message_id, message.agent_type or message.role, message.content)
            self._end_line()

    def _end_line(self) -> None:
        if self._writing is not None:
            self._out.write("\n")
            self._out.flush()
        self._writing = None
        self._written = ""

    def _note(self, text: str) -> None:
        self._end_line()
        self._notes.write(f"-- {_plain(text)}\n")
        self._notes.flush()


def _note_of(payload: object) -> str | None:
    note: str | None = None
    match payload:
        case ToolCall():
            note = f"calls {payload.name}"
        case ToolResultEvent():
            note = f"{payload.name} {'failed' if payload.error is not None else 'is done'}"
        case AgentSwitched():
            note = f"{payload.to_agent} takes over from {payload.from_agent}"
        case TaskCancelling():
            note = "stopping"
        case TaskCompleted() if payload.status != "completed":
            note = f"the turn was {payload.status}" + (f": {payload.error.message}" if payload.error else "")
        case TurnError() | Warning_():
            note = f"{payload.code}: {payload.message}"
        case QueueChanged(change="added"):
            note = f"a message waits for its turn: {payload.content or ''}"
        case _:
            pass
    return note


def _plain(text: str) -> str:
    """Without control characters, which could rewrite the terminal; line breaks and tabs stay."""
    return "".join(char for char in text if char in "\n\t" or char.isprintable())
