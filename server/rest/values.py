"""Values between storage, paths and JSON."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
from aiohttp import web

from protocol.errors import ErrorCode, ParleyError
from storage.ids import as_uuid

__all__ = ["uuid_in_path", "value_of"]


def uuid_in_path(request: web.Request, name: str) -> UUID:
    """The UUID that stands in the path under a name. Raises ParleyError(NOT_FOUND) for any other text."""
    found = as_uuid(request.match_info[name])
    if found is None:
        raise ParleyError(ErrorCode.NOT_FOUND, f"there is no {name} of this id")
    return found


def value_of(text: str | None) -> Any:
    """What a text of JSON says; what is no JSON is shown as the text that it is."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
