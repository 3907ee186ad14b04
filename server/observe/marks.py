"""What is noted on a request for its line in the access log, which is written outside of the request's own task."""

from __future__ import annotations

from typing import Final

import structlog
from aiohttp import web

__all__ = ["REQUEST_ID", "SESSION_ID", "USER_ID", "mark", "marks"]

REQUEST_ID: Final = web.RequestKey("request_id", str)
SESSION_ID: Final = web.RequestKey("session_id", str)
USER_ID: Final = web.RequestKey("user_id", str)


def mark(request: web.BaseRequest, key: web.RequestKey[str], value: str) -> None:
    """Note the value on the request, and on every line that its task logs from now on."""
    request[key] = value
    structlog.contextvars.bind_contextvars(**{_name(key): value})


def marks(request: web.BaseRequest) -> dict[str, str]:
    """What was noted, by name."""
    return {_name(key): request[key] for key in (REQUEST_ID, SESSION_ID, USER_ID) if key in request}


def _name(key: web.RequestKey[str]) -> str:
    return {REQUEST_ID: "request_id", SESSION_ID: "session_id", USER_ID: "user_id"}[key]
