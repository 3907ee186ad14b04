"""`parley check`: what stands in the way of a start, and what may go wrong later."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from server.cli.exits import FAILED, OK
from server.cli.options import Commands, add_database, add_listener, new_command, reading
from server.cli.output import put

if TYPE_CHECKING:
    from server.check import Result

__all__ = ["add_to"]

_NAMES: Final = ("configuration", "python", "process", "listener", "access", "database", "agents", "mcp", "model")

_DETAILS: Final = f"""\
It looks at the configuration, Python and its packages, the address, tokens, the database, the agents, servers of
tools and the model, and says of what it finds what to do about it. It changes nothing: no directory is made, no
migration run, no PostgreSQL started. Agents' files are loaded, in a process of their own. Servers of tools are
started, or asked, for their list of tools, and the model's endpoint for its list of models; they are told nothing.
With names, only those checks are run:

  {"  ".join(_NAMES)}

Exit code 1 means that something does not work; warnings do not count, unless --strict is given.

examples:
  parley check
  parley check --strict --config /etc/parley.toml && systemctl restart parley
  parley check database model
  parley check --json | jq '.findings[] | select(.level == "error")'
"""

#: In the order in which they are counted, the worst first; each with its colour, as ECMA-48 numbers it.
_COLOURS: Final = {"error": "31", "warning": "33", "note": "36", "ok": "32"}
_INDENT: Final = " " * 11
_WIDEST: Final = 120


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "check", "check configuration and environment before a start", _DETAILS)
    checks = parser.add_argument("checks", metavar="CHECK", nargs="*", help="run these only (default: all)")
    # Not `choices`: argparse would want the empty list among them.
    checks.completer = lambda **_: _NAMES  # type: ignore[attr-defined] # this is how argcomplete is told
    parser.add_argument("--strict", action="store_true", help="fail on warnings, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_listener(parser)
    add_database(parser)
    parser.set_defaults(run=lambda options: _check(parser, options))


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if unknown := [name for name in options.checks if name not in _NAMES]:
        parser.error(f"there is no check {unknown[0]!r}; there are: {', '.join(_NAMES)}")
    import asyncio

    from server.check import CHECKS, Context, run

    config, problems = reading(options)
    # What is not right as it is written is told whatever was asked: other checks rest on it.
    wanted = {*(options.checks or _NAMES), *(("configuration",) if problems else ())}
    chosen = [check for check in CHECKS if check.name in wanted]
    results = asyncio.run(run(chosen, Context(config, problems, os.environ)))
    levels: Counter[str] = Counter(finding.level for result in results for finding in result.findings)
    failed = bool(levels["error"] or (options.strict and levels["warning"]))
    put((_json(results, failed) if options.json else "\n".join(_lines(results, levels))) + "\n")
    return FAILED if failed else OK


def _lines(results: Sequence[Result], levels: Counter[str]) -> Iterator[str]:
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    # Lines are broken for people's eyes only: a program that reads them wants each finding on one.
    width = min(shutil.get_terminal_size().columns, _WIDEST) if sys.stdout.isatty() else None
    for check, findings in results:
        yield f"{check.name}: {check.about}"
        for finding in findings:
            label = f"{finding.level:7}"
            mark = f"\x1b[{_COLOURS[finding.level]}m{label}\x1b[0m" if coloured else label
            first, *rest = [*_wrapped(finding.what, width), *_wrapped(finding.advice, width, "-> ")]
            yield f"  {mark}  {first}"
            yield from (_INDENT + line for line in rest)
    yield ""
    counts = [f"{levels[level]} {level}{'s' if levels[level] != 1 else ''}" for level in _COLOURS if level != "ok"]
    yield ", ".join(counts)


def _wrapped(text: str, width: int | None, lead: str = "") -> list[str]:
    if not text or width is None:
        return [lead + text] if text else []
    room = max(width - len(_INDENT), 20)
    return textwrap.wrap(
        lead + text, room, subsequent_indent=" " * len(lead), break_long_words=False, break_on_hyphens=False
    )


def _json(results: Sequence[Result], failed: bool) -> str:
    import msgspec

    findings = [
        {"check": check.name, **msgspec.structs.asdict(finding)} for check, findings in results for finding in findings
    ]
    return msgspec.json.format(msgspec.json.encode({"ok": not failed, "findings": findings}), indent=2).decode()
