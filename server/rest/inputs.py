"""What comes in: bodies and query parameters, as types."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.explain import explain
from protocol.values import check_value

__all__ = ["body_of", "json_of", "query_of"]

T = TypeVar("T", bound=Struct)

#: Levels of arrays and objects in a body.
_MAX_NESTING: Final = 64
#: What a client has for sending a body, in seconds; without it a silent one would be waited for for ever.
_BODY_TIMEOUT: Final = 30.0


async def body_of(request: web.Request, kind: type[T]) -> T:
    """The JSON body as a struct; an empty body is an empty object.

    Raises ParleyError: MALFORMED when it is no JSON, INVALID with the field's path, TOO_LARGE, STALE
    when it did not come in time.
    """
    value = await json_of(request)
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message, path = explain(error, value)
        raise ParleyError(ErrorCode.INVALID, message, path=path) from None


async def json_of(request: web.Request) -> object:
    """The JSON body as it came, checked for what cannot be kept. Raises ParleyError as `body_of` does."""
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            data = await request.read()
    except TimeoutError:
        raise ParleyError(ErrorCode.STALE, "the body did not come in time") from None
    try:
        value: object = msgspec.json.decode(data) if data.strip() else {}
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ParleyError(ErrorCode.MALFORMED, f"the body is not JSON: {reason}", path="$") from None
    check_value(value, "$", _MAX_NESTING)
    return value


def query_of(request: web.Request, kind: type[T]) -> T:
    """The query parameters that the struct names, as a struct; others are ignored, as proxies and tools add their own.

    A switch without a value (`?include_messages`) is on. Raises ParleyError(INVALID) naming the parameter.
    """
    given: dict[str, str] = {}
    for field in msgspec.structs.fields(kind):
        values = request.query.getall(field.name, [])
        if len(values) > 1:
            raise _bad(field.name, "it is given more than once")
        if values:
            given[field.name] = values[0] or ("true" if field.type is bool else "")
        if "\0" in given.get(field.name, ""):
            raise _bad(field.name, "it holds the character U+0000, which cannot be kept")
    try:
        # Not strict: everything in a URL is text.
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        message, path = explain(error, given)
        raise _bad(path.removeprefix("$.").partition("[")[0], message) from None


def _bad(name: str, reason: str) -> ParleyError:
    return ParleyError(
        ErrorCode.INVALID, f"query parameter {name!r}: {reason[:1].lower()}{reason[1:]}", path=f"?{name}"
    )
