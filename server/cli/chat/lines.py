"""A chat line by line: for terminals that can do no more, and for people who want no more."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from typing import Final

from protocol.client import Client, Server
from protocol.errors import ParleyError
from protocol.events import TaskCancelling, TaskCompleted, TaskStarted
from server.cli.chat.commands import is_command, said
from server.cli.chat.opening import Opened, latest_messages
from server.cli.connection import client_of, in_words
from server.cli.listing import agents_text
from server.cli.output import note, put
from server.cli.transcript import Transcript

__all__ = ["converse"]

_HELP: Final = """\
-- /agent TYPE   another agent answers from now on    /agents   who there is
-- /stop         stop the answer (also Ctrl-C)        /quit     leave (also Ctrl-D)
-- To say something that begins with a slash, begin with two."""


async def converse(options: argparse.Namespace, server: Server, opened: Opened) -> None:
    """Show the session and say what is entered, until the end of the input or Ctrl-C."""
    messages, after = await latest_messages(server, opened.session, options.history)
    note(f"-- session {opened.name}" + (f" ({opened.note})" if opened.note else "") + "; /help for help")
    transcript = Transcript(put, note, echo=False)
    for message in messages:
        transcript.past(message)
    async with client_of(options, str(opened.session.id), after) as client:
        await _Lines(options, client, transcript).run()
    note(f"-- come back with: parley chat {opened.name}")


class _Lines:
    def __init__(self, options: argparse.Namespace, client: Client, transcript: Transcript) -> None:
        self._options = options
        self._client = client
        self._transcript = transcript
        self._entered: asyncio.Queue[str | None] = asyncio.Queue()
        self._begun = b""
        self._answering = False
        self._stopping = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), self._read)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        following = asyncio.create_task(self._follow())
        entering = asyncio.create_task(self._enter())
        try:
            done, _ = await asyncio.wait({following, entering}, return_when="FIRST_COMPLETED")
            for task in done:
                task.result()
        finally:
            loop.remove_reader(sys.stdin.fileno())
            loop.remove_signal_handler(signal.SIGINT)
            for task in (following, entering):
                task.cancel()
            await asyncio.gather(following, entering, return_exceptions=True)

    async def _follow(self) -> None:
        async for event in self._client:
            match event.payload:
                case TaskStarted():
                    self._answering, self._stopping = True, False
                case TaskCancelling():
                    self._stopping = True
                case TaskCompleted():
                    self._answering = False
                case _:
                    pass
            self._transcript.show(event, self._client)

    # --- what is entered

    def _read(self) -> None:
        """Take what the terminal has: whole lines, as it edits them itself."""
        try:
            data = os.read(sys.stdin.fileno(), 1 << 16)
        except OSError:
            data = b""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._entered.put_nowait(line.decode(errors="replace"))
        if not data:
            self._entered.put_nowait(None)

    async def _enter(self) -> None:
        while (line := await self._entered.get()) is not None and line.strip() not in {"/quit", "/exit"}:
            if not line.strip():
                continue
            try:
                if is_command(line):
                    await self._command(line)
                else:
                    await self._client.say(said(line))
            except (ParleyError, ConnectionError, TimeoutError) as error:
                self._complain(error)

    async def _command(self, line: str) -> None:
        name, _, argument = line.strip().partition(" ")
        match name:
            case "/stop":
                await self._client.cancel()
            case "/agent" if argument:
                await self._client.switch_agent(argument.strip())
            case "/agents":
                connected = self._client.connected
                acting = "" if connected is None else connected.agent.type
                note(agents_text(await self._client.server.agents(), acting))
            case _:
                note(_HELP)

    def _interrupted(self) -> None:
        """Ctrl-C: the answer first, then the chat."""
        if not self._answering or self._stopping:
            self._entered.put_nowait(None)
            return
        self._stopping = True
        self._task = asyncio.create_task(self._cancel())

    async def _cancel(self) -> None:
        try:
            await self._client.cancel()
        except (ParleyError, ConnectionError, TimeoutError) as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        note(f"parley: {in_words(error, self._options)}")
