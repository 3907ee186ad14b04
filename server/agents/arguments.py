"""Arguments of tool calls: whether they fit the tool's schema, and what tells them from others.

Schemas come from clients and from other servers, so looking at one is bounded: nothing is ever fetched for it, and
neither references in circles nor hostile patterns keep the server busy (`server.agents.schemas`).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

__all__ = ["hash_of", "problem"]


def problem(schema: dict[str, Any], arguments: Any) -> str | None:
    """Why the arguments do not fit the schema, naming field and rule in a line; None where they do."""
    # What it takes is slow to import, and most calls need none of it.
    from server.agents.schemas import check

    return check(schema, arguments)


def hash_of(arguments_json: str) -> bytes:
    """The SHA-256 of the arguments as a value: the order of keys, spaces and escapes make no difference.

    A text that is no JSON is told from others by itself.
    """
    try:
        value = msgspec.json.decode(arguments_json)
        return sha256(msgspec.json.encode(value, order="sorted")).digest()
    except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError):
        return sha256(arguments_json.encode("utf-8", "surrogatepass")).digest()
