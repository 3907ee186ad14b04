"""`parley config`: what is in force, and where each value was set."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from server.cli.exits import OK
from server.cli.options import Commands, add_database, add_listener, configuration, new_command
from server.cli.output import put

if TYPE_CHECKING:
    from server.config import Config, Source
    from server.config.shown import Entry

__all__ = ["add_to"]

_DETAILS: Final = """\
Flags beat the environment, which beats the file. Values other than the default are marked with a *. Secrets are
shown as ***. A mistake is told with its key and where it was made, and is exit code 2.

examples:
  parley config
  parley config --changed --config /etc/parley.toml
  parley config --json | jq '.keys["server.port"]'
  parley config --defaults > parley.toml      (every key, explained; it configures nothing until you change it)
"""

#: Characters of a value that are shown; the rest of a prompt is in the file.
_WIDEST: Final = 60
_COLUMN: Final = 40


def add_to(commands: Commands) -> None:
    """Add the command."""
    parser = new_command(commands, "config", "show the configuration in force and where it comes from", _DETAILS)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--defaults", action="store_true", help="print a file with every key, explained, to start from")
    parser.add_argument("--changed", action="store_true", help="leave out what nobody has set")
    add_listener(parser)
    add_database(parser)
    parser.set_defaults(run=_config)


def _config(options: argparse.Namespace) -> int:
    if options.defaults:
        from server.config.reference import template

        put(template())
        return OK
    config = configuration(options)
    from server.config.shown import entries

    chosen = [entry for entry in entries(config) if not options.changed or entry.source.kind != "default"]
    put((_json(config, chosen) if options.json else "\n".join(_lines(config.file, chosen))) + "\n")
    return OK


def _lines(file: Path | None, entries: list[Entry]) -> Iterable[str]:
    yield f"file: {file or 'none'}"
    for section, group in groupby(entries, lambda entry: entry.section):
        rows = [(entry, _value(entry)) for entry in group]
        keys = max(len(entry.key) for entry, _ in rows)
        # A long value, such as a prompt, does not push all sources aside.
        values = max(min(len(value), _COLUMN) for _, value in rows)
        yield f"\n[{section}]"
        for entry, value in rows:
            mark = "*" if entry.changed else " "
            yield f"{mark} {entry.key:{keys}}  {value:{values}}  {_source(entry.source)}"


def _value(entry: Entry) -> str:
    from server.config.shown import as_toml

    text = as_toml(entry.value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."


def _source(source: Source) -> str:
    match source.kind:
        case "default":
            return "default"
        case "file":
            return f"{source.name}:{source.line}"
        case "environment":
            return f"{source.name}"
        case "borrowed":
            return f"{source.name} (borrowed)"
        case "flag":
            return "command line"


def _json(config: Config, entries: list[Entry]) -> str:
    import msgspec

    keys: dict[str, Any] = {
        entry.name: {
            "value": entry.value,
            "default": entry.default,
            "changed": entry.changed,
            "source": entry.source,
        }
        for entry in entries
    }
    answer = {"file": None if config.file is None else str(config.file), "keys": keys}
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
