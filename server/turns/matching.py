"""Whether a call's arguments are those that a policy, or a rule of somebody's, speaks of.

A pattern is matched against the whole text of an argument: a string as it is, any other value as JSON with its keys in
order. `*` stands for any text, `?` for one character, and nothing else is special.

One and the same file has many names, and one command line may hold many commands. So what permits must fit however the
argument is read, and what restricts (asks, refuses) fits if any reading of it does:

- a path is read as it stands and as it resolves: `docs/../secret` is `secret`. What restricts also looks past the case
  of letters, as some file systems do.
- a `*` or `?` that permits a command line reaches over no character by which shells join commands or start others.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["MAX_PATTERN", "glob", "matches", "text_of"]

MAX_PATTERN: Final = 1024
"""Characters of a pattern. A longer one, which is looked at by nobody, restricts everything and permits nothing."""

_PATHS: Final[Mapping[str, frozenset[str]]] = {
    "read_file": frozenset({"path"}),
    "write_file": frozenset({"path"}),
    "list_files": frozenset({"path"}),
    "search_in_code": frozenset({"path"}),
    "create_directory": frozenset({"path"}),
    "delete_file": frozenset({"path"}),
    "move_file": frozenset({"source", "destination"}),
    "execute_command": frozenset({"cwd"}),
}
"""The arguments of the standard tools that are paths."""

_COMMANDS: Final[Mapping[str, frozenset[str]]] = {"execute_command": frozenset({"command"})}
_SHELL: Final = frozenset(";&|<>`$()\n\r")


def matches(tool: str, patterns: Mapping[str, str], arguments: Mapping[str, Any], *, permitting: bool) -> bool:
    """Whether every pattern fits the argument of its name; `permitting`: where it does, the call runs unasked."""
    if any(len(pattern) > MAX_PATTERN for pattern in patterns.values()):
        return not permitting
    return all(
        argument in arguments and _fits(tool, argument, pattern, text_of(arguments[argument]), permitting=permitting)
        for argument, pattern in patterns.items()
    )


def text_of(value: Any) -> str:
    """An argument as patterns see it."""
    return value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()


def glob(pattern: str, text: str) -> bool:
    """Whether the whole text is as the pattern says. Takes time in proportion to both, whatever they are."""
    first, *rest = [re.escape(piece).replace(r"\?", ".") for piece in re.sub(r"\*+", "*", pattern).split("*")]
    if not rest:
        return re.fullmatch(first, text, re.DOTALL) is not None
    begins = re.match(first, text, re.DOTALL)
    if begins is None:
        return False
    # The earliest place of each piece is as good as any, but for the last, which must stand at the end.
    at = begins.end()
    for piece in rest[:-1]:
        found = re.compile(piece, re.DOTALL).search(text, at)
        if found is None:
            return False
        at = found.end()
    # As many characters of a pattern as of the text: nothing in a piece repeats.
    length = len(pattern.rpartition("*")[2])
    end = len(text) - length
    return end >= at and re.compile(rest[-1], re.DOTALL).match(text, end) is not None


def _fits(tool: str, argument: str, pattern: str, text: str, *, permitting: bool) -> bool:
    if argument in _PATHS.get(tool, ()):
        readings = {text, _resolved(text)}
        if permitting:
            return all(glob(pattern, reading) for reading in readings)
        resolved = _resolved(pattern) if not pattern.startswith("*") else pattern
        return any(
            glob(wanted.casefold(), reading.casefold()) for wanted in {pattern, resolved} for reading in readings
        )
    if permitting and argument in _COMMANDS.get(tool, ()) and not set(text) & _SHELL <= set(pattern):
        return False
    return glob(pattern, text)


def _resolved(path: str) -> str:
    """Where a path leads, seen from the workspace: without `.`, `..`, doubled slashes, and Windows' own ones."""
    resolved = posixpath.normpath(path.replace("\\", "/")) if path else ""
    return f"/{resolved.lstrip('/')}" if resolved.startswith("/") else resolved
