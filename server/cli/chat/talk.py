"""`parley chat` on a terminal: a client, a conversation and a screen, and what they have to do with each other."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from prompt_toolkit.formatted_text import StyleAndTextTuples

from protocol.client import Client, ClientTool, Server, Status
from protocol.commands import OnBusy, UserMessage
from protocol.errors import ParleyError
from protocol.events import Connected, MessageDelta, ResyncRequired
from server.cli.chat.actions import Actions
from server.cli.chat.approving import Approving
from server.cli.chat.asking import Asking
from server.cli.chat.commands import is_command, said
from server.cli.chat.conversation import Conversation, Turn
from server.cli.chat.opening import Opened, latest_messages
from server.cli.chat.screen import Screen
from server.cli.chat.showing import Line
from server.cli.chat.status import View, status_line
from server.cli.chat.writing import BLANK
from server.cli.connection import Choice, client_of, in_words
from server.cli.markdown import Painter, Row
from server.cli.text import MARK
from server.cli.tools import Workspace, tools_of

__all__ = ["Talk"]

#: Seconds between two looks at what deltas brought.
_PACE: Final = 0.05
#: Seconds between two looks at the clock, while it counts how long an answer takes.
_TICK: Final = 0.5
#: A turn that is waited for in vain is not for ever: the connection may be away for long.
_SENDING: Final = 3600.0
TROUBLE: Final = (ParleyError, ConnectionError, TimeoutError)


class Talk:
    """A chat on a terminal."""

    def __init__(
        self, options: argparse.Namespace, server: Server, how: Approving = "ask", workspace: Workspace | None = None
    ) -> None:
        self.options = options
        self.server = server
        self.asking = Asking(self, how, workspace)
        #: Whether there was something in the input already when a question appeared: that is no answer to it.
        self._is_drafting = False
        self._is_entering = False
        self.transport: Choice = options.transport
        self.opened: Opened
        self.client: Client | None = None
        self.painter = Painter(80)
        self.conversation = Conversation(self.painter, self._put)
        self.actions = Actions(self)
        self.screen = Screen(
            above=self._above,
            status=self._status,
            enter=self._enter,
            stop=self.stop,
            leave=self.leave,
            completer=self.actions.commands,
            prompt=self._prompt,
        )
        self._following: asyncio.Task[None] | None = None
        #: What is to be said, and in which session it was entered.
        self._outgoing: asyncio.Queue[tuple[Client, UserMessage]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._said_anything = False
        self._look: asyncio.TimerHandle | None = None

    # --- life

    async def run(self, opened: Opened) -> None:
        """Show the session and talk in it."""
        self._fit()
        try:
            await self.go_to(opened)
            self.begin(self._send())
            self.begin(self._tick())
            self.begin(self.actions.learn())
            if self.options.agent is not None and not opened.is_new:
                self.begin(self._run_command(f"/agent {self.options.agent}"))
            await self.screen.run()
            self._take_leave()
        finally:
            await self._detach()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._tidy()

    def _take_leave(self) -> None:
        """Print what was below the text, as it would be lost from sight, and how to come back."""
        conversation = self.conversation
        conversation.refresh()
        self._put(conversation.open())
        notes = [] if conversation.turn is None else ["the answer goes on without you"]
        if conversation.sending:
            notes.append("what is on its way may never arrive")
        if not self._is_unused():
            notes.append(f"come back with: parley chat {self.opened.name}")
        if notes:
            conversation.note("; ".join(notes))

    def leave(self) -> None:
        """End the chat."""
        self.screen.close()

    # --- which session

    async def go_to(self, opened: Opened) -> None:
        """Leave the session for this one. Raises what connecting raises; then one is in none."""
        if self.client is not None:
            await self._detach()
            await self._tidy()
            self._put([BLANK])
        self.opened, self._said_anything = opened, False
        self.asking.clear()
        self.conversation = Conversation(self.painter, self._put, asks=self.asking.how != "wait")
        self.conversation.agent = opened.session.current_agent
        self.conversation.unseen = opened.session.queued or 0
        messages, after = await latest_messages(self.server, opened.session, self.options.history)
        left_out = opened.session.message_count - len(messages)
        self.conversation.note(_heading(opened, left_out if messages else 0))
        if self.asking.workspace is not None:
            self.conversation.note(f"tools run in {self.asking.workspace.root}, commands with all that you may do")
        self.conversation.past(messages)
        for message in messages:
            if message.role == "user":
                self.screen.history.append_string(message.content)
        await self.attach(after)

    async def attach(self, after: str | None) -> None:
        """Connect to the session as the chosen transport has it, in place of the connection before."""
        before = self.client
        await self._detach()
        client = client_of(
            self.options,
            str(self.opened.session.id),
            after,
            transport=self.transport,
            client_id=None if before is None else before.client_id,
            tools=self._tools(),
        )
        await client.__aenter__()
        self.client = self.conversation.client = client
        self._following = asyncio.create_task(self._follow(client), name="chat-events")
        self.begin(self._watch(client))

    def _tools(self) -> list[ClientTool]:
        workspace = self.asking.workspace
        return [] if workspace is None else tools_of(workspace, self.asking)

    async def _detach(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None
        if self.client is not None:
            await self.client.close()

    async def _tidy(self) -> None:
        """Leave no session behind in which nothing was ever said."""
        if self._is_unused():
            with contextlib.suppress(*TROUBLE):
                await self.server.delete_session(self.opened.session.id)

    def _is_unused(self) -> bool:
        return self.opened.is_new and self.opened.session.alias is None and not self._said_anything

    # --- what happens

    async def _follow(self, client: Client) -> None:
        try:
            async for event in client:
                self._said_anything = self._said_anything or event.cursor is not None
                self.conversation.show(event)
                self.asking.attend(event.payload)
                match event.payload:
                    case MessageDelta():
                        self._look_soon()
                        continue
                    case Connected() as connected:
                        self.conversation.joined(connected)
                    case ResyncRequired():
                        await self._start_over()
                    case _:
                        pass
                self.screen.draw()
        except TROUBLE as error:
            self.complain(error)

    async def _watch(self, client: Client) -> None:
        async for _ in client.changes():
            self.screen.draw()

    async def _start_over(self) -> None:
        """The log does not go on where we are: show what there is now."""
        try:
            session = await self.server.session(self.opened.session.id)
            messages, _ = await latest_messages(self.server, session, self.options.history)
        except TROUBLE as error:
            self.complain(error)
            return
        self.conversation.start_over()
        self.conversation.past(messages)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            # Otherwise nothing is written: a terminal in which nothing happens is not to look as if something did.
            if self.conversation.turn is not None:
                self.screen.draw()

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(_PACE, self._look_now)

    def _look_now(self) -> None:
        self._look = None
        self.conversation.refresh()
        self.screen.draw()

    # --- what is entered

    def _enter(self, text: str) -> None:
        if is_command(text):
            self.begin(self._run_command(text))
        else:
            drafted, self._is_drafting = self._is_drafting, False
            # What is entered is still in the input, which keeps it to be called back; it is no draft of an answer.
            self._is_entering = True
            if drafted or not self.asking.entered(text):
                self.say(said(text))
            self._is_entering = False
        self.screen.draw()

    async def _run_command(self, text: str) -> None:
        try:
            mistake = await self.actions.commands.run(text)
        except TROUBLE as error:
            self.complain(error)
        else:
            if mistake is not None:
                self.conversation.note(mistake, "yellow")

    def say(self, text: str, on_busy: OnBusy = "enqueue") -> None:
        """Say something, after what was said before; the message waits where there is no connection."""
        assert self.client is not None, "there is a client from the beginning"
        command = UserMessage(id=secrets.token_hex(16), content=text, on_busy=on_busy)
        self.conversation.sending[command.id] = text
        self._outgoing.put_nowait((self.client, command))

    async def _send(self) -> None:
        while True:
            client, command = await self._outgoing.get()
            try:
                await client.send(command, timeout=_SENDING)
            except TROUBLE as error:
                self.complain(error)
                if not self.screen.input.text:
                    self.screen.input.text = str(command.content)
            # It stands in the log now, or was refused.
            self.conversation.sending.pop(command.id, None)
            self.screen.draw()

    def stop(self) -> bool:
        """Stop the answer that is being given; False when there is none, or it was told to stop before.

        Where arguments are being changed, they are left as they were, and nothing else happens.
        """
        if self.asking.leave_edit():
            self.screen.input.reset()
            return True
        turn = self.conversation.turn
        if turn is None or turn.stopping or self.client is None:
            return False
        self.conversation.turn = turn._replace(stopping=True)
        self.begin(self._cancel(self.client, turn))
        return True

    async def _cancel(self, client: Client, turn: Turn) -> None:
        try:
            await client.cancel(turn.turn_id)
        except TROUBLE as error:
            self.complain(error)
            running = self.conversation.turn
            if running is not None and running.turn_id == turn.turn_id:
                self.conversation.turn = turn

    def complain(self, error: Exception) -> None:
        """Show what went wrong."""
        self.conversation.note(in_words(error, self.options), "red")

    # --- what is drawn

    def _put(self, rows: Sequence[Row]) -> None:
        self.screen.put(rows)

    def _fit(self) -> None:
        size = self.screen.size
        self.painter.width = size.columns
        self.conversation.tallest = max(size.rows // 2 - 2, 3)

    def show(self, lines: Sequence[Line]) -> None:
        """Print what the user is asked, or told."""
        self.conversation.shown(lines)
        self.screen.draw()

    def asked(self) -> None:
        """Something is asked: what is in the input by now is no answer to it."""
        self._is_drafting = bool(self.screen.input.text) and not self._is_entering

    def edit_line(self, text: str) -> None:
        """Let the user change a text in the input."""
        self.screen.input.text = text
        self.screen.input.cursor_position = len(text)
        self.screen.draw()

    async def lend(self, work: Callable[[], str]) -> str:
        """Let an editor have the terminal."""
        return await self.screen.lend(work)

    def _prompt(self) -> str:
        if self.asking.desk.current is None or self._is_drafting:
            return MARK
        return f"arguments{MARK}" if self.asking.editing is not None else f"answer{MARK}"

    def _above(self) -> Sequence[Row]:
        self._fit()
        rows, hint = self.conversation.open(), self.asking.hint
        if hint:
            note = "what you are typing is a message; then: " if self._is_drafting else ""
            rows += [BLANK, *self.painter.text(f"{note}{hint}", "yellow")]
        return rows

    def _status(self) -> StyleAndTextTuples:
        conversation, client = self.conversation, self.client
        turn = conversation.turn
        view = View(
            status=Status("connecting") if client is None else client.status,
            session=self.opened.name,
            agent=conversation.agent,
            activity=conversation.activity,
            busy=None if turn is None else time.monotonic() - turn.since,
            stopping=turn is not None and turn.stopping,
            waiting=len(conversation.waiting) + conversation.unseen,
            asked=len(self.asking.desk),
        )
        return status_line(view, self.painter.width)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _heading(opened: Opened, left_out: int) -> str:
    how = f" ({opened.note})" if opened.note else ""
    title = f", {opened.session.title}" if opened.session.title else ""
    earlier = f"; {left_out} earlier messages: /history all" if left_out else ""
    return f"session {opened.name}{title}{how}{earlier}"
