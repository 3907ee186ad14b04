"""`parley tail`: watch a session."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

from server.cli.exits import INTERRUPTED, OK
from server.cli.options import Commands, new_command

if TYPE_CHECKING:
    from server.cli.transcript import Transcript

__all__ = ["add_to"]

_DETAILS: Final = """\
Messages appear as they are written. When the connection or the server goes away, the command waits, comes back and
goes on where it was. Notes about the connection go to standard error.

examples:
  parley tail my-session
  parley tail my-session --after 0 --json | jq .event_type     (everything that ever happened, a line each)
  PARLEY_TOKEN=... parley tail my-session --url https://parley.example.org --transport sse

environment:
  PARLEY_URL    the server (default: http://127.0.0.1:8080)
  PARLEY_TOKEN  your token; unlike --token it is not seen by others on this machine
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "tail", "watch a session", _DETAILS)
    parser.add_argument("session", metavar="SESSION", help="its id, or your own name for it")
    parser.add_argument("--url", help="the server")
    parser.add_argument("--token", help="your token")
    parser.add_argument("--after", metavar="CURSOR", help="begin after this cursor (0: from the start; default: now)")
    parser.add_argument("--json", action="store_true", help="print events as they come, one JSON object a line")
    parser.add_argument(
        "--transport", choices=["auto", "ws", "sse", "ndjson"], default="auto", help="default: auto, what works"
    )
    parser.set_defaults(run=_tail)


def _tail(options: argparse.Namespace) -> int:
    try:
        return asyncio.run(_follow(options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has had enough (`| head`). The interpreter flushes once more as it ends, and must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


async def _follow(options: argparse.Namespace) -> int:
    from protocol.client import connect
    from server.cli.transcript import Transcript

    transcript: Transcript | None = None if options.json else Transcript(sys.stdout, sys.stderr)
    client = connect(
        options.url or os.environ.get("PARLEY_URL") or "http://127.0.0.1:8080",
        options.session,
        token=options.token or os.environ.get("PARLEY_TOKEN") or None,
        transport=options.transport,
        after=options.after,
    )
    async with client:
        async for event in client:
            if transcript is not None:
                transcript.show(event, client)
            else:
                sys.stdout.write(event.raw.decode() + "\n")
                sys.stdout.flush()
    return OK
