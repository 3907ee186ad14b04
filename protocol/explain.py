"""What msgspec found wrong, as a sentence that names the rule and a path that names the field.

msgspec puts the path into its message and says of a wrong choice only that it is wrong; a client's author wants to
read which field it was and what would have been right.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from protocol.commands import COMMANDS, TOOL_NAME_PATTERN
from protocol.ids import ID_PATTERN, ID_RULE

__all__ = ["explain"]

_PLACED: Final = re.compile(r"(?P<text>.*?)(?: - at `(?P<path>\$[^`]*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(?P<field>[^`]*)`")
_STEP: Final = re.compile(r"\.(\w+)|\[(?:\d+|\.\.\.)\]")

_PATTERNS: Final = {
    repr(ID_PATTERN): ID_RULE,
    repr(TOOL_NAME_PATTERN): "1-64 characters out of A-Z a-z 0-9 . _ -",
}
_LONGEST: Final = 300


def explain(error: Exception, value: object) -> tuple[str, str]:
    """The sentence and the path (from `$`) for msgspec's refusal of a decoded command."""
    match = _PLACED.fullmatch(str(error))
    text, path = (match["text"], match["path"] or "$") if match else (str(error), "$")
    if field := _FIELD.match(text):
        path = f"{path}.{field['field']}"
    for pattern, rule in _PATTERNS.items():
        text = text.replace(f"matching regex {pattern}", f"of {rule}")
    if text.startswith("Invalid"):
        choices = _choices(value, path)
        if choices:
            text = f"{text}; allowed are {', '.join(choices)}"
    return _short(text), _short(path)


def _short(text: str) -> str:
    """Refusals quote what they refuse, which may be a megabyte."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _choices(value: object, path: str) -> list[str]:
    """What a field that has a closed set of values allows; nothing for any other field."""
    if path == "$.type":
        return list(COMMANDS)
    command = COMMANDS.get(str(value.get("type"))) if isinstance(value, dict) else None
    if command is None:
        return []
    info: msgspec.inspect.Type = msgspec.inspect.type_info(command)
    for step in _STEP.finditer(path):
        info = _descend(info, step[1])
    return [str(choice) for kind in _alternatives(info) for choice in getattr(kind, "values", ())]


def _alternatives(info: msgspec.inspect.Type) -> list[Any]:
    """The members of a union; without the wrapping that holds descriptions."""
    while isinstance(info, msgspec.inspect.Metadata):
        info = info.type
    if isinstance(info, msgspec.inspect.UnionType):
        return [kind for member in info.types for kind in _alternatives(member)]
    return [info]


def _descend(info: msgspec.inspect.Type, name: str | None) -> msgspec.inspect.Type:
    """The type of a field, or of an array's items when there is no name."""
    for kind in _alternatives(info):
        if name is None and isinstance(kind, msgspec.inspect.ListType):
            return kind.item_type
        if name is not None and isinstance(kind, msgspec.inspect.StructType):
            for field in kind.fields:
                if field.encode_name == name:
                    return field.type
            # A part's tag is no field.
            if name == kind.tag_field:
                return msgspec.inspect.LiteralType((kind.tag,))
    return msgspec.inspect.AnyType()
