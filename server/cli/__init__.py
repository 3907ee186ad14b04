"""The command `parley`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from server.cli import migrate, serve, tail
from server.cli.exits import FAILED, MISUSED
from server.version import VERSION

__all__ = ["main"]

_EPILOG: Final = """\
examples:
  parley serve                              start a server with a database of its own
  parley tail my-session                    watch a session
  parley migrate --database-url postgresql://ada@db/parley

exit codes:
  0  done
  1  it failed; the message says why
  2  wrong usage or configuration
  3  parley migrate --check: migrations are pending
  130  interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. `arguments` are those of the process unless given."""
    options = _parser().parse_args(arguments)
    from protocol.errors import ParleyError
    from server.config import ConfigError
    from server.run import ListenError
    from server.store import StoreError
    from storage.embedded import EmbeddedError

    try:
        code: int = options.run(options)
    except ConfigError as error:
        return _complain(error, MISUSED)
    except (ListenError, StoreError, EmbeddedError, ParleyError, ConnectionError) as error:
        return _complain(error, FAILED)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley",
        description="A realtime server for AI-agent sessions, and the tools around it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"parley {VERSION}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (serve, tail, migrate):
        command.add_to(commands)
    return parser


def _complain(error: Exception, code: int) -> int:
    message = getattr(error, "message", None) or str(error)
    print(f"parley: {message}", file=sys.stderr)
    return code
