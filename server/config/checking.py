"""From values to typed sections, with everything that is wrong with them and not only the first of it.

msgspec stops at the first mistake, and tells its place only in words. So a mistake is noted, what is wrong is taken
out, and the rest is looked at again.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Final, Literal, NamedTuple

import msgspec

from server.config.keys import find_key, meant, words
from server.config.problems import Problem
from server.config.sections import Sections
from server.config.sources import Given, Place, dotted, present, take_out

__all__ = ["check"]

_AT: Final = re.compile(r"(?P<reason>.*) - at `\$(?P<place>[^`]*)`", re.DOTALL)
_PART: Final = re.compile(r"\.(?P<name>\w+)|\[(?P<index>\d+)\]|\[\.\.\.\]")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`")
_ENUM: Final = re.compile(r"Invalid enum value (.*)", re.DOTALL)
#: A check of our own names the key within its section, or the section too.
_NAMED: Final = re.compile(r"(?P<key>[a-z_0-9.]+): (?P<reason>.*)", re.DOTALL)


class _Fault(NamedTuple):
    """A mistake: in which table, under which key. Only `value` is certain not to come of an earlier one."""

    kind: Literal["unknown", "value", "rule"]
    table: Place
    path: Place
    reason: str


def check(given: Given) -> tuple[Sections, tuple[Problem, ...]]:
    """The sections as far as they are right, and the mistakes."""
    values = copy.deepcopy(given.values)
    problems: list[Problem] = []
    removed = _Removed()
    hurt: set[Place] = set()
    while True:
        try:
            return msgspec.convert(values, Sections), tuple(problems)
        except msgspec.ValidationError as error:
            fault = _fault(str(error), values)
        table, path = removed.original(fault.table), removed.original(fault.path)
        there = present(values, fault.path)
        if not _follows(fault, table, hurt, there=there):
            source = given.source(path)
            problems.append(Problem(dotted(path), fault.reason, source))
        hurt.add(table)
        removed.take_out(values, fault.path if there else fault.table)


def _follows(fault: _Fault, table: Place, hurt: set[Place], *, there: bool) -> bool:
    """Whether the fault may only be there because something was taken out for an earlier one.

    What a rule of a table misses may have been refused before; so may anything that a rule across tables speaks of.
    """
    if fault.kind != "rule":
        return False
    if not table:
        return bool(hurt)
    return table in hurt and (not there or fault.path == fault.table)


class _Removed:
    """What was taken out of arrays, to know where in the file the rest stands."""

    def __init__(self) -> None:
        self._indexes: dict[Place, list[int]] = {}

    def take_out(self, values: dict[str, Any], path: Place) -> None:
        """Remove a value; the position of one in an array is remembered."""
        if not path or not present(values, path):
            # Nothing more can be told apart.
            values.clear()
            return
        take_out(values, path)
        *array, last = self.original(path)
        if isinstance(last, int):
            self._indexes.setdefault(tuple(array), []).append(last)

    def original(self, path: Place) -> Place:
        """The place before anything was removed."""
        result: Place = ()
        for part in path:
            if isinstance(part, int):
                for index in sorted(self._indexes.get(result, ())):
                    part += index <= part  # noqa: PLW2901 - one further for each that stood before it
            result += (part,)
        return result


def _fault(message: str, values: dict[str, Any]) -> _Fault:
    found = _AT.fullmatch(message)
    reason, place = (found["reason"], found["place"]) if found else (message, "")
    path = _place(place, message, values)
    if match := _UNKNOWN.fullmatch(reason):
        path, table = (*path, match[1]), path
        near = meant(path)
        return _Fault("unknown", table, path, "there is no such key" + (f"; did you mean {near}?" if near else ""))
    if match := _MISSING.fullmatch(reason):
        return _Fault("rule", path, (*path, match[1]), "it is missing")
    if match := _ENUM.fullmatch(reason):
        key = find_key(path)
        wanted = f"expected {words(key.type)}, got " if key else "unexpected "
        return _Fault("value", path[:-1], path, wanted + match[1])
    if reason.startswith(("Expected ", "Invalid RFC3339 ")):
        return _Fault("value", path[:-1], path, _expected(reason))
    if match := _NAMED.fullmatch(reason):
        return _Fault("rule", path, (*path, *match["key"].split(".")), match["reason"])
    return _Fault("rule", path, path, reason)


def _expected(reason: str) -> str:
    if not reason.startswith("Expected "):
        return "expected a time, such as 2030-01-31T12:00:00Z"
    # A file cannot say null: what may be missing is left out.
    return reason[:1].lower() + reason[1:].replace(" | null`", "`")


def _place(place: str, message: str, values: dict[str, Any]) -> Place:
    """From `.auth.tokens[0]`; for `[...]`, which stands for any key of a free table, the first that is wrong."""
    path: Place = ()
    for part in _PART.finditer(place):
        if part["name"]:
            path += (part["name"],)
        elif part["index"]:
            path += (int(part["index"]),)
        else:
            path += (_culprit(path, message, values),)
    return path


def _culprit(path: Place, message: str, values: dict[str, Any]) -> str:
    table: Any = values
    for part in path:
        table = table[part]
    whole: dict[str, Any] = dict(table)
    try:
        for name, value in whole.items():
            table.clear()
            table[name] = value
            try:
                msgspec.convert(values, Sections)
            except msgspec.ValidationError as error:
                if str(error) == message:
                    return name
    finally:
        table.clear()
        table.update(whole)
    raise AssertionError(f"no key of {dotted(path)} alone is wrong: {message}")
