"""The configuration as people and programs are shown it: each key with its value, its default and its source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from server.config.secrets import hidden
from server.config.sections import Config, Sections
from server.config.sources import Place, Source, dotted

__all__ = ["Entry", "as_toml", "entries"]

#: What JSON lets stand as it is and TOML does not.
_DELETE: Final = "\x7f"


class Entry(Struct, frozen=True):
    """One key in force: `name` is dotted, secrets in `value` are hidden. What has no default has None there."""

    name: str
    value: Any
    default: Any
    changed: bool
    source: Source

    @property
    def section(self) -> str:
        """The part of the name before the first dot."""
        return self.name.partition(".")[0]

    @property
    def key(self) -> str:
        """The part after it."""
        return self.name.partition(".")[2]


def entries(config: Config) -> Iterator[Entry]:
    """All keys, section by section; of tables with free names, and of arrays of tables, those that are set."""
    for name in Sections.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, Struct) or value:
            yield from _entries(config, (name,), value, None)


def as_toml(value: Any) -> str:
    """A value as it would stand in the file; None, which cannot, is `-`."""
    match value:
        case None:
            return "-"
        case bool() | int() | float():
            return str(value).lower()
        case dict():
            pairs = ", ".join(f"{dotted((name,))} = {as_toml(item)}" for name, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(map(as_toml, value))}]"
        case datetime():
            return value.isoformat()
        case _:
            return json.dumps(str(value), ensure_ascii=False).replace(_DELETE, "\\u007f")


def _entries(config: Config, place: Place, value: Any, default: Any) -> Iterator[Entry]:
    if isinstance(value, Struct):
        for field in msgspec.structs.fields(value):
            yield from _entries(config, (*place, field.name), getattr(value, field.name), _default(field))
    elif isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _set(_entries(config, (*place, name), item, None))
    elif isinstance(value, tuple) and any(isinstance(item, Struct) for item in value):
        for number, item in enumerate(value):
            yield from _set(_entries(config, (*place, number), item, None))
    else:
        name = dotted(place)
        yield Entry(name, hidden(name, value), default, value != default, config.source(name))


def _set(found: Iterator[Entry]) -> Iterator[Entry]:
    return (entry for entry in found if entry.changed or entry.source.kind != "default")


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default
