"""The tables of the published specification, made from the types: what they say cannot differ from what is done.

`python -m protocol.tables` writes them into the README beside this file, between its markers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from protocol.codec import MAX_COMMAND_BYTES, MAX_COMMANDS, MAX_NESTING
from protocol.commands import COMMANDS, STORED, TOOL_NAME_PATTERN
from protocol.errors import ErrorCode
from protocol.events import EVENTS, Kind, Timestamp
from protocol.framing import BATCH_BYTES
from protocol.ids import ID_PATTERN, ID_RULE
from protocol.lifecycles import LIFECYCLES
from protocol.values import MAX_CONTAINERS, MAX_INTEGER, MIN_INTEGER

__all__ = ["TABLES", "fill"]

_TIME_PATTERN: Final = Timestamp.__metadata__[0].pattern  # type: ignore[attr-defined]
_NAMED_PATTERNS: Final = {ID_PATTERN: "id", TOOL_NAME_PATTERN: "tool name", _TIME_PATTERN: "time"}

_MARKED: Final = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str) -> str:
    """The text with every `<!-- table: name -->` ... `<!-- end -->` filled; raises KeyError for an unknown name."""
    return _MARKED.sub(lambda match: f"{match[1]}{TABLES[match['name']]()}{match[3]}", text)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines.extend([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _doc(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


def _struct(kind: type) -> inspect.StructType:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info


# --- types in words


def _range(least: float | None, most: float | None) -> str:
    """The bounds of a value or a length, as words that follow its type."""
    if most is None:
        return "" if least is None else f" (at least {least})"
    return f" (at most {most})" if least is None else f" ({least} to {most})"


def _words(info: inspect.Type) -> str:
    """A type as a reader of JSON calls it."""
    match info:
        case inspect.Metadata(type=inner):
            words = _words(inner)
        case inspect.UnionType(types=types):
            words = " or ".join(_words(kind) for kind in types)
        case inspect.StrType(pattern=pattern, min_length=least, max_length=most):
            words = _NAMED_PATTERNS[pattern] if pattern else "text" + _range(least, most)
        case inspect.LiteralType(values=values):
            words = " | ".join(f"`{value}`" for value in values)
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            words = f"[{_words(item)}]{_range(least, most)}"
        case inspect.DictType(value_type=item):
            words = "object" if isinstance(item, inspect.AnyType) else f"object of {_words(item)}"
        case inspect.StructType(cls=cls):
            words = f"*{cls.__name__}*"
        case _:
            words = _scalar_words(info)
    return words


def _scalar_words(info: inspect.Type) -> str:
    match info:
        case inspect.IntType(ge=least, le=most):
            # That a count is no less than nothing goes without saying.
            return "integer" + _range(least or None, most)
        case inspect.FloatType(ge=least, le=most):
            return "number" + _range(least, most)
        case inspect.BoolType():
            return "boolean"
        case inspect.UUIDType():
            return "uuid"
        case inspect.NoneType():
            return "null"
        case inspect.AnyType():
            return "any JSON"
        case _:
            raise AssertionError(f"no words for {info}")


def _without_null(info: inspect.Type) -> inspect.Type:
    """The type of an optional field: it is left out rather than null."""
    if isinstance(info, inspect.UnionType):
        rest = tuple(kind for kind in info.types if not isinstance(kind, inspect.NoneType))
        return rest[0] if len(rest) == 1 else inspect.UnionType(rest)
    return info


def _field(field: inspect.Field) -> str:
    default = "" if field.default in (msgspec.NODEFAULT, None, "", False, 0) else f" = `{field.default}`"
    kind = field.type if field.required else _without_null(field.type)
    return f"`{field.encode_name}{'' if field.required else '?'}`: {_words(kind)}{default}"


def _fields(info: inspect.StructType, hidden: frozenset[str] = frozenset()) -> str:
    return "<br>".join(_field(field) for field in info.fields if field.encode_name not in hidden)


# --- the tables


def _commands() -> str:
    common = frozenset({"id", "n"})
    return _table(
        ["`type`", "fields", "", "stored"],
        (
            [f"`{name}`", _fields(_struct(kind), common), _doc(kind), "yes" if kind in STORED else "no"]
            for name, kind in COMMANDS.items()
        ),
    )


def _events(kind: Kind) -> str:
    return _table(
        ["`event_type`", "payload", ""],
        (
            [f"`{row.name}`", _fields(_struct(row.payload)), row.description]
            for row in EVENTS.values()
            if row.kind == kind
        ),
    )


def _objects() -> str:
    """The structs inside of commands and payloads, in the order in which they are met."""
    top = [*COMMANDS.values(), *(row.payload for row in EVENTS.values())]
    found: dict[str, inspect.StructType] = {}

    def visit(info: Any) -> None:
        for inner in _inside(info):
            if isinstance(inner, inspect.StructType) and inner.cls not in top:
                found.setdefault(inner.cls.__name__, inner)
            visit(inner)

    for kind in top:
        visit(_struct(kind))
    return _table(
        ["object", "fields", ""],
        (
            [f"*{name}*", "<br>".join([*_tag(info), _fields(info)]), _doc(info.cls)]
            for name, info in sorted(found.items())
        ),
    )


def _inside(info: Any) -> list[inspect.Type]:
    """The types that a type is made of."""
    match info:
        case inspect.Metadata(type=inner) | inspect.ListType(item_type=inner) | inspect.DictType(value_type=inner):
            return [inner]
        case inspect.UnionType(types=types):
            return list(types)
        case inspect.StructType(fields=fields):
            return [field.type for field in fields]
        case _:
            return []


def _tag(info: inspect.StructType) -> list[str]:
    return [] if info.tag_field is None else [f"`{info.tag_field}`: `{info.tag}`"]


def _errors() -> str:
    return _table(
        ["`code`", "HTTP", "close", "reconnect", ""],
        (
            [
                f"`{error.code}`",
                str(error.status),
                "" if error.close is None else str(error.close),
                "" if error.close is None else "yes" if error.may_reconnect else "no",
                error.title,
            ]
            for error in ErrorCode
        ),
    )


def _limits() -> str:
    return _table(
        ["what", "limit"],
        [
            ["bytes of one command, or of an array of them", f"{MAX_COMMAND_BYTES:,} (see `connected`)"],
            ["levels of nesting in a command, itself included", f"{MAX_NESTING} (see `connected`)"],
            ["arrays and objects in one command", f"{MAX_CONTAINERS:,}"],
            ["commands in one array", str(MAX_COMMANDS)],
            ["an id: of a command, a client, a session's alias", ID_RULE],
            ["an integer", f"{MIN_INTEGER} to {MAX_INTEGER}"],
            ["bytes of one batch of events, unless one event is larger", f"{BATCH_BYTES:,}"],
        ],
    )


def _lifecycles() -> str:
    return _table(
        ["of", "state", "what may happen -> next state"],
        (
            [name, f"`{state}`", "<br>".join(f"{input_} -> `{follower}`" for input_, follower in row.items())]
            for name, lifecycle in LIFECYCLES.items()
            for state, row in lifecycle.table.items()
            if row
        ),
    )


#: The tables by name.
TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "commands": _commands,
    "durable-events": lambda: _events("durable"),
    "delta-events": lambda: _events("delta"),
    "transient-events": lambda: _events("transient"),
    "control-events": lambda: _events("control"),
    "objects": _objects,
    "errors": _errors,
    "limits": _limits,
    "lifecycles": _lifecycles,
}


if __name__ == "__main__":
    readme = Path(__file__).with_name("README.md")
    readme.write_text(fill(readme.read_text("utf-8")), "utf-8")
