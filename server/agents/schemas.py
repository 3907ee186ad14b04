"""Checking a value against a JSON Schema that somebody else wrote."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

import jsonschema
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from referencing import Registry

__all__ = ["check", "schema_problem"]

_LONGEST: Final = 300
#: Without a way to fetch what a reference names.
_NOWHERE: Final[Registry[Any]] = Registry()


def check(schema: dict[str, Any], value: Any) -> str | None:
    """Why the value does not fit; None where it does."""
    try:
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        validator: Validator = kind(schema, registry=_NOWHERE)
        error = next(islice(validator.iter_errors(value), 1), None)
    except Exception as failure:  # noqa: BLE001 - whatever a strange schema leads to
        return f"the tool's schema cannot be used ({type(failure).__name__})"
    return None if error is None else _told(error)


def schema_problem(schema: dict[str, Any]) -> str | None:
    """Why the schema is none that arguments can be checked against; None where it is one."""
    return None if schema.get("type", "object") == "object" else "its type is not object"


def _told(error: ValidationError) -> str:
    return f"{error.json_path}: {error.message}"[:_LONGEST]
