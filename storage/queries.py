"""The named statements of `sql/queries/*.sql`.

A file is a list of statements, each under a line `-- name: x` and a comment that says what it is for.
`fragments.sql` holds pieces that several statements share: `{x}` in a statement stands for the piece named x.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

__all__ = ["Query", "queries", "sql"]

_NAME: Final = re.compile(r"^-- name: ([a-z_][a-z0-9_]*)$", re.MULTILINE)
_PIECE: Final = re.compile(r"\{([a-z_]+)\}")
_FRAGMENTS: Final = "fragments"


class Query(NamedTuple):
    """One statement: its name, what it is for, its text with every fragment in place, and the file it stands in."""

    name: str
    description: str
    text: str
    file: str


def _parse(file: str, source: str) -> Iterator[Query]:
    parts = _NAME.split(source)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = body.strip().splitlines()
        comments = 0
        while comments < len(lines) and lines[comments].startswith("--"):
            comments += 1
        description = " ".join(line.removeprefix("--").strip() for line in lines[:comments])
        if not description:
            raise ValueError(f"{file}.sql: statement {name} has no line that says what it is for")
        yield Query(name, description, "\n".join(lines[comments:]), file)


@cache
def queries() -> dict[str, Query]:
    """All statements by name. Raises ValueError for a name used twice, without a purpose, or a fragment unknown."""
    found: dict[str, Query] = {}
    fragments: dict[str, str] = {}
    folder = files("storage") / "sql" / "queries"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".sql"):
            continue
        file = entry.name.removesuffix(".sql")
        for query in _parse(file, entry.read_text(encoding="utf-8")):
            if query.name in found or query.name in fragments:
                raise ValueError(f"{file}.sql: the name {query.name} is used twice")
            if file == _FRAGMENTS:
                fragments[query.name] = query.text
            else:
                found[query.name] = query
    return {name: query._replace(text=_expand(query, fragments)) for name, query in found.items()}


def _expand(query: Query, fragments: dict[str, str]) -> str:
    def piece(match: re.Match[str]) -> str:
        if match[1] not in fragments:
            raise ValueError(f"{query.file}.sql: {query.name} asks for the fragment {match[1]}, which is not there")
        return fragments[match[1]]

    return _PIECE.sub(piece, query.text)


def sql(name: str) -> str:
    """The text of the statement with this name; KeyError if there is none."""
    return queries()[name].text
