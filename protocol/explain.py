"""What msgspec found wrong, as a sentence that names the rule and a path that names the field.

msgspec puts the path into its message and says of a wrong choice only that it is wrong; a client's author wants to
read which field it was and what would have been right.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from protocol.commands import TOOL_NAME_PATTERN
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


def explain(error: Exception, value: object, kind: object = None) -> tuple[str, str]:
    """The sentence and the path (from `$`) for msgspec's refusal of a decoded value.

    With the type that it was to become, the sentence also lists what a closed set of values allows.
    """
    match = _PLACED.fullmatch(str(error))
    text, path = (match["text"], match["path"] or "$") if match else (str(error), "$")
    if field := _FIELD.match(text):
        path = f"{path}.{field['field']}"
    for pattern, rule in _PATTERNS.items():
        text = text.replace(f"matching regex {pattern}", f"of {rule}")
    if kind is not None and text.startswith("Invalid"):
        choices = _choices(kind, path)
        if choices:
            text = f"{text}; allowed are {', '.join(choices)}"
    return _short(text), _short(path)


def _short(text: str) -> str:
    """Refusals quote what they refuse, which may be a megabyte."""
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _choices(kind: object, path: str) -> list[str]:
    """What a field that has a closed set of values allows; nothing for any other field."""
    infos: list[Any] = _alternatives(msgspec.inspect.type_info(kind))
    for step in _STEP.finditer(path):
        infos = [below for info in infos for below in _descend(info, step[1])]
    return [str(choice) for info in infos if isinstance(info, msgspec.inspect.LiteralType) for choice in info.values]


def _alternatives(info: msgspec.inspect.Type) -> list[Any]:
    """The members of a union, without the wrapping that holds descriptions."""
    if isinstance(info, msgspec.inspect.Metadata):
        return _alternatives(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return [kind for member in info.types for kind in _alternatives(member)]
    return [info]


def _descend(info: msgspec.inspect.Type, name: str | None) -> list[Any]:
    """The types that a field may have, or an array's items when there is no name."""
    if name is None:
        return _alternatives(info.item_type) if isinstance(info, msgspec.inspect.ListType) else []
    if not isinstance(info, msgspec.inspect.StructType):
        return []
    if name == info.tag_field:
        return [msgspec.inspect.LiteralType((info.tag,))]
    return [kind for field in info.fields if field.encode_name == name for kind in _alternatives(field.type)]
