"""One question, one answer: `parley chat -m`, and questions from a pipe."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from protocol.client import AgentFailed, Client, GrowingAnswer
from protocol.commands import UserMessage
from protocol.errors import ParleyError
from server.cli.chat.opening import Opened
from server.cli.connection import client_of
from server.cli.exits import FAILED, INTERRUPTED, OK
from server.cli.output import note, put
from server.cli.text import one_line, plain

if TYPE_CHECKING:
    from server.cli.chat.conversation import Conversation
    from server.cli.markdown import Row

__all__ = ["ask"]

#: Seconds for telling the server that nobody wants the answer any more.
_FAREWELL: Final = 5.0
#: Rows of an unfinished paragraph that are held back where an answer is printed as it grows.
_HELD_ROWS: Final = 3


async def ask(options: argparse.Namespace, opened: Opened, question: str, *, pretty: bool) -> int:
    """Ask, and print the answer: `pretty` as it grows, else when it is whole. Returns the exit code.

    Ctrl-C stops the agent too.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        note(f"-- session {opened.name}" + (f" ({opened.note})" if opened.note else ""))
    client = client_of(options, str(opened.session.id), opened.session.cursor)
    async with client:
        command = UserMessage(
            id=secrets.token_hex(16), content=question, agent_type=None if opened.is_new else options.agent
        )
        answer = GrowingAnswer(client, command)
        work = asyncio.create_task(_print(options, opened, answer, client if pretty else None))
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


async def _print(options: argparse.Namespace, opened: Opened, answer: GrowingAnswer, growing: Client | None) -> int:
    failure: AgentFailed | None = None
    try:
        if growing is not None:
            await _print_growing(answer, growing)
        else:
            await answer
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


async def _print_growing(answer: GrowingAnswer, client: Client) -> None:
    """Block after block; what is printed stays, so that only what is finished is."""
    conversation = _conversation(client)
    try:
        async for chunk in answer:
            conversation.show(chunk.event)
            conversation.refresh()
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
    conversation = Conversation(Painter(width or 80), _put, names=False)
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
