"""What a request is called in the log: noted once, said by every line of its task and by its line in the access log."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

import structlog.typing
from aiohttp import web

__all__ = ["REQUEST_ID", "SESSION_ID", "USER_ID", "begin_marks", "mark", "marks", "merge_marks"]

REQUEST_ID: Final = "request_id"
SESSION_ID: Final = "session_id"
USER_ID: Final = "user_id"

_MARKS: Final = web.RequestKey("marks", dict[str, str])
#: The same of the request whose task, or a task of whose making, this is. Every request has a task of its own.
_bound: Final[ContextVar[dict[str, str] | None]] = ContextVar("parley_marks", default=None)


def begin_marks(request: web.BaseRequest, request_id: str) -> None:
    """Name the request: in its own task, before anything else is noted or logged."""
    found = {REQUEST_ID: request_id}
    request[_MARKS] = found
    _bound.set(found)


def mark(request: web.BaseRequest, name: str, value: str) -> None:
    """Note the value on the request, and on every line that its task logs from now on."""
    found = request.get(_MARKS)
    if found is None:
        found = request[_MARKS] = {}
        _bound.set(found)
    found[name] = value


def marks(request: web.BaseRequest) -> Mapping[str, str]:
    """What was noted, by name."""
    found = request.get(_MARKS)
    return {} if found is None else found


def merge_marks(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A structlog processor: what was noted of the request goes on the line, unless the line says it itself."""
    for name, value in (_bound.get() or {}).items():
        event.setdefault(name, value)
    return event
