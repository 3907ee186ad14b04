"""What a call has returned, as the model reads it and as the log keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from protocol.values import clean_text
from server.agents.tools import MAX_RESULT_BYTES, ToolError

if TYPE_CHECKING:
    from mcp.types import CallToolResult, ContentBlock

__all__ = ["result_of"]

#: Bytes of text that are kept of a longer one; the rest of the bound is for what JSON makes of it.
_MOST_TEXT: Final = MAX_RESULT_BYTES // 2
_MOST_ERROR: Final = 8_000


def result_of(name: str, result: CallToolResult) -> Any:
    """The result as a JSON value: the structured one, or the text, or both where they say different things.

    Raises ToolError where the server says that the call has failed, and for structured content that is too large.
    """
    text = "\n\n".join(filter(None, (_text(part) for part in result.content)))
    if result.is_error:
        raise ToolError(clean_text(text)[:_MOST_ERROR] or f"{name} failed and did not say why")
    text = _cut(clean_text(text))
    if result.structured_content is None:
        return text
    structured, same = _clean(name, result.structured_content), (text, _decoded(text))
    # Servers that must return an object put a bare value under this name.
    bare = isinstance(structured, dict) and structured.keys() == {"result"}
    if bare and structured["result"] in same:
        return structured["result"]
    return structured if not text or structured in same else {"text": text, "structured_content": structured}


def _text(part: ContentBlock) -> str:
    match part.type:
        case "text":
            return part.text
        case "image" | "audio":
            return f"[{part.type}, {part.mime_type}, about {len(part.data) * 3 // 4} bytes: not shown]"
        case "resource_link":
            return f"[resource {part.name}: {part.uri}]"
        case "resource":
            text = getattr(part.resource, "text", None)
            return text if isinstance(text, str) else f"[resource {part.resource.uri}: not shown]"


def _cut(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= _MOST_TEXT:
        return text
    return encoded[:_MOST_TEXT].decode(errors="ignore") + f"\n\n[cut off: {len(encoded)} bytes in all]"


def _clean(name: str, structured: Any) -> Any:
    try:
        encoded = msgspec.json.encode(structured)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        raise ToolError(f"the result of {name} is no JSON value") from None
    if len(encoded) > _MOST_TEXT:
        raise ToolError(f"the result of {name} has {len(encoded)} bytes, more than the {_MOST_TEXT} allowed")
    # Neither NUL characters nor lone surrogates can be stored.
    return _cleaned(structured)


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean_text(value)
        case list():
            return [_cleaned(item) for item in value]
        case dict():
            return {clean_text(str(key)): _cleaned(item) for key, item in value.items()}
        case _:
            return value


def _decoded(text: str) -> Any:
    try:
        return cast("Any", msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
