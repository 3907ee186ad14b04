"""Keeping secrets and people's words out of the log, whoever writes the line.

Two nets: values under telling names are dropped, and texts are searched for what looks like a credential. The second
is for messages of libraries and for exceptions, whose words are not ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import structlog.typing

__all__ = ["REDACTED", "SECRET_NAMES", "redact", "redact_text"]

REDACTED: Final = "[redacted]"

#: Names whose values never reach the log: credentials, and what people, agents and tools say to each other.
SECRET_NAMES: Final = frozenset(
    {
        "api_key",
        "arguments",
        "authorization",
        "body",
        "content",
        "cookie",
        "database_url",
        "dsn",
        "feedback",
        "modified_arguments",
        "password",
        "payload",
        "prompt",
        "query",
        "query_string",
        "reasoning",
        "result",
        "sec_websocket_protocol",
        "secret",
        "set_cookie",
        "text",
        "ticket",
        "token",
    }
)
_SECRET_ENDINGS: Final = ("_token", "_secret", "_password", "_api_key")

#: How deep values are looked into; what lies deeper is dropped.
_DEPTH: Final = 6

_PATTERNS: Final = (
    (re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]+"), rf"\1{REDACTED}"),
    (re.compile(r"(?i)(parley\.bearer\.)[A-Za-z0-9._~+/=-]+"), rf"\1{REDACTED}"),
    # A login's cookie.
    (re.compile(r"(?i)\b(parley=)[^\s;'\"\\]+"), rf"\1{REDACTED}"),
    # A URL's whole query, as nobody knows what somebody puts there: of a path, a full URL, or a request line.
    (re.compile(r"(?<=[\w/.~%-])\?[\w.~%\[\]-]+=[^\s'\"<>\\]*"), f"?{REDACTED}"),
    # The password of a database's or a proxy's URL.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+@"), rf"\1{REDACTED}@"),
)


def redact_text(text: str) -> str:
    """The text without anything that looks like a credential or the query of a URL."""
    # Hardly any text has what all the patterns begin with, and looking for that costs a tenth of trying them.
    lower = text.lower()
    if "?" not in text and "://" not in text and "bearer" not in lower and "parley=" not in lower:
        return text
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A structlog processor; it comes after exceptions were turned into text and before the renderer."""
    return {name: _clean(name, value, _DEPTH) for name, value in event.items()}


def _clean(name: object, value: object, depth: int) -> object:
    if _is_secret(name) or depth < 0:
        return REDACTED
    match value:
        case None | bool() | int() | float():
            clean: object = value
        case bytes() | bytearray():
            clean = f"<{len(value)} bytes>"
        case Mapping():
            clean = {str(key): _clean(key, item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            clean = [_clean("", item, depth - 1) for item in value]
        case _:
            # A text, or a UUID, a path, a struct, which print their fields: what stands in there is searched.
            clean = redact_text(str(value))
    return clean


def _is_secret(name: object) -> bool:
    return isinstance(name, str) and _is_secret_name(name)


@lru_cache(maxsize=1024)
def _is_secret_name(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return plain in SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)
