"""`parley migrate`: bring the tables to this version."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from server.cli.exits import OK, PENDING
from server.cli.options import Commands, add_database, configuration, new_command

if TYPE_CHECKING:
    from server.config import Config

__all__ = ["add_to"]

_DETAILS: Final = """\
`parley serve` does this by itself when it starts. Use this command to do it beforehand, under another
database user, or to ask (--check, exit code 3) whether there is anything to do.

examples:
  parley migrate --database-url postgresql://owner@db.example.org/parley
  parley migrate --check
"""


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "migrate", "bring the database's tables to this version", _DETAILS)
    parser.add_argument("--check", action="store_true", help="change nothing; say what is pending")
    add_database(parser)
    parser.set_defaults(run=_migrate)


def _migrate(options: argparse.Namespace) -> int:
    import asyncio

    return asyncio.run(_run(configuration(options), check=options.check))


async def _run(config: Config, *, check: bool) -> int:
    from server.store import Store

    store = Store(config.database)
    try:
        await store.start()
        names = await (store.pending() if check else store.migrate())
    finally:
        await store.stop()
    word = "pending" if check else "applied"
    print("\n".join(f"{word}: {name}" for name in names) or "nothing to do")
    return PENDING if check and names else OK
