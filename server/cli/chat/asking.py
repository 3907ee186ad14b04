"""Asking the user: about calls that wait for a decision, and what agents ask. How it looks is the host's."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from protocol.client import Client
from protocol.durable import ApprovalRequired
from protocol.errors import ParleyError
from protocol.tools import ToolError
from server.cli.chat.approving import Approving
from server.cli.chat.deciding import (
    Answer,
    Desk,
    FollowUp,
    answer_of,
    automatic,
    decide,
    keys_of,
)
from server.cli.chat.editing import EditError, editor, in_editor, read, written
from server.cli.chat.showing import Line, lines_of, question_lines
from server.cli.text import one_line, plain
from server.cli.tools import Workspace

__all__ = ["Asking", "Host"]

_TROUBLE: Final = (ParleyError, ConnectionError, TimeoutError)


class Host(Protocol):
    """Where the user is asked: a screen, or a terminal line by line."""

    @property
    def client(self) -> Client | None:
        """The session that one is in."""

    def show(self, lines: Sequence[Line]) -> None:
        """Show lines for good."""

    def complain(self, error: Exception) -> None:
        """Show what went wrong."""

    def asked(self) -> None:
        """Something is asked that was not before."""

    def edit_line(self, text: str) -> None:
        """Let the user change a text, and enter it."""

    async def lend(self, work: Callable[[], str]) -> str:
        """Let an editor have the terminal. It blocks."""

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something meanwhile."""


class Asking:
    """What is asked, and what the user enters. With `how` other than `ask` the user is left alone with it."""

    def __init__(self, host: Host, how: Approving, workspace: Workspace | None) -> None:
        self.how = how
        self.workspace = workspace
        self.desk = Desk()
        #: The call whose arguments are being changed on a line.
        self.editing: ApprovalRequired | None = None
        self._host = host
        self._shown: ApprovalRequired | FollowUp | None = None
        #: What the user made of arguments that could not be taken.
        self._drafts: dict[str, str] = {}

    @property
    def hint(self) -> str:
        """What may be entered now; nothing if nothing is asked."""
        current = self.desk.current
        if current is None:
            return ""
        if self.editing is current:
            return "change the arguments; Enter takes them, Esc leaves them as they were"
        place = f"1 of {len(self.desk)}: " if len(self.desk) > 1 else ""
        if isinstance(current, FollowUp):
            return f"{place}answer, or the number of an answer" if current.options else f"{place}answer"
        return f"{place}{keys_of(current)}"

    # --- what happens

    def attend(self, payload: object) -> None:
        """Take an event, and ask what is to be asked."""
        if self.how == "wait" and isinstance(payload, ApprovalRequired):
            return
        if isinstance(payload, ApprovalRequired) and (answer := automatic(self.how, payload)) is not None:
            self._host.begin(self._decide(payload, answer))
            return
        self.desk.take(payload)
        self.next()

    def next(self) -> None:
        """Ask what comes next, if it is not asked already."""
        current = self.desk.current
        if current is self._shown:
            return
        self._shown, self.editing = current, None
        if isinstance(current, FollowUp):
            self._host.show(question_lines(current))
        elif current is not None:
            self._host.show(lines_of(current, self.workspace))
        if current is not None:
            self._host.asked()

    def clear(self) -> None:
        """Ask nothing any more: the session is left."""
        self.desk.clear()
        self._drafts.clear()
        self._shown = self.editing = None

    # --- what is entered

    def entered(self, text: str) -> bool:
        """Take what the user entered; False if it answers nothing that is asked."""
        current = self.desk.current
        if current is None:
            return False
        if isinstance(current, FollowUp):
            current.take(text)
            self._done(current)
            return True
        if self.editing is current:
            self._take_edit(current, text)
            return True
        answer = answer_of(text, current)
        if answer is None:
            return False
        if answer.what == "edit":
            self._host.begin(self._edit(current))
        else:
            self._answer(current, answer)
        return True

    def leave_edit(self) -> bool:
        """Leave the arguments as they were; False if none are being changed."""
        was, self.editing = self.editing, None
        return was is not None

    def _done(self, asked: ApprovalRequired | FollowUp) -> None:
        self.desk.forget(asked)
        self.next()

    def _answer(self, approval: ApprovalRequired, answer: Answer) -> None:
        alike = self.desk.alike(approval) if answer.what == "always" else []
        for one in alike:
            self.desk.forget(one)
        self._host.begin(self._decide(approval, answer, alike))
        self._done(approval)

    async def _decide(self, approval: ApprovalRequired, answer: Answer, alike: Sequence[ApprovalRequired] = ()) -> None:
        client = self._host.client
        if client is None:
            return
        try:
            self._tell(await decide(client, approval, answer, alike))
        except _TROUBLE as error:
            self._host.complain(error)
            if self.how == "ask":
                # Nobody has decided: it is asked again.
                for one in (approval, *alike):
                    self.desk.take(one)
                self.next()

    # --- other arguments

    async def _edit(self, approval: ApprovalRequired) -> None:
        command = editor()
        draft = self._drafts.get(approval.call_id)
        if command is None:
            self.editing = approval
            self._host.edit_line(draft or written(approval.arguments))
            return
        text = draft or written(approval.arguments, indent=2)
        try:
            changed = await self._host.lend(lambda: in_editor(command, text, approval))
        except EditError as error:
            self._tell(str(error), "red")
            return
        if self.desk.current is approval:
            self._take_edit(approval, changed)

    def _take_edit(self, approval: ApprovalRequired, text: str) -> None:
        try:
            arguments = read(text, approval) if text.strip() else approval.arguments
        except EditError as error:
            self.editing = None
            self._drafts[approval.call_id] = text
            self._tell(f"{one_line(str(error), 300)}; e edits it again", "red")
            return
        self.editing = None
        if arguments == approval.arguments:
            self._tell("nothing is changed; it still waits for your decision")
            return
        self._answer(approval, Answer("edit", arguments=arguments))

    def _tell(self, text: str, style: str = "dim") -> None:
        self._host.show([Line(text, style)])

    # --- what agents say to the user by tools

    async def present(self, result: str, command: str | None) -> None:
        """Show what was done. The command is shown, and not run."""
        lines = [Line(line) for line in plain(result).splitlines()]
        self._host.show([*lines, *([Line(f"see: {one_line(command)}", "dim")] if command else [])])

    async def ask(self, question: str, options: list[str]) -> str:
        """The user's answer. Raises ToolError when there is nobody to answer."""
        if self.how != "ask":
            raise ToolError("nobody is there to answer: decide yourself, or say what is missing")
        asked = self.desk.ask(question, options)
        self.next()
        try:
            return await asked.answer
        finally:
            self._done(asked)
