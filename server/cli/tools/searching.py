"""Searching a folder for a text: a program of its own, as a regular expression may take for ever and cannot be stopped.

It gets the open folder as a descriptor, what is asked as JSON on its input, and answers with JSON. Only what comes with
Python is imported.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Final, TypedDict

__all__ = ["Asked", "search"]

#: Bytes; what is larger is no source. A look at the first of them tells text from other data.
_LARGEST_FILE: Final = 4 << 20
_LOOK: Final = 8192
_LONGEST_LINE: Final = 300
_MOST_VISITED: Final = 200_000
_DEEPEST: Final = 64
#: Seconds.
_PATIENCE: Final = 15.0
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Asked(TypedDict):
    """What to search for, as the tool's parameters have it; `prefix` stands before every path."""

    query: str
    prefix: str
    name: str | None
    file_pattern: str | None
    case_sensitive: bool
    regex: bool
    max_results: int


def search(folder: int, asked: Asked) -> dict[str, Any]:
    """The lines with the text in the files below an open folder, or in its file `name`. Raises re.error."""
    return _Search(asked).run(folder)


class _Search:
    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._matches = _matcher(asked)
        self._found: list[dict[str, Any]] = []
        self._visited = 0
        self._until = time.monotonic() + _PATIENCE
        self._truncated = False

    def run(self, folder: int) -> dict[str, Any]:
        name = self._asked["name"]
        paths = (
            _files(folder, self._asked["prefix"], 0) if name is None else iter([(folder, name, self._asked["prefix"])])
        )
        for inside, name_, path in paths:
            self._visited += 1
            if self._visited > _MOST_VISITED or time.monotonic() > self._until:
                self._truncated = True
            if self._truncated:
                break
            pattern = self._asked["file_pattern"]
            if pattern is None or fnmatchcase(name_, pattern) or fnmatchcase(path, pattern):
                self._file(inside, name_, path)
        return {"matches": self._found, "truncated": True} if self._truncated else {"matches": self._found}

    def _file(self, folder: int, name: str, path: str) -> None:
        for number, line in enumerate(_text(folder, name).split("\n"), start=1):
            if self._matches(line):
                if len(self._found) >= self._asked["max_results"]:
                    self._truncated = True
                    return
                text = line.strip()
                shown = text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"
                self._found.append({"path": path, "line": number, "text": shown})


def _matcher(asked: Asked) -> Callable[[str], object]:
    query = asked["query"]
    if asked["regex"]:
        return re.compile(query, 0 if asked["case_sensitive"] else re.IGNORECASE).search
    if asked["case_sensitive"]:
        return lambda line: query in line
    folded = query.casefold()
    return lambda line: folded in line.casefold()


def _files(folder: int, prefix: str, depth: int) -> Iterator[tuple[int, str, str]]:
    """Plain files below, without hidden ones and what links lead to: their folder, name and path."""
    with os.scandir(folder) as entries:
        seen = (entry for entry in islice(entries, _MOST_VISITED) if not entry.name.startswith("."))
        listed = sorted(seen, key=lambda entry: entry.name)
    for entry in listed:
        path = f"{prefix}{entry.name}"
        if entry.is_file(follow_symlinks=False):
            yield folder, entry.name, path
        elif entry.is_dir(follow_symlinks=False) and depth < _DEEPEST:
            try:
                below = os.open(entry.name, _FOLDER, dir_fd=folder)
            except OSError:
                continue  # it may not be read, or is gone by now
            try:
                yield from _files(below, f"{path}/", depth + 1)
            finally:
                os.close(below)


def _text(folder: int, name: str) -> str:
    """A file's text; nothing where it is none."""
    try:
        with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
                return ""
            data = file.read(_LARGEST_FILE)
    except OSError:
        return ""
    return "" if b"\0" in data[:_LOOK] else data.decode("utf-8", "replace").replace("\0", "\ufffd")


def main() -> None:
    """Answer what is asked on standard input about the folder whose descriptor is the first argument."""
    try:
        answer = search(int(sys.argv[1]), json.load(sys.stdin))
    except re.error as error:
        answer = {"error": f"the query is no regular expression: {error}"}
    except OSError as error:
        answer = {"error": f"the folder cannot be read: {error.strerror}"}
    # Names that are no text come as lone surrogates, which JSON is not to hold.
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
