"""Where values come from: each one is put down together with its source, so that the two cannot part."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

__all__ = ["DEFAULT", "FLAG", "Given", "Place", "Source", "dotted", "leaves", "present", "take_out"]

#: A place in the configuration: names of tables and keys, and positions in arrays.
Place: TypeAlias = tuple[str | int, ...]

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


class Source(Struct, frozen=True):
    """Where a value was set.

    `name` is the file, or the variable's exact name; `line` counts from 1. `borrowed` is a variable of OpenAI's own
    clients.
    """

    kind: Literal["default", "file", "environment", "borrowed", "flag"]
    name: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        match self.kind:
            case "default":
                return "the defaults"
            case "file":
                return f"{self.name}" if self.line is None else f"{self.name}, line {self.line}"
            case "environment" | "borrowed":
                return f"the environment, {self.name}"
            case "flag":
                return "the command line"


DEFAULT: Final = Source("default")
FLAG: Final = Source("flag")


class Given:
    """Values as they were given, farther sources first: what is put later takes the place of what was there."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._sources: dict[Place, Source] = {}

    def put(self, section: str, key: str, value: Any, source: Source) -> None:
        """Set one key of a section."""
        self.drop(section, key)
        self.values.setdefault(section, {})[key] = value
        self._sources |= {(section, key, *rest): source for rest, _ in leaves(value)}

    def put_file(self, values: dict[str, Any], name: str, lines: dict[Place, int]) -> None:
        """Set what a file holds; before anything else."""
        self.values = values
        self._sources = {path: Source("file", name, line) for path, line in lines.items()}

    def drop(self, section: str, key: str) -> None:
        """Forget one key, whoever set it."""
        self.values.get(section, {}).pop(key, None)
        self._sources = {path: source for path, source in self._sources.items() if path[:2] != (section, key)}

    def get(self, section: str, key: str) -> Any:
        """One key's value, or None."""
        return self.values.get(section, {}).get(key)

    def source(self, path: Place) -> Source | None:
        """Where the value was set, or else what is around it, or in it; None where nobody set anything."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._sources:
                return self._sources[path[:length]]
        within = path[:-1] or path
        return next((source for known, source in self._sources.items() if known[: len(within)] == within), None)

    def sources(self) -> dict[str, Source]:
        """All sources by dotted key."""
        return {dotted(path): source for path, source in self._sources.items()}


def dotted(path: Place) -> str:
    """`server.port`, `auth.tokens[0].user`, `model.extra_headers."x.y"`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text


def leaves(value: Any) -> Iterator[tuple[Place, Any]]:
    """What a value holds in the end, each with its place; an array is looked into only where it holds tables."""
    if isinstance(value, dict) and value:
        inner: Iterator[tuple[str | int, Any]] = iter(value.items())
    elif isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        inner = iter(enumerate(value))
    else:
        yield (), value
        return
    for name, item in inner:
        for rest, leaf in leaves(item):
            yield (name, *rest), leaf


def present(values: Any, path: Place) -> bool:
    """Whether there is something at the place."""
    for part in path:
        match values:
            case dict() if part in values:
                values = values[part]
            case list() if isinstance(part, int) and part < len(values):
                values = values[part]
            case _:
                return False
    return True


def take_out(values: Any, path: Place) -> None:
    """Remove what is at the place; it must be there."""
    for part in path[:-1]:
        values = values[part]
    del values[path[-1]]
