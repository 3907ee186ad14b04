"""JSON Schemas that others wrote, looked at within bounds.

A schema comes from a client or from another server, and a value from a model, so neither is trusted: nothing is ever
fetched, and the work is counted. A regular expression is tried only where that cannot take long (`patterns`); one that
is not tried refuses nothing, as the tool looks at its arguments itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, cast

import jsonschema
import msgspec
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import SPECIFICATIONS, extend, validator_for  # type: ignore[attr-defined]

from server.agents.patterns import compiled, effort

__all__ = ["MAX_SCHEMA_BYTES", "check", "schema_problem"]

MAX_SCHEMA_BYTES: Final = 64 * 1024
"""Size of a schema as JSON."""

#: Rules that may be applied to one value: a fraction of a second.
_MOST_STEPS: Final = 30_000
#: What a regular expression does in the time of one rule.
_REGEX_STEPS: Final = 50
_LONGEST: Final = 300
_SHOWN: Final = 60
_STANDARD: Final = jsonschema.Draft202012Validator
#: The dialects themselves, and no way to fetch anything else that a reference names.
_KNOWN: Final = SPECIFICATIONS

_Rule = Callable[[Any, Any, Any, Any], "Iterator[ValidationError] | None"]


class _TooMuchError(Exception):
    """The work that one value may take is used up."""


class _Budget:
    def __init__(self) -> None:
        self.left = float(_MOST_STEPS)

    def spend(self, steps: float) -> None:
        self.left -= steps
        if self.left < 0:
            raise _TooMuchError


_budget: ContextVar[_Budget] = ContextVar("_budget")


def check(schema: Mapping[str, Any], value: Any) -> str | None:
    """Why the value does not fit, naming field and rule in a line; None where it does."""
    try:
        return _first(_kind(schema)(dict(schema), registry=_KNOWN), value)
    except _TooMuchError:
        return "it takes too long to check them against the tool's schema: make them smaller"
    except Exception as failure:  # noqa: BLE001 - whatever somebody's strange schema leads to
        if isinstance(reference := getattr(failure, "ref", None), str):
            return f"the tool's schema refers to {_short(reference)}, which is not in it"
        return f"the tool's schema cannot be used ({type(failure).__name__})"


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """Why the schema is none that arguments can be checked against, in a line; None where it is one."""
    try:
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
            return f"it has more than {MAX_SCHEMA_BYTES} bytes of JSON"
        if schema.get("type", "object") != "object":
            return "its type is not `object`"
        kind = _kind(schema)
        return _first(kind(kind.META_SCHEMA, registry=_KNOWN), schema)
    except _TooMuchError:
        return "it is too large to be checked"
    except Exception as failure:  # noqa: BLE001 - as above
        return f"it cannot be used ({type(failure).__name__})"


def _first(validator: Validator, value: Any) -> str | None:
    token = _budget.set(_Budget())
    try:
        error = next(iter(validator.iter_errors(value)), None)
        return None if error is None else _told(error)
    finally:
        _budget.reset(token)


def _kind(schema: Mapping[str, Any]) -> Any:
    """The rules of the schema's dialect, each counted."""
    return _counted_kind(validator_for(dict(schema), default=_STANDARD))


@cache
def _counted_kind(kind: Any) -> Any:
    own: dict[str, _Rule] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    counted: Any = extend(kind, {name: _counted(own.get(name, rule)) for name, rule in kind.VALIDATORS.items()})  # type: ignore[no-untyped-call]
    # A part of a schema that names a dialect would be looked at by that one's own rules, which count nothing.
    counted.evolve = _evolve
    # It would try any expression, for what patternProperties have to do with it.
    counted.VALIDATORS = {name: rule for name, rule in counted.VALIDATORS.items() if name != "unevaluatedProperties"}
    return counted


def _evolve(self: Any, **changes: Any) -> Any:
    for field in self.__attrs_attrs__:
        if field.init:
            changes.setdefault(field.alias, getattr(self, field.name))
    return type(self)(**changes)


def _counted(rule: _Rule) -> _Rule:
    def apply(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
        _budget.get().spend(1)
        yield from rule(validator, wanted, value, schema) or ()

    return apply


# --- rules of our own, in place of those that may take for ever


def _pattern(_validator: Any, pattern: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and not _fits(pattern, value):
        yield ValidationError(f"does not match the pattern {_short(pattern)}")


def _pattern_properties(validator: Any, patterns: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, dict):
        for pattern, wanted in patterns.items():
            for key, item in value.items():
                if _fits(pattern, key):
                    yield from validator.descend(item, wanted, path=key, schema_path=pattern)


def _additional_properties(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(value, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, item in value.items():
        if key in known or any(_fits(pattern, key) for pattern in patterns):
            continue
        if wanted is False:
            some = ", ".join(sorted(known)[:20]) or "none"
            yield ValidationError(f"there is no {_short(key)}; there are: {some}")
        else:
            yield from validator.descend(item, wanted, path=key)


def _unique_items(_validator: Any, wanted: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if wanted is True and isinstance(value, list):
        _budget.get().spend(len(value) / _REGEX_STEPS)
        if len({msgspec.json.encode(item, order="sorted") for item in value}) < len(value):
            yield ValidationError("has an item twice")


def _fits(pattern: Any, text: str) -> bool:
    """Whether the expression is found in the text; one that cannot be tried is taken to be."""
    budget = _budget.get()
    expression = compiled(pattern) if isinstance(pattern, str) else None
    if expression is None:
        return True
    steps = effort(pattern, len(text)) / _REGEX_STEPS
    if steps > budget.left:
        return True
    budget.spend(steps)
    return expression.search(text) is not None


# --- words


def _told(error: ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return f"{path.removeprefix('.')[-_LONGEST // 3 :] or 'the arguments'}: {_reason(error)}"[:_LONGEST]


def _reason(error: ValidationError) -> str:
    rule, value, wanted = str(error.validator), _short(error.instance), cast("Any", error.validator_value)
    match rule:
        case "type":
            text = f"expected {' or '.join(wanted) if isinstance(wanted, list) else wanted}, got {value}"
        case "required":
            present: Any = error.instance
            text = f"{_short(next((name for name in wanted if name not in present), None))} is missing"
        case "enum":
            text = f"expected {' or '.join(map(_short, wanted[:_SHOWN]))}, got {value}"
        case "const":
            text = f"expected {_short(wanted)}, got {value}"
        case "anyOf" | "oneOf":
            text = f"{value} has none of the forms that it may have ({rule})"
        case "pattern" | "additionalProperties" | "uniqueItems":
            text = str(error.message)
        case _:
            text = f"{value} breaks the rule {rule} {_short(wanted)}"
    return text


def _short(value: Any) -> str:
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str() if len(value) > _SHOWN:
            return f"{value[:_SHOWN]!r}..."
        case str():
            return repr(value)
        case _:
            return msgspec.json.encode(value).decode()[:_SHOWN]
