"""Answers: JSON by msgspec, and problems (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError

__all__ = ["OtherStatusError", "json_response", "problem_response"]

_encoder: Final = msgspec.json.Encoder()


class OtherStatusError(ParleyError):
    """An error that one route answers with another status than its code has elsewhere."""

    def __init__(self, status: int, code: ErrorCode, message: str, *, path: str | None = None) -> None:
        super().__init__(code, message, path=path)
        self.status = status


def json_response(
    value: Struct | Mapping[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A JSON answer."""
    return web.Response(
        body=_encoder.encode(value), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def problem_response(
    error: ParleyError,
    *,
    status: int | None = None,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """A problem: the error's own fields and the request's id, with the headers that its status asks for.

    `status` replaces the code's own where HTTP has a more precise one; `headers` are added.
    """
    problem = error.to_problem()
    if status is None and isinstance(error, OtherStatusError):
        status = error.status
    if status is not None:
        problem["status"] = status
    if request_id is not None:
        problem["request_id"] = request_id
    response = web.Response(
        body=_encoder.encode(problem),
        status=problem["status"],
        headers=headers,
        content_type="application/problem+json",
    )
    if response.status == ErrorCode.UNAUTHORIZED.status:
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="parley"'
    if error.retry_after is not None:
        # Whole seconds (RFC 9110, section 10.2.3), and never 0: that is an invitation to spin.
        response.headers[hdrs.RETRY_AFTER] = str(max(1, math.ceil(error.retry_after)))
    elif response.status in {429, 503}:
        response.headers[hdrs.RETRY_AFTER] = "1"
    return response
