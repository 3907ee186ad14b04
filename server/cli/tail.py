"""`parley tail`: watch a session."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from server.cli.completion import session_names
from server.cli.connection import ENVIRONMENT, MisuseError, add_connection, add_transport, client_of, server_of
from server.cli.exits import INTERRUPTED, OK
from server.cli.options import Commands, new_command
from server.cli.output import note, put

if TYPE_CHECKING:
    from protocol.client import Client, Received
    from server.cli.transcript import Transcript

__all__ = ["add_to"]

_DETAILS: Final = f"""\
Messages appear as they are written. When the connection or the server goes away, the command waits, comes back and
goes on where it was. Notes about the connection and the turns go to standard error.

TYPES are names of events, with * for any letters, and commas between several: message_created,task_*. An event is
shown when it passes all filters; those that end the command see every event.

examples:
  parley tail notes
  parley tail notes --after 0 --json | jq .event_type          (everything that ever happened, a line each)
  parley tail notes --type message_created --role user --json
  parley tail notes --no-deltas --timestamps
  parley tail notes --after 0 --exit-when-idle --json > log    (what there is, up to the end of the running turn)
  parley tail notes --until task_completed                     (to the end of one turn)
  PARLEY_TOKEN=... parley tail notes --url https://parley.example.org --transport sse

exit codes:
  0    the end that was asked for, or nobody reads on
  1    it failed: no server, no such session
  2    wrong usage
  130  interrupted (Ctrl-C)

{ENVIRONMENT}"""

_KINDS: Final = ("durable", "delta", "transient", "control")
_ROLES: Final = ("user", "assistant", "tool", "system")


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "tail", "watch a session", _DETAILS)
    session = parser.add_argument("session", metavar="SESSION", help="its id, or your own name for it")
    session.completer = session_names  # type: ignore[attr-defined] # argcomplete looks for it there
    parser.add_argument("--after", metavar="CURSOR", help="begin after this cursor (0: from the start; default: now)")
    parser.add_argument("--json", action="store_true", help="print events as they come, one JSON object a line")
    parser.add_argument("--timestamps", action="store_true", help="put the time before each line (JSON has it anyway)")
    add_connection(parser)
    add_transport(parser)
    filters = parser.add_argument_group("filters")
    filters.add_argument("--type", metavar="TYPES", action="append", help="only events of these types; may be repeated")
    filters.add_argument("--only", metavar="KINDS", help=f"only events of these kinds: {', '.join(_KINDS)}")
    filters.add_argument("--no-deltas", action="store_true", help="messages only when they are complete")
    filters.add_argument("--role", metavar="ROLES", help=f"only messages of {', '.join(_ROLES)}; several with commas")
    filters.add_argument(
        "--grep", metavar="PATTERN", help="only events with a text that matches, in upper or lower case"
    )
    ends = parser.add_argument_group("when to end")
    ends.add_argument("--until", metavar="TYPES", action="append", help="after the first event of these types")
    ends.add_argument("--exit-when-idle", action="store_true", help="when nothing is being answered and nothing waits")
    ends.add_argument("--limit", metavar="N", type=_number, help="when so many events were shown")
    parser.set_defaults(run=_tail)


def _number(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _tail(options: argparse.Namespace) -> int:
    import asyncio

    try:
        return asyncio.run(_follow(options))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _follow(options: argparse.Namespace) -> int:
    from server.cli.filters import Ends, Filters
    from server.cli.transcript import Transcript

    filters, ends = Filters.of(options), Ends.of(options)
    transcript = None if options.json else Transcript(put, note, timestamps=options.timestamps)
    async with server_of(options) as server:
        # It tells at once what is wrong; the client would try again for a while.
        session = await server.session(options.session)
    ends.begin(session)
    try:
        client = client_of(options, options.session, options.after)
    except ValueError as error:
        raise MisuseError(str(error)) from None
    async with client:
        async for event in client:
            if filters.passes(event):
                _show(event, client, transcript)
                ends.count()
            if ends.reached(event):
                break
    return OK


def _show(event: Received, client: Client, transcript: Transcript | None) -> None:
    if transcript is None:
        put(event.raw.decode() + "\n")
    else:
        transcript.show(event, client)
