"""Where a page of a list ends: opaque texts for clients, which send them back as `after`."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from protocol.errors import ErrorCode, ParleyError

__all__ = ["place", "place_of"]

T = TypeVar("T")


def place(key: Any) -> str:
    """The text for a key, such as an id or a tuple."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def place_of(text: str | None, kind: type[T]) -> T | None:
    """The key of a text that was made here; None for none. Raises ParleyError(INVALID) for any other text."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)), type=kind)
    except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError):
        raise ParleyError(
            ErrorCode.INVALID, "query parameter 'after': send back the `next` of the page before", path="?after"
        ) from None
