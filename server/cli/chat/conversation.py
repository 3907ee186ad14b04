"""A session as it is shown in `parley chat`: what is printed for good, and what stands above the input for now."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from rich.table import Table
from rich.text import Text

from protocol.client import Client, HistoryMessage, Received
from protocol.durable import (
    AgentSwitched,
    ApprovalRequired,
    ApprovalResolved,
    MessageCreated,
    QueueChanged,
    TaskCancelling,
    TaskCompleted,
    TaskStarted,
    ToolResultEvent,
)
from protocol.events import AgentStatusChanged, Connected, MessageDelta
from server.cli.chat.calls import Call, call_text
from server.cli.chat.showing import Line
from server.cli.chat.working import Working
from server.cli.chat.writing import BLANK, Writing
from server.cli.markdown import Painter, Row
from server.cli.notes import Narrator, result_of
from server.cli.text import MARK, one_line, plain, short_id

__all__ = ["Conversation", "Turn"]

_WAITING_SHOWN: Final = 3
_RESULT: Final = 100
_OVERHEARD: Final = 300


class Turn(NamedTuple):
    """A turn that is running; `since` is on the monotonic clock."""

    turn_id: UUID
    since: float
    stopping: bool = False


class Conversation:
    """Fed with events and with the client's own words; `put` prints rows for good.

    `refresh` shows what deltas brought since it was last called: it is for the caller to say how often.
    """

    def __init__(
        self,
        painter: Painter,
        put: Callable[[Sequence[Row]], None],
        *,
        names: bool = True,
        asks: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._painter = painter
        self._put = put
        self._now = now
        #: Whether it is said who speaks.
        self._names = names
        #: Whether somebody else shows what waits for a decision, and what became of it.
        self._asks = asks
        #: Rows that an open block may have before its upper part is printed.
        self.tallest = 10
        self.client: Client | None = None
        self.agent = ""
        self.activity = ""
        self.turn: Turn | None = None
        #: Messages that wait for their turn; texts that are on their way to the server.
        self.waiting: dict[UUID, str] = {}
        self.sending: dict[str, str] = {}
        #: How many others waited already when we came.
        self.unseen = 0
        self._work = Working()
        self._writing: dict[UUID, Writing] = {}
        self._speaker: str | None = None
        self._was = ""
        self._narrator = Narrator()

    # --- what happens

    def show(self, event: Received) -> None:
        """Show an event; deltas wait for `refresh`."""
        match event.payload:
            case MessageDelta(message_id=message_id):
                # A delta may come late, when its message is complete.
                # While another agent is asked, it is that one who writes; what it has said is told when it is complete.
                known = self.client is not None and message_id in self.client.texts
                if known and message_id not in self._writing and not self._work.asked:
                    self.refresh()
                    self._speak(self.agent)
                    self._writing[message_id] = Writing(self._painter, self._put, self._afresh)
            case AgentStatusChanged() as status:
                self.activity = status.status
            case None:
                pass
            case payload:
                self.refresh()
                self._happened(payload)

    def _happened(self, payload: object) -> None:
        if self._work.take(payload):
            return
        match payload:
            case MessageCreated():
                self._created(payload)
            case TaskStarted():
                self.agent = payload.agent_type
                self.turn = Turn(payload.turn_id, self._now())
                self.waiting.pop(payload.message_id, None)
            case TaskCancelling() if self.turn is not None:
                self.turn = self.turn._replace(stopping=True)
            case TaskCompleted():
                if payload.parent_call_id is None:
                    self.turn = None
                    self._work.clear()
                self._note(payload)
            case AgentSwitched():
                self.agent = payload.to_agent
                self._note(payload)
            case ToolResultEvent():
                self._result(payload)
            case QueueChanged():
                self._queue(payload)
            case _:
                self._note(payload)

    def joined(self, connected: Connected) -> None:
        """Take what the server says at the beginning of a connection: a turn may have begun, or ended, meanwhile."""
        self.agent = connected.agent.type
        running = connected.session.active_turn
        if running is None:
            self.turn = None
        elif self.turn is None or self.turn.turn_id != running:
            self.turn = Turn(running, self._now())

    def start_over(self) -> None:
        """Forget what is being written and what waits: the session's log was replaced."""
        self.turn = None
        self.waiting.clear()
        self.unseen = 0
        self._work.clear()
        self._writing.clear()

    def refresh(self) -> None:
        """Show what was written since."""
        texts = {} if self.client is None else self.client.texts
        for message_id, writing in self._writing.items():
            text = texts.get(message_id)
            if text is not None:
                writing.grow(text.text("reasoning"), text.text(), self.tallest)

    def _created(self, message: MessageCreated) -> None:
        if message.parent_call_id is not None:
            self._overheard(message)
            return
        self.waiting.pop(message.message_id, None)
        self.sending.pop(message.command_id or "", None)
        if message.role == "user":
            mine = self.client is None or message.client_id in {None, self.client.client_id}
            self.user(message.content, None if mine else message.client_id)
        elif message.role == "assistant":
            self.agent = message.agent_type or self.agent
            self._finished(message.message_id, message.reasoning or "", message.content, message.agent_type)

    def _overheard(self, message: MessageCreated) -> None:
        """Show what was said between agents, in a line."""
        depth = max(self._work.depth(message.turn_id), 1)
        if message.role == "tool" or not message.content.strip():
            return
        who = one_line(message.agent_type or "", 40) if message.role == "assistant" else "asks"
        self._gap("call")
        said = one_line(message.content, _OVERHEARD)
        self._put(self._painter.rows(Text.assemble("  " * depth, (f"● {who}: ", "green"), (said, "dim"))))

    def _finished(self, message_id: UUID, reasoning: str, content: str, agent: str | None) -> None:
        writing = self._writing.pop(message_id, None)
        if writing is None:
            if not (reasoning.strip() or content.strip()):
                return
            self._speak(agent or self.agent)
            writing = Writing(self._painter, self._put, self._afresh)
        writing.grow(reasoning, content, self.tallest)
        writing.finish(self.tallest)
        self._was = "answer"

    def _afresh(self) -> None:
        self.note("the answer is begun afresh")
        self._gap("answer")

    def _result(self, payload: ToolResultEvent) -> None:
        self._call(self._work.end(payload), result_of(payload, _RESULT), failed=payload.error is not None)

    def _queue(self, payload: QueueChanged) -> None:
        match payload.change:
            case "added" if payload.message_id is not None:
                self.sending.pop(payload.command_id or "", None)
                self.waiting[payload.message_id] = payload.content or ""
            case "removed" | "started" if payload.message_id is not None:
                if self.waiting.pop(payload.message_id, None) is None:
                    self.unseen = max(self.unseen - 1, 0)
            case "reordered":
                known = self.waiting
                self.waiting = {one: known.get(one, "") for one in payload.order or ()}
                self.unseen = 0
            case _:
                pass

    def _note(self, payload: object) -> None:
        if self._asks and isinstance(payload, ApprovalRequired):
            return
        if self._asks and isinstance(payload, ApprovalResolved) and self._is_mine(payload):
            return
        note = self._narrator.note_of(payload)
        if note is not None:
            self.note(note.text, note.style)

    def _is_mine(self, payload: ApprovalResolved) -> bool:
        return self.client is not None and payload.client_id == self.client.client_id

    # --- what is printed

    def past(self, messages: Iterable[HistoryMessage]) -> None:
        """Show messages of before."""
        asked: dict[str, Call] = {}
        for message in messages:
            for call in message.tool_calls or ():
                asked[call.call_id] = Call.of(call)
            if message.role == "user":
                self.user(message.content)
            elif message.role == "assistant":
                self._finished(message.message_id, message.reasoning or "", message.content, message.agent_type)
            elif message.role == "tool":
                asked_for = asked.get(str(message.tool_call_id)) or Call(message.name or "tool")
                self._call(asked_for, f"→ {one_line(message.content, _RESULT)}")

    def user(self, content: str, who: str | None = None) -> None:
        """Show what somebody said; `who` is another client, None for oneself."""
        self._gap("user")
        self._speaker = None
        mark = MARK if who is None else f"{short_id(who)} {MARK}"
        text = plain(content).rstrip("\n").expandtabs(4)
        rows = self._painter.rows(Text.assemble((mark, "bold cyan"), (text, "bold")))
        self._put(rows)

    def note(self, text: str, style: str = "dim") -> None:
        """Print a line about what happened."""
        self._gap("note")
        self._put(self._painter.text(one_line(text), style))

    def lines(self, text: str, style: str = "") -> None:
        """Print a text of several lines, as the answer to a command of the user's."""
        self._gap("text")
        self._put(self._painter.text(text, style))

    def table(self, table: Table) -> None:
        """Print a table, as the answer to a command of the user's."""
        self._gap("text")
        self._put(self._painter.rows(table))

    def _call(self, call: Call, outcome: str, *, failed: bool = False) -> None:
        self._gap("call")
        self._put(self._painter.rows(call_text(call, outcome, failed=failed)))

    def _speak(self, agent: str) -> None:
        """Say who is speaking, unless that is clear."""
        self._gap("answer")
        if self._names and self._speaker != agent:
            self._put(self._painter.rows(Text.assemble(("● ", "green"), (one_line(agent or "assistant"), "dim"))))
        self._speaker = agent

    def _gap(self, kind: str) -> None:
        if self._was and (kind != self._was or kind not in {"call", "note"}):
            self._put([BLANK])
        self._was = kind

    def shown(self, lines: Iterable[Line]) -> None:
        """Print what somebody is asked about."""
        self._gap("asked")
        # In one piece, as what is drawn below says what may be answered.
        self._put([row for line in lines for row in self._painter.text(line.text, line.style) or [BLANK]])

    # --- what is drawn

    def open(self) -> list[Row]:
        """The rows above the input: what is being written, what is being done, what waits."""
        written = [row for writing in self._writing.values() for row in writing.open()][-self.tallest :]
        calls = [
            row for call in self._work.calls.values() for row in self._painter.rows(call_text(call, call.progress))
        ]
        blocks = [block for block in (written, calls, self._waiting_rows()) if block]
        if blocks and blocks[0] is not written:
            blocks.insert(0, [])
        rows: list[Row] = []
        for index, block in enumerate(blocks):
            rows += [BLANK, *block] if index else block
        return rows

    def _waiting_rows(self) -> list[Row]:
        waiting = [(text, "waits") for text in self.waiting.values()]
        waiting += [(text, "on its way") for text in self.sending.values()]
        width = max(self._painter.width - 16, 8)
        rows = []
        for text, state in waiting[:_WAITING_SHOWN]:
            rows += self._painter.text(f"{MARK}{one_line(text, width)} ({state})", "dim")
        if len(waiting) > _WAITING_SHOWN:
            rows += self._painter.text(f"{MARK}and {len(waiting) - _WAITING_SHOWN} more", "dim")
        return rows
