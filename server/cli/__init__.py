"""The command `parley`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from server.cli import chat, check, completion, config, docs, migrate, serve, sessions, tail
from server.cli.connection import MisuseError, in_words
from server.cli.exits import FAILED, INTERRUPTED, MISUSED, OK
from server.cli.output import OutputError, abandon, note, put

__all__ = ["main"]

#: In the order in which people meet them.
_COMMANDS: Final = (serve, chat, tail, sessions, check, config, migrate, docs, completion)

_EPILOG: Final = """\
examples:
  parley serve                              start a server with a database of its own
  parley chat                               talk to its agent
  parley chat notes -m "count to 5"         ask one question in the session `notes`, print the answer
  parley tail notes                         watch that session
  parley sessions                           list yours
  parley check                              look for what stands in the way of a start
  parley config                             show what is configured, and where
  parley docs openapi                       describe every address of the server
  parley completion bash > ~/.local/share/bash-completion/completions/parley

`parley COMMAND --help` has more about each.

exit codes:
  0    done
  1    it failed, or parley check found an error; the message says why
  2    wrong usage or configuration
  3    parley migrate --check: migrations are pending
  130  interrupted (Ctrl-C)

environment:
  PARLEY_URL, PARLEY_TOKEN  the server that commands talk to, and who is asking
  NO_COLOR                  set: no colours, and chat shows texts as they are
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. `arguments` are those of the process unless given."""
    try:
        try:
            return _perform(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            # The interpreter would do it as it ends, and complain in its own words.
            put("")
    except OutputError as error:
        return _without_output(error)
    except KeyboardInterrupt:
        return INTERRUPTED


def _perform(arguments: list[str]) -> int:
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        completion.complete(parser)
    options = parser.parse_args(sessions.with_subcommand(arguments))
    try:
        code: int = options.run(options)
    except MisuseError as error:
        return _complain(error, options, MISUSED)
    except Exception as error:
        # What makes these errors is slow to import, and need not be there where nothing fails.
        mistakes, failures = _foreseen()
        if not isinstance(error, mistakes + failures):
            raise
        return _complain(error, options, MISUSED if isinstance(error, mistakes) else FAILED)
    return code


def _foreseen() -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """The errors that a sentence explains: those of the user, and those of the world."""
    from protocol.errors import ParleyError
    from server.config import ConfigError
    from server.run import ListenError
    from server.store import StoreError
    from storage.embedded import EmbeddedError

    return (ConfigError,), (ListenError, StoreError, EmbeddedError, ParleyError, ConnectionError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley",
        description="A realtime server for AI-agent sessions, and the tools around it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show which version this is and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


class _Version(argparse.Action):
    """`--version`; what knows the version is read only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from server.version import VERSION

        put(f"parley {VERSION}\n")
        parser.exit()


def _complain(error: Exception, options: argparse.Namespace, code: int) -> int:
    # A configuration may have several mistakes, a line each.
    for line in in_words(error, options).splitlines():
        note(f"parley: {line}")
    return code


def _without_output(error: OutputError) -> int:
    if sys.stdout is not None:
        abandon(sys.stdout)
    if error.quietly:
        return OK
    note(f"parley: {error}")
    return FAILED
