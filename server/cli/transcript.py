"""A session as growing lines: for pipes, and for terminals that can do no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from protocol.client import Client, HistoryMessage, Received
from protocol.durable import (
    ApprovalRequired,
    ApprovalResolved,
    MessageCreated,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolResultEvent,
)
from protocol.events import Connected, MessageDelta
from server.cli.notes import Narrator, call_of, result_of
from server.cli.text import one_line, plain

__all__ = ["Transcript"]

_TRANSPORTS: Final = {"ws": "WebSocket", "sse": "server-sent events", "ndjson": "NDJSON"}
_RESULT: Final = 200


class Transcript:
    """Writes what is said to `out`, and what is to be known about the connection and the turns to `notes`.

    `timestamps` puts the time before each line. Without `echo` what this client said is left out, as it stands on the
    terminal already; with `asks` what waits for a decision, as somebody else shows it. Either
    function raises what writing raises.
    """

    def __init__(
        self,
        out: Callable[[str], object],
        notes: Callable[[str], object],
        *,
        timestamps: bool = False,
        echo: bool = True,
        asks: bool = False,
    ) -> None:
        self._out = out
        self._notes = notes
        self._timestamps = timestamps
        self._echo = echo
        self._asks = asks
        #: The turns of agents that others asked, while they run.
        self._asked: set[UUID] = set()
        #: The message that is being written, what of it is on the terminal, and whether its line is still open.
        self._writing: UUID | None = None
        self._written = ""
        self._is_open = False
        self._speaker = "assistant"
        self._narrator = Narrator()
        self._moment = ""

    def show(self, event: Received, client: Client) -> None:
        """Write what the event adds; `client` is where it came from."""
        self._moment = event.envelope.timestamp
        match event.payload:
            case MessageDelta(part="content", message_id=message_id):
                # While another agent is asked, it is that one who writes.
                if not self._asked:
                    self._grow(message_id, self._speaker, event.text)
            case TaskStarted() as started:
                self._start(started)
            case MessageCreated() as message:
                self._created(message, client)
            case Connected() as connected:
                self._speaker = connected.agent.type
                transport = _TRANSPORTS.get(client.transport or "", "?")
                self._note(f"connected over {transport} at {connected.cursor}; agent: {connected.agent.type}")
            case ToolCall() as call:
                self._note(f"calls {call_of(call)}")
            case ToolResultEvent() as result:
                self._note(f"{result.name} {result_of(result, _RESULT)}")
            case payload:
                self._tell(payload)

    def _start(self, started: TaskStarted) -> None:
        if started.parent_call_id is None:
            self._speaker = started.agent_type
        else:
            self._asked.add(started.turn_id)

    def _created(self, message: MessageCreated, client: Client) -> None:
        if message.parent_call_id is not None:
            # Between agents.
            who = (message.agent_type or "") if message.role == "assistant" else "asks"
            if message.role != "tool" and message.content:
                self._note(f"  {one_line(who)}: {one_line(message.content, _RESULT)}")
        elif self._echo or message.role != "user" or message.client_id != client.client_id:
            self._finish(message.message_id, message.role, message.agent_type, message.content)

    def _tell(self, payload: object) -> None:
        if isinstance(payload, TaskCompleted):
            self._asked.discard(payload.turn_id)
        if self._asks and isinstance(payload, ApprovalRequired | ApprovalResolved):
            return
        note = self._narrator.note_of(payload)
        if note is not None:
            self._note(note.text)

    def past(self, message: HistoryMessage) -> None:
        """Write a message of before."""
        self._moment = message.timestamp
        self._finish(message.message_id, message.role, message.agent_type, message.content)

    def _grow(self, message_id: UUID, speaker: str, text: str) -> None:
        if not text or (self._writing == message_id and self._written.startswith(text)):
            # Nothing new; or another process begins it afresh, and so far says the same.
            return
        continued = self._writing == message_id and text.startswith(self._written)
        if not (continued and self._is_open):
            self._end_line()
            self._out(f"{self._stamp()}{one_line(speaker)}> {'…' if continued and self._written else ''}")
            self._is_open = True
        self._out(plain(text[len(self._written) if continued else 0 :]))
        self._writing, self._written = message_id, text

    def _finish(self, message_id: UUID, role: str, agent: str | None, content: str) -> None:
        if role in {"user", "assistant"}:
            self._grow(message_id, agent or role, content)
            self._end_line()
            self._writing, self._written = None, ""

    def _end_line(self) -> None:
        if self._is_open:
            self._out("\n")
        self._is_open = False

    def _note(self, text: str) -> None:
        self._end_line()
        self._notes(f"-- {self._stamp()}{one_line(text)}")

    def _stamp(self) -> str:
        return f"{self._moment} " if self._timestamps and self._moment else ""
