"""`parley chat`: talk to an agent in the terminal, or ask one question from a script."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Final, get_args

from server.cli.chat.approving import Approving
from server.cli.completion import agent_types, session_names
from server.cli.connection import ENVIRONMENT, MisuseError, add_connection, add_transport, server_of
from server.cli.exits import OK
from server.cli.options import Commands, new_command

if TYPE_CHECKING:
    from server.cli.tools import Workspace

__all__ = ["add_to"]

_DETAILS: Final = f"""\
Without SESSION a new session is begun; a name that you have no session of is given to a new one. Answers appear while
they are written, and more can be typed meanwhile. When the connection or the server goes away, the chat comes back by
itself and goes on where it was; an answer goes on without you when you leave. /help in the chat lists its commands.

With -m, or a question from a pipe, only the answer is printed: what the agent said last. Ctrl-C stops the agent too.

With --folder, agents may read all files of that folder, change them, and run commands on this machine. Paths outside of
it are refused; commands are not confined: they have all your rights. Changes and commands wait for somebody's approval.
They are shown here with what they would do, and you are asked; --approve says who decides instead:
  ask     you; when nobody is at a terminal: never
  never   nobody: all such calls are rejected
  reads   calls that only read are approved, all others rejected
  all     all are approved, also commands; for a machine that can be thrown away
  wait    somebody else in the session

examples:
  parley chat                                    a new session
  parley chat notes                              the session `notes`; made if there is none
  parley chat --continue                         the session you used last
  parley chat notes -m "count to 5"              ask one thing, print the answer
  git diff | parley chat --agent coder           ask what comes from a pipe
  parley chat --folder . --agent coder           let an agent work in this folder
  parley chat notes -m "what time is it" --json | jq -r .answer

exit codes:
  0    done, or left
  1    there is no (whole) answer; the message says why
  2    wrong usage
  130  interrupted while waiting for an answer; the agent was told to stop

{ENVIRONMENT}\
  NO_COLOR      set: as --plain
"""

#: Bytes; the largest command that servers accept is of this order.
_LARGEST_QUESTION: Final = 16 << 20


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "chat", "talk to an agent", _DETAILS)
    session = parser.add_argument("session", metavar="SESSION", nargs="?", help="its id, or your own name for it")
    session.completer = session_names  # type: ignore[attr-defined] # argcomplete looks for it there
    parser.add_argument("-c", "--continue", dest="latest", action="store_true", help="go on in the session used last")
    parser.add_argument("-m", "--message", metavar="TEXT", help="ask this and leave; - reads it from standard input")
    parser.add_argument("--json", action="store_true", help="with a question: the answer and what is known about it")
    agent = parser.add_argument("--agent", metavar="TYPE", help="who answers (default: the session's agent)")
    agent.completer = agent_types  # type: ignore[attr-defined] # as above
    parser.add_argument(
        "--history", metavar="N", type=_count, default=10, help="show the last N messages (default: 10)"
    )
    parser.add_argument("--folder", metavar="DIR", help="run the agents' tools in this folder (default: not at all)")
    parser.add_argument(
        "--approve", choices=list(get_args(Approving)), default="ask", help="who decides about calls (default: ask)"
    )
    parser.add_argument("--plain", action="store_true", help="texts as they are: no Markdown, no colours, line by line")
    add_connection(parser)
    add_transport(parser)
    parser.set_defaults(run=_chat)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of messages")
    return int(text)


def _chat(options: argparse.Namespace) -> int:
    import asyncio

    if options.latest and options.session is not None:
        raise MisuseError("--continue goes on in the session used last; leave it out to name a SESSION")
    question = _question(options)
    if options.json and question is None:
        raise MisuseError("--json needs a question: give one with -m, or from a pipe")
    return asyncio.run(_run(options, question))


def _question(options: argparse.Namespace) -> str | None:
    """What is to be asked; None when people are to talk."""
    if options.message is not None and options.message != "-":
        question: str = options.message
    elif options.message == "-" or sys.stdin is None or not sys.stdin.isatty():
        question = "" if sys.stdin is None else _piped()
    else:
        return None
    if not question.strip():
        raise MisuseError("there is no question: it is empty")
    return question


def _piped() -> str:
    """Everything that comes from standard input."""
    data = sys.stdin.buffer.read(_LARGEST_QUESTION + 1)
    if len(data) > _LARGEST_QUESTION:
        raise MisuseError(f"the question is longer than {_LARGEST_QUESTION >> 20} MiB")
    try:
        return data.decode().strip("\n")
    except UnicodeDecodeError as error:
        raise MisuseError(f"the question is not UTF-8: {error.reason} at byte {error.start}") from None


def _is_plain(options: argparse.Namespace) -> bool:
    """Whether neither colours nor anything else that terminals are told is wanted, or can be shown."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    unable = os.environ.get("TERM", "dumb") in {"dumb", "unknown", ""}
    return bool(options.plain or os.environ.get("NO_COLOR") or unable or not is_terminal)


def _workspace(options: argparse.Namespace) -> Workspace | None:
    """The folder that tools are run in, if any."""
    from pathlib import Path

    from server.cli.tools import Workspace

    if options.folder is None:
        return None
    try:
        workspace = Workspace(options.folder)
    except (OSError, RuntimeError, ValueError) as error:
        raise MisuseError(f"--folder: {options.folder!r}: {getattr(error, 'strerror', None) or error}") from None
    if workspace.root in {Path("/"), Path.home()}:
        workspace.close()
        raise MisuseError(f"--folder: {workspace.root} holds much more than a project; name the folder of one")
    return workspace


def _approving(options: argparse.Namespace, question: str | None) -> Approving:
    """Who decides: not somebody who is not there."""
    how: Approving = options.approve
    is_there = question is None or all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    return "never" if how == "ask" and not is_there else how


async def _run(options: argparse.Namespace, question: str | None) -> int:
    from server.cli.chat.opening import open_session

    plain = _is_plain(options)
    how = _approving(options, question)
    async with contextlib.AsyncExitStack() as stack:
        workspace = _workspace(options)
        if workspace is not None:
            stack.callback(workspace.close)
        server = await stack.enter_async_context(server_of(options))
        opened = await open_session(server, options.session, latest=options.latest, agent=options.agent)
        if question is not None:
            from server.cli.chat.once import ask

            return await ask(options, opened, question, how, workspace, pretty=not (plain or options.json))
        if plain:
            from server.cli.chat.lines import converse

            await converse(options, server, opened, how, workspace)
        else:
            from server.cli.chat.talk import Talk

            await Talk(options, server, how, workspace).run(opened)
    return OK
