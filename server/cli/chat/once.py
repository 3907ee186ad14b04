"""One question, one answer: `parley chat -m`, and questions from a pipe."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

from protocol.client import AgentFailed, Client, GrowingAnswer
from protocol.commands import UserMessage
from protocol.errors import ParleyError
from server.cli.chat.approving import Approving
from server.cli.chat.asking import Asking
from server.cli.chat.opening import Opened
from server.cli.chat.reading import EnteredLines
from server.cli.chat.showing import Line
from server.cli.connection import client_of, in_words
from server.cli.exits import FAILED, INTERRUPTED, OK
from server.cli.output import note, put
from server.cli.text import one_line, plain
from server.cli.tools import Workspace, tools_of

if TYPE_CHECKING:
    from server.cli.chat.conversation import Conversation
    from server.cli.markdown import Row

__all__ = ["ask"]

#: Seconds for telling the server that nobody wants the answer any more.
_FAREWELL: Final = 5.0
#: Rows of an unfinished paragraph that are held back where an answer is printed as it grows.
_HELD_ROWS: Final = 3


class _Host:
    """Asks on the terminal, where there is one, beside the answer."""

    def __init__(
        self, options: argparse.Namespace, how: Approving, workspace: Workspace | None, *, pretty: bool
    ) -> None:
        self.pretty = pretty
        self.client: Client | None = None
        self.asking = Asking(self, how, workspace)
        self._options = options
        self._entered = EnteredLines()
        self._listening = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening:
            self._entered.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        while (line := await self._entered.next()) is not None:
            if line.strip() and not self.asking.entered(line):
                note(f"-- {self.asking.hint}" if self.asking.hint else "-- nothing is asked")

    def show(self, lines: Sequence[Line]) -> None:
        """Print what the user is asked, or told."""
        for line in lines:
            note(f"-- {plain(line.text)}")

    def asked(self) -> None:
        """Listen, and say what may be entered."""
        if not self._listening:
            # Not earlier: keys are for others as long as nothing is asked, and none that was pressed is an answer.
            self._listening = True
            self._entered.start(afresh=True)
            self.begin(self._listen())
        note(f"-- {self.asking.hint}")

    def edit_line(self, text: str) -> None:
        """Let the user enter the text anew."""
        note(f"-- enter the arguments anew; they are:\n{plain(text)}")

    async def lend(self, work: Callable[[], str]) -> str:
        """Let an editor have the terminal."""
        return await self._entered.lend(work)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def complain(self, error: Exception) -> None:
        """Print what went wrong."""
        note(f"parley: {in_words(error, self._options)}")


async def ask(
    options: argparse.Namespace,
    opened: Opened,
    question: str,
    how: Approving,
    workspace: Workspace | None,
    *,
    pretty: bool,
) -> int:
    """Ask, and print the answer: `pretty` as it grows, else when it is whole. Returns the exit code.

    Ctrl-C stops the agent too.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        note(f"-- session {opened.name}" + (f" ({opened.note})" if opened.note else ""))
    host = _Host(options, how, workspace, pretty=pretty)
    tools = [] if workspace is None else tools_of(workspace, host.asking)
    host.client = client = client_of(options, str(opened.session.id), opened.session.cursor, tools=tools)
    async with client, host:
        command = UserMessage(
            id=secrets.token_hex(16), content=question, agent_type=None if opened.is_new else options.agent
        )
        answer = GrowingAnswer(client, command)
        work = asyncio.create_task(_print(options, opened, answer, host))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, work.cancel)
        try:
            return await work
        except asyncio.CancelledError:
            # A second one is not waited with.
            loop.remove_signal_handler(signal.SIGINT)
            await _withdraw(client, command, answer)
            return INTERRUPTED
        finally:
            loop.remove_signal_handler(signal.SIGINT)


async def _print(options: argparse.Namespace, opened: Opened, answer: GrowingAnswer, host: _Host) -> int:
    failure: AgentFailed | None = None
    growing = host.client if host.pretty else None
    try:
        if growing is not None:
            await _print_growing(answer, growing, host)
        else:
            async for chunk in answer:
                host.asking.attend(chunk.event.payload)
    except AgentFailed as error:
        failure = error
    if options.json:
        put(json.dumps(_summary(opened, answer, failure), ensure_ascii=False) + "\n")
    elif failure is None and growing is None:
        put(plain(_text(answer)).rstrip("\n") + "\n")
    if failure is None:
        return OK
    if not options.json:
        note(f"parley: there is no whole answer: {one_line(failure.code)}: {one_line(failure.message)}")
    return FAILED


async def _print_growing(answer: GrowingAnswer, client: Client, host: _Host) -> None:
    """Block after block; what is printed stays, so that only what is finished is."""
    conversation = _conversation(client)
    try:
        async for chunk in answer:
            conversation.show(chunk.event)
            conversation.refresh()
            host.asking.attend(chunk.event.payload)
    finally:
        # Of an answer that was broken off, what there is of it.
        _put(conversation.open())


def _conversation(client: Client) -> Conversation:

    from server.cli.chat.conversation import Conversation
    from server.cli.markdown import Painter

    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        width = 0
    conversation = Conversation(Painter(width or 80), _put, names=False, asks=True)
    conversation.client = client
    conversation.tallest = _HELD_ROWS
    return conversation


def _put(rows: Sequence[Row]) -> None:
    put("".join(f"{row.ansi}\n" for row in rows))


def _text(answer: GrowingAnswer) -> str:
    """What was said last: before it, an agent that calls tools says what it is about to do."""
    texts = [message.content for message in answer.messages if message.content.strip()]
    return texts[-1] if texts else ""


def _summary(opened: Opened, answer: GrowingAnswer, failure: AgentFailed | None) -> dict[str, Any]:
    last = answer.messages[-1] if answer.messages else None
    usage = answer.usage
    return {
        "status": "completed" if failure is None else failure.status,
        "answer": _text(answer),
        "agent": None if last is None else last.agent_type,
        "session_id": str(opened.session.id),
        "turn_id": None if answer.turn_id is None else str(answer.turn_id),
        "message_id": None if last is None else str(last.message_id),
        "calls": [{"name": call.name, "arguments": call.arguments} for call in answer.calls],
        "usage": None if usage is None else {name: getattr(usage, name) for name in usage.__struct_fields__},
        "error": None if failure is None else {"code": failure.code, "message": failure.message},
    }


async def _withdraw(client: Client, command: UserMessage, answer: GrowingAnswer) -> None:
    """Stop the turn, or take the message back when it still waits."""
    with suppress(ParleyError, ConnectionError, TimeoutError):
        async with asyncio.timeout(_FAREWELL):
            # Said again under its id, as nobody may have heard what became of it: it takes effect once.
            ack = await client.send(command)
            if ack.status == "queued" and ack.message_id is not None:
                with suppress(ParleyError):
                    await client.withdraw(ack.message_id)
                    return
            turn_id = ack.turn_id or answer.turn_id
            if turn_id is not None:
                await client.cancel(turn_id)
