"""A chat line by line: for terminals that can do no more, and for people who want no more."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from protocol.client import Client, Server
from protocol.errors import ParleyError
from protocol.events import TaskCancelling, TaskCompleted, TaskStarted
from server.cli.chat.approving import Approving
from server.cli.chat.asking import Asking
from server.cli.chat.commands import is_command, said
from server.cli.chat.opening import Opened, latest_messages
from server.cli.chat.reading import EnteredLines
from server.cli.chat.showing import Line
from server.cli.connection import client_of, in_words
from server.cli.listing import agents_text
from server.cli.output import note, put
from server.cli.text import plain
from server.cli.tools import Workspace, tools_of
from server.cli.transcript import Transcript

__all__ = ["converse"]

_HELP: Final = """\
-- /agent TYPE   another agent answers from now on    /agents   who there is
-- /stop         stop the answer (also Ctrl-C)        /quit     leave (also Ctrl-D)
-- To say something that begins with a slash, begin with two."""


async def converse(
    options: argparse.Namespace, server: Server, opened: Opened, how: Approving, workspace: Workspace | None
) -> None:
    """Show the session and say what is entered, until the end of the input or Ctrl-C."""
    messages, after = await latest_messages(server, opened.session, options.history)
    note(f"-- session {opened.name}" + (f" ({opened.note})" if opened.note else "") + "; /help for help")
    transcript = Transcript(put, note, echo=False, asks=how != "wait")
    for message in messages:
        transcript.past(message)
    talk = _Lines(options, transcript, how, workspace)
    tools = [] if workspace is None else tools_of(workspace, talk.asking)
    async with client_of(options, str(opened.session.id), after, tools=tools) as client:
        await talk.run(client)
    note(f"-- come back with: parley chat {opened.name}")


class _Lines:
    def __init__(
        self, options: argparse.Namespace, transcript: Transcript, how: Approving, workspace: Workspace | None
    ) -> None:
        self.client: Client | None = None
        self.asking = Asking(self, how, workspace)
        self._options = options
        self._transcript = transcript
        self._entered = EnteredLines()
        self._answering = False
        self._stopping = False
        self._is_lent = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, client: Client) -> None:
        """Talk until the end of the input."""
        self.client = client
        loop = asyncio.get_running_loop()
        self._entered.start()
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        following = asyncio.create_task(self._follow(client))
        entering = asyncio.create_task(self._enter(client))
        try:
            done, _ = await asyncio.wait({following, entering}, return_when="FIRST_COMPLETED")
            for task in done:
                task.result()
        finally:
            self._entered.stop()
            loop.remove_signal_handler(signal.SIGINT)
            tasks = {following, entering, *self._tasks}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, client: Client) -> None:
        async for event in client:
            match event.payload:
                case TaskStarted():
                    self._answering, self._stopping = True, False
                case TaskCancelling():
                    self._stopping = True
                case TaskCompleted():
                    self._answering = False
                case _:
                    pass
            self._transcript.show(event, client)
            self.asking.attend(event.payload)

    # --- what is entered

    async def _enter(self, client: Client) -> None:
        while (line := await self._entered.next()) is not None and line.strip() not in {"/quit", "/exit"}:
            if not line.strip():
                continue
            try:
                if is_command(line):
                    await self._command(line, client)
                elif not self.asking.entered(line):
                    await client.say(said(line))
            except (ParleyError, ConnectionError, TimeoutError) as error:
                self.complain(error)

    async def _command(self, line: str, client: Client) -> None:
        name, _, argument = line.strip().partition(" ")
        match name:
            case "/stop":
                await client.cancel()
            case "/agent" if argument:
                await client.switch_agent(argument.strip())
            case "/agents":
                connected = client.connected
                acting = "" if connected is None else connected.agent.type
                note(agents_text(await client.server.agents(), acting))
            case _:
                note(_HELP)

    def _interrupted(self) -> None:
        """Ctrl-C: the answer first, then the chat."""
        if self._is_lent:
            return
        if not self._answering or self._stopping:
            self._entered.end()
            return
        self._stopping = True
        self.begin(self._cancel())

    async def _cancel(self) -> None:
        try:
            if self.client is not None:
                await self.client.cancel()
        except (ParleyError, ConnectionError, TimeoutError) as error:
            self.complain(error)

    # --- what is asked

    def show(self, lines: Sequence[Line]) -> None:
        """Print what the user is asked, or told."""
        for line in lines:
            note(f"-- {plain(line.text)}")

    def asked(self) -> None:
        """Say what may be entered."""
        note(f"-- {self.asking.hint}")

    def edit_line(self, text: str) -> None:
        """Let the user enter the text anew; a terminal that edits lines by itself cannot be given one."""
        note("-- enter the arguments anew; they are:")
        note(plain(text))

    async def lend(self, work: Callable[[], str]) -> str:
        """Let an editor have the terminal, and its Ctrl-C."""
        self._is_lent = True
        try:
            return await self._entered.lend(work)
        finally:
            self._is_lent = False

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def complain(self, error: Exception) -> None:
        """Print what went wrong."""
        note(f"parley: {in_words(error, self._options)}")
