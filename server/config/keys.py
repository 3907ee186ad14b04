"""Every key that there is, read off the sections' types: name, type, default, documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec import inspect as types

from server.config.environment import ENVIRONMENT
from server.config.near import closest
from server.config.sections import Sections
from server.config.sources import Place, dotted

__all__ = ["Key", "Section", "documentation", "find_key", "meant", "sections", "words"]

#: What the free name of a table is.
_FREE: Final = {"mcp.*": "NAME", "prices.*": "MODEL"}
_FIELD: Final = re.compile(r"(\w+): ")


class Key(Struct, frozen=True, kw_only=True):
    """One key. `name` is dotted, with `[]` for a place in an array and `*` for any name; `default` may be NODEFAULT."""

    name: str
    type: types.Type
    default: Any
    text: str
    variable: str | None = None

    @property
    def leaf(self) -> str:
        """Its name within its section."""
        return self.name.rpartition(".")[2]

    @property
    def example(self) -> Any:
        """A value to show for a key that has no default, if there is one."""
        kinds = self.type.types if isinstance(self.type, types.UnionType) else (self.type,)
        schemas = [kind.extra_json_schema or {} for kind in kinds if isinstance(kind, types.Metadata)]
        return next((example for schema in schemas for example in schema.get("examples", ())), None)


class Section(Struct, frozen=True, kw_only=True):
    """One table of the file: `server`, `auth.tokens[]`, `agents.overrides.*`."""

    name: str
    text: str
    keys: tuple[Key, ...]

    @property
    def header(self) -> str:
        """As it stands in a file; a word in capitals is for the reader to fill in."""
        if self.name.endswith("[]"):
            return f"[[{self.name.removesuffix('[]')}]]"
        return f"[{self.name.replace('*', _FREE.get(self.name, 'TYPE'))}]"


@cache
def sections() -> tuple[Section, ...]:
    """All of them, in the order in which people should read them."""
    info = types.type_info(Sections)
    assert isinstance(info, types.StructType)
    found = ((field.name, _table(field.type)) for field in info.fields)
    return tuple(section for name, table in found if table for section in _sections(name + table[0], table[1], ""))


def find_key(place: Place) -> Key | None:
    """The key at a place, if it is one."""
    name = _pattern(place)
    return next((key for section in sections() for key in section.keys if key.name == name), None)


def meant(place: Place) -> str | None:
    """The key or section that somebody may have meant who wrote this one, which there is not."""
    table, leaf = _pattern(place[:-1]), str(place[-1])
    prefix = f"{table}." if table else ""
    names = [name for section in sections() for name in (section.name, *(key.name for key in section.keys))]
    beside = {re.split(r"[.\[]", name.removeprefix(prefix))[0] for name in names if name.startswith(prefix)}
    if near := closest(leaf, beside - {"*"}):
        return dotted((*place[:-1], near))
    # The right key in the wrong section.
    plain = (name for name in names if not re.search(r"[*\[]", name))
    return next((name for name in plain if name.rpartition(".")[2] == leaf), None)


@cache
def documentation(kind: type) -> dict[str, str]:
    """What the `#:` comments above the fields of a class say, by field; nothing where there is no source to read."""
    try:
        lines = inspect.getsource(kind).splitlines()
    except (OSError, TypeError):
        return {}
    texts: dict[str, str] = {}
    said: list[str] = []
    for line in map(str.strip, lines):
        if line.startswith("#:"):
            said.append(line.removeprefix("#:").strip())
            continue
        field = _FIELD.match(line)
        if said and field:
            texts[field[1]] = " ".join(said)
        said = []
    return texts


def words(info: types.Type) -> str:
    """A type as people call it."""
    match info:
        case types.Metadata(type=inner):
            text = words(inner)
        case types.UnionType(types=kinds):
            text = " or ".join(words(kind) for kind in kinds if not isinstance(kind, types.NoneType))
        case types.LiteralType(values=values):
            text = ", ".join(f"`{value}`" for value in values[:-1]) + f" or `{values[-1]}`"
        case types.VarTupleType(item_type=types.LiteralType() as item):
            text = f"list of {words(item)}"
        case types.VarTupleType(item_type=item):
            text = f"list of {_plural(words(item))}"
        case types.DictType(value_type=item):
            text = "table" if isinstance(item, types.AnyType) else f"table of {_plural(words(item))}"
        case types.StrType(max_length=most):
            text = "text" if most is None else f"text (at most {most:,} characters)"
        case types.IntType() | types.FloatType():
            text = ("integer" if isinstance(info, types.IntType) else "number") + _range(info)
        case types.BoolType():
            text = "boolean"
        case types.DateTimeType():
            text = "time"
        case _:
            raise AssertionError(f"no words for {info}")
    return text


def _plural(text: str) -> str:
    noun, space, bounds = text.partition(" ")
    return f"{noun}s{space}{bounds}"


def _range(info: types.IntType | types.FloatType) -> str:
    least = f"more than {info.gt:,}" if info.gt is not None else "" if info.ge is None else f"{info.ge:,}"
    if info.le is None:
        return f" ({least}{' or more' if info.gt is None else ''})" if least else ""
    if info.gt is not None:
        return f" ({least}, at most {info.le:,})"
    return f" ({least} to {info.le:,})" if least else f" (at most {info.le:,})"


def _sections(name: str, info: types.Type, text: str) -> Iterator[Section]:
    """The section and those within it; `text` is what is said where it is declared."""
    assert isinstance(info, types.StructType)
    texts = documentation(info.cls)
    variables = {variable.key: each for each, variable in ENVIRONMENT.items()}
    keys, inner = [], []
    for field in info.fields:
        below = _table(field.type)
        path = f"{name}.{field.encode_name}"
        if below is not None:
            inner.append((path + below[0], below[1], texts.get(field.name, "")))
            continue
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        keys.append(
            Key(
                name=path,
                type=field.type,
                default=default,
                text=texts.get(field.name, ""),
                variable=variables.get(path),
            )
        )
    yield Section(name=name, text=text or " ".join((info.cls.__doc__ or "").split()), keys=tuple(keys))
    for each in inner:
        yield from _sections(*each)


def _table(info: types.Type) -> tuple[str, types.StructType] | None:
    """Whether the field is a section, or many: what its name ends in, and their type."""
    match info:
        case types.StructType():
            return "", info
        case types.VarTupleType(item_type=types.StructType() as item):
            return "[]", item
        case types.DictType(value_type=types.StructType() as item):
            return ".*", item
        case _:
            return None


def _pattern(place: Place) -> str:
    """`auth.tokens[].user` for the place of a token's user."""
    free = {section.name.removesuffix(".*") for section in sections() if section.name.endswith(".*")}
    name = ""
    for part in place:
        if isinstance(part, int):
            name += "[]"
        elif name in free:
            name += ".*"
        else:
            name += f".{part}" if name else part
    return name
