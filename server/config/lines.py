"""On which line of a TOML file each key stands, which `tomllib` does not tell.

This reads only as much of the language (TOML 1.0.0) as it takes to find keys, and only what `tomllib` has accepted.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final, NamedTuple

from server.config.sources import Place

__all__ = ["find_lines"]

_TOKEN: Final = re.compile(
    r'"""(?:\\.|(?!""")[^\\])*"{3,5}'
    r"|'''(?:(?!''').)*'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\n\[\]{}=,.]"
    r"|[^\s\[\]{}=,.\"'#]+",
    re.DOTALL,
)


class _Token(NamedTuple):
    text: str
    line: int


def find_lines(text: str) -> dict[Place, int]:
    """The line, counted from 1, of every key and every table in a valid document."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        self._at = 0
        self._found: dict[Place, int] = {}
        #: How many tables each array of tables has by now.
        self._counts: dict[Place, int] = {}
        line, end = 1, 0
        for match in _TOKEN.finditer(text):
            line += text.count("\n", end, match.start())
            end = match.start()
            if not match[0].startswith("#"):
                self._tokens.append(_Token(match[0], line))

    def read(self) -> dict[Place, int]:
        table: Place = ()
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            if token.text == "\n":
                self._at += 1
            elif token.text == "[":
                table = self._header()
                for length in range(1, len(table) + 1):
                    self._found.setdefault(table[:length], token.line)
            else:
                self._pair(table)
        return self._found

    def _next(self) -> _Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else "\n"

    def _header(self) -> Place:
        """`[a.b]` or `[[a.b]]`; where a name is that of an array of tables, its last one is meant."""
        self._next()
        array = self._peek() == "["
        if array:
            self._next()
        names = self._names("]")
        if array:
            self._next()
        path: Place = ()
        for number, name in enumerate(names, 1):
            path += (name,)
            if array and number == len(names):
                self._counts[path] = self._counts.get(path, 0) + 1
            if path in self._counts:
                path += (self._counts[path] - 1,)
        return path

    def _pair(self, table: Place) -> None:
        line = self._tokens[self._at].line
        path = table
        for name in self._names("="):
            path += (name,)
            self._found.setdefault(path, line)
        self._value(path)

    def _names(self, end: str) -> list[str]:
        """The names of a dotted key, and the token after it."""
        names = []
        while (text := self._next().text) != end:
            if text != ".":
                names.append(next(iter(tomllib.loads(f"{text}=0"))))
        return names

    def _value(self, path: Place) -> None:
        match self._peek():
            case "[":
                self._array(path)
            case "{":
                self._next()
                while self._peek() != "}":
                    if self._peek() in {",", "\n"}:
                        self._next()
                    else:
                        self._pair(path)
                self._next()
            case _:
                while self._peek() not in {",", "]", "}", "\n"}:
                    self._next()

    def _array(self, path: Place) -> None:
        self._next()
        number = 0
        while self._peek() != "]":
            if self._peek() in {",", "\n"}:
                self._next()
            else:
                self._found[(*path, number)] = self._tokens[self._at].line
                self._value((*path, number))
                number += 1
        self._next()
