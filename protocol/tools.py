"""Tools made from functions: the signature is the schema, whoever runs the tool, a server or a client."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

__all__ = ["ToolError", "arguments_of", "parameters_schema"]


class ToolError(Exception):
    """The call failed in a way that the model should read; `message` is the text that it reads."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def arguments_of(name: str, function: Callable[..., Any], context: type) -> tuple[type[Struct], str | None]:
    """A function's parameters as a struct, and the name of the parameter that is annotated with `context`, if any.

    Raises TypeError for a parameter that has no JSON counterpart: without an annotation, `*args`, positional-only.
    """
    hints = get_type_hints(function, include_extras=True)
    context_parameter: str | None = None
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"tool {name!r}: parameter {parameter} cannot be given by name")
        if parameter.name not in hints:
            raise TypeError(f"tool {name!r}: parameter {parameter.name!r} needs a type annotation")
        hint = hints[parameter.name]
        if hint is context:
            context_parameter = parameter.name
        elif parameter.default is parameter.empty:
            fields.append((parameter.name, hint))
        else:
            fields.append((parameter.name, hint, parameter.default))
    arguments = msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)
    return arguments, context_parameter


def parameters_schema(arguments: type[Struct]) -> dict[str, Any]:
    """The JSON Schema of a struct of arguments, with the object itself on top, as model endpoints expect it.

    msgspec hides the object behind a `$ref`; only types that the arguments refer to stay in `$defs`.
    """
    schema = msgspec.json.schema(arguments)
    definitions: dict[str, Any] = schema["$defs"]
    top: dict[str, Any] = definitions.pop(schema["$ref"].rpartition("/")[2])
    top.pop("title", None)
    # The struct's docstring describes the tool, and stands in its description already.
    top.pop("description", None)
    return {**top, "$defs": definitions} if definitions else top
