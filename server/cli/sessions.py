"""`parley sessions`: list, find, show, read and delete sessions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from server.cli.completion import session_names
from server.cli.connection import ENVIRONMENT, MisuseError, add_connection, server_of
from server.cli.exits import FAILED, OK
from server.cli.options import Commands, new_command
from server.cli.output import note, put

if TYPE_CHECKING:
    from protocol.client import HistoryMessage, Server, SessionInfo

__all__ = ["add_to", "with_subcommand"]

_DETAILS: Final = f"""\
Without a subcommand sessions are listed, the last used first. WORDS finds those whose titles, names or messages have
this text in them. A SESSION is named by its id or by your own name for it.

On a terminal lists are tables. In a pipe they are lines with tabs between the fields (name, agent, messages, last used,
title), and with --json one JSON object a line.

examples:
  parley sessions                          your sessions
  parley sessions the loire                those with `the loire` in them
  parley sessions show notes
  parley sessions history notes --last 5
  parley sessions history notes --json | jq -r .content
  parley sessions delete notes old-notes
  parley sessions --json | jq -r .id | xargs parley sessions delete --yes

exit codes:
  0  done
  1  it failed: no server, no such session
  2  wrong usage; delete was not told --yes, and there is nobody to ask

{ENVIRONMENT}"""

_SUBCOMMANDS: Final = ("list", "show", "history", "delete")
#: What `GET /sessions` and the history give at once.
_PAGE: Final = 1000
_LIMIT: Final = 20


def with_subcommand(arguments: Sequence[str]) -> list[str]:
    """`parley sessions` and `parley sessions WORDS` are short for `parley sessions list`."""
    given = list(arguments)
    if given[:1] == ["sessions"] and (len(given) == 1 or given[1] not in {*_SUBCOMMANDS, "-h", "--help"}):
        given.insert(1, "list")
    return given


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "sessions", "list, find, show and delete sessions", _DETAILS)
    parser.usage = "%(prog)s [WORDS ...] [options]\n       %(prog)s {show,history,delete} SESSION [options]"
    # For the completion of `parley sessions --<Tab>`; what is given there is read by `list`.
    _add_list_options(parser)
    subcommands = parser.add_subparsers(
        title="subcommands", metavar="SUBCOMMAND", required=True, prog="parley sessions"
    )
    example = "examples:\n  parley sessions"

    listing = new_command(subcommands, "list", "list sessions, or find some", f"{example} list the loire --limit 5\n")
    listing.add_argument("words", metavar="WORDS", nargs="*", help="only those with this text in them")
    _add_list_options(listing)
    listing.set_defaults(run=_run, perform=_list)

    show = new_command(subcommands, "show", "show what is known about a session", f"{example} show notes\n")
    _add_session(show)
    show.add_argument("--json", action="store_true", help="one JSON object")
    show.set_defaults(run=_run, perform=_show)

    history = new_command(
        subcommands, "history", "print what was said in a session", f"{example} history notes --last 5\n"
    )
    _add_session(history)
    history.add_argument("--last", metavar="N", type=_number, help="only the last N messages")
    history.add_argument("--json", action="store_true", help="one JSON object a message")
    history.set_defaults(run=_run, perform=_history)

    delete = new_command(
        subcommands,
        "delete",
        "delete sessions for good",
        f"{example} delete notes\n  parley sessions delete notes --yes\n",
    )
    names = delete.add_argument("sessions", metavar="SESSION", nargs="+", help="their ids, or your own names for them")
    names.completer = session_names  # type: ignore[attr-defined] # argcomplete looks for it there
    delete.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_connection(delete)
    delete.set_defaults(run=_run, perform=_delete)


def _add_session(parser: argparse.ArgumentParser) -> None:
    session = parser.add_argument("session", metavar="SESSION", help="its id, or your own name for it")
    session.completer = session_names  # type: ignore[attr-defined] # argcomplete looks for it there
    add_connection(parser)


def _add_list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", metavar="N", type=_number, help=f"list so many (default: {_LIMIT} on a terminal, else all)"
    )
    parser.add_argument("--all", action="store_true", help="deleted ones too")
    parser.add_argument("--json", action="store_true", help="one JSON object a session")
    add_connection(parser)


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    import asyncio

    return asyncio.run(_connected(options))


async def _connected(options: argparse.Namespace) -> int:
    async with server_of(options) as server:
        code: int = await options.perform(options, server)
    return code


# --- list


async def _list(options: argparse.Namespace, server: Server) -> int:
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    limit = options.limit or (_LIMIT if is_terminal else None)
    words = " ".join(options.words).strip()
    sessions, total = await _found(server, words or None, limit, active_only=not options.all)
    if options.json:
        for session in sessions:
            put(_json(session) + "\n")
    elif is_terminal and sessions:
        _print_table(sessions)
    else:
        for session in sessions:
            put("\t".join(_fields(session)) + "\n")
    if not sessions and sys.stderr is not None and sys.stderr.isatty():
        note("-- no session is found" if words else "-- you have no sessions; begin one with: parley chat")
    if total > len(sessions):
        note(f"-- {total - len(sessions)} more: --limit {total}")
    return OK


async def _found(
    server: Server, words: str | None, limit: int | None, *, active_only: bool
) -> tuple[list[SessionInfo], int]:
    """So many, or all; and how many there are."""
    found: list[SessionInfo] = []
    while True:
        size = _PAGE if limit is None else min(limit - len(found), _PAGE)
        page = await server.sessions(words, limit=size, offset=len(found), active_only=active_only)
        found += page.sessions
        if len(found) in {limit, page.total} or not page.sessions:
            return found, page.total


def _print_table(sessions: Sequence[SessionInfo]) -> None:
    from rich.console import Console

    from server.cli.listing import sessions_table

    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(sessions_table(sessions, console.width))
    put("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def _fields(session: SessionInfo) -> tuple[str, ...]:
    from server.cli.listing import name_of
    from server.cli.text import one_line

    fields = (
        name_of(session),
        session.current_agent,
        str(session.message_count),
        session.last_activity,
        session.title or "",
    )
    return tuple(one_line(field) for field in fields)


# --- show, history


async def _show(options: argparse.Namespace, server: Server) -> int:
    session = await server.session(options.session)
    if options.json:
        put(_json(session) + "\n")
        return OK
    from server.cli.text import one_line

    state = "answering" if session.active_turn is not None else "idle"
    waiting = f", {session.queued} waiting" if session.queued else ""
    rows = {
        "id": session.id,
        "name": session.alias,
        "title": session.title,
        "description": session.description,
        "agent": session.current_agent,
        "messages": session.message_count,
        "state": (state + waiting) if session.is_active else "deleted",
        "created": session.created_at,
        "last used": session.last_activity,
        "cursor": session.cursor,
    }
    put("".join(f"{name:<12} {one_line(str(value))}\n" for name, value in rows.items() if value is not None))
    return OK


async def _history(options: argparse.Namespace, server: Server) -> int:
    if options.last is not None:
        from server.cli.chat.opening import latest_messages

        session = await server.session(options.session)
        for message in (await latest_messages(server, session, options.last))[0]:
            _print_message(message, as_json=options.json)
    else:
        async for message in server.messages(options.session):
            _print_message(message, as_json=options.json)
    return OK


def _print_message(message: HistoryMessage, *, as_json: bool) -> None:
    from server.cli.text import one_line, plain

    if as_json:
        put(_json(message) + "\n")
    elif message.role == "tool":
        put(f"{one_line(message.name or 'tool')}> {one_line(message.content)}\n")
    elif message.content:
        put(f"{one_line(message.agent_type or message.role)}> {plain(message.content)}\n")


# --- delete


async def _delete(options: argparse.Namespace, server: Server) -> int:
    from protocol.errors import ParleyError
    from server.cli.listing import name_of

    # All are looked up before the first is deleted: a misspelt name deletes nothing.
    sessions = list({found.id: found for found in [await server.session(name) for name in options.sessions]}.values())
    if not options.yes and not _agreed(sessions):
        note("parley: nothing was deleted")
        return FAILED
    code = OK
    for session in sessions:
        try:
            await server.delete_session(session.id)
        except ParleyError as error:
            note(f"parley: {name_of(session)} was not deleted: {error.message}")
            code = FAILED
        else:
            put(f"deleted {name_of(session)}\n")
    return code


def _agreed(sessions: Sequence[SessionInfo]) -> bool:
    from server.cli.listing import name_of
    from server.cli.text import one_line

    if sys.stdin is None or not sys.stdin.isatty():
        raise MisuseError("delete asks before it deletes, and there is nobody to ask; say --yes")
    for session in sessions:
        note(f"{one_line(name_of(session))}  {session.message_count} messages  {one_line(session.title or '', 60)}")
    question = "Delete it for good?" if len(sessions) == 1 else f"Delete these {len(sessions)} for good?"
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _json(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()
