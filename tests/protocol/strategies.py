"""Hypothesis strategies for everything that can be said, derived from the types themselves.

A new field or a new type is covered on the day it is written: only rules between fields need a line here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from msgspec import inspect

from protocol.commands import (
    COMMANDS,
    Command,
    HitlDecision,
    QueueUpdate,
    RegisterTools,
    Remember,
    ToolDescription,
    ToolResult,
)
from protocol.events import EVENTS, MessageDelta, Payload

#: Text that can be kept: no NUL, no surrogates; with characters outside the first plane, which UTF-16 writes as pairs.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.text(
    'ab é日😀𝄞\n\r\u2028"\\', max_size=20
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
INTEGERS = st.integers(-(2**63), 2**64 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | INTEGERS | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


#: For tests that are run for each type in each encoding: together they try many.
few = settings(max_examples=max(15, settings().max_examples // 5))


def _of(info: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: PLR0912 - a case for each kind of type
    """Values of a type, within its constraints."""
    match info:
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.UnionType(types=types):
            return st.one_of(*map(_of, types))
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern.replace(r"(?!\n)", ""), fullmatch=True).filter(lambda text: "\n" not in text)
        case inspect.StrType(min_length=least, max_length=most):
            return TEXT.filter(lambda text: (least or 0) <= len(text) <= (most or 20))
        case inspect.IntType(ge=least, le=most):
            return st.integers(-(2**63) if least is None else least, 2**63 - 1 if most is None else most)
        case inspect.FloatType(ge=least, le=most):
            return st.floats(least, most, allow_nan=False, allow_infinity=False)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.UUIDType():
            return st.uuids()
        case inspect.LiteralType(values=values):
            return st.sampled_from(values)
        case inspect.ListType(item_type=item, min_length=least):
            return st.lists(_of(item), min_size=least or 0, max_size=3)
        case inspect.DictType(value_type=item):
            return st.dictionaries(TEXT, _of(item), max_size=3)
        case inspect.AnyType():
            return JSON
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _of(field.type) for field in fields})
        case _:
            raise AssertionError(f"no strategy for {info}")


def structs(kind: type[msgspec.Struct], **special: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Instances of a struct; `special` replaces the strategies of fields."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    fields = {field.name: _of(field.type) for field in info.fields} | special
    return st.builds(kind, **fields)


def _decisions() -> st.SearchStrategy[Any]:
    def of(decision: str) -> st.SearchStrategy[Any]:
        remembered = decision in ("approve", "reject")
        return structs(
            HitlDecision,
            decision=st.just(decision),
            modified_arguments=st.dictionaries(TEXT, JSON, max_size=3) if decision == "edit" else st.none(),
            feedback=TEXT.filter(bool) if decision == "respond" else st.none() | TEXT,
            remember=st.none() | structs(Remember) if remembered else st.none(),
        )

    return st.sampled_from(["approve", "edit", "reject", "respond"]).flatmap(of)


_BOUND: dict[type[Any], st.SearchStrategy[Any]] = {
    HitlDecision: _decisions(),
    ToolResult: structs(ToolResult, error=st.none()) | structs(ToolResult, result=st.none()),
    QueueUpdate: structs(QueueUpdate, order=st.none(), remove=st.uuids())
    | structs(QueueUpdate, order=st.lists(st.uuids(), min_size=1, max_size=4, unique=True), remove=st.none()),
    RegisterTools: structs(
        RegisterTools, tools=st.lists(structs(ToolDescription), max_size=3, unique_by=lambda tool: tool.name)
    ),
}

COMMAND_STRATEGIES = {name: _BOUND[kind] if kind in _BOUND else structs(kind) for name, kind in COMMANDS.items()}
EVENT_STRATEGIES = {name: structs(row.payload) for name, row in EVENTS.items()}


def commands() -> st.SearchStrategy[Command]:
    """Any command."""
    return st.one_of(*COMMAND_STRATEGIES.values())


def payloads() -> st.SearchStrategy[tuple[str, Payload]]:
    """Any event's name and payload."""
    return st.sampled_from(sorted(EVENTS)).flatmap(lambda name: st.tuples(st.just(name), EVENT_STRATEGIES[name]))


def deltas() -> st.SearchStrategy[MessageDelta]:
    """Any delta."""
    return EVENT_STRATEGIES["message_delta"]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces, cut at the places (taken modulo the length), some of them perhaps empty."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
