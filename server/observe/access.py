"""The access log: a line a request, without the query."""

from __future__ import annotations

from typing import Final

import structlog
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web import BaseRequest, StreamResponse

from protocol._override import override
from server.observe.lines import AccessLine, timestamp, write_line
from server.observe.marks import REQUEST_ID, SESSION_ID, USER_ID, marks
from server.observe.redact import redact_text

__all__ = ["AccessLog", "log_left"]

_NAME: Final = "server.access"
_log: Final = structlog.stdlib.get_logger(_NAME)


class AccessLog(AbstractAccessLogger):
    """What aiohttp calls once a response is over; for a stream that is when it ends.

    The query is left out whole: a token in a URL is refused, but it must not be kept by the refusal either.
    """

    @override
    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Write the line; `time` is in seconds."""
        _say(request, "request", time, response.status, response.body_length)


def log_left(request: BaseRequest, seconds: float) -> None:
    """The line of a request whose client went away before the end, as every stream's does; aiohttp logs none then."""
    _say(request, "client left", seconds, None, None)


def _say(request: BaseRequest, event: str, seconds: float, status: int | None, sent: int | None) -> None:
    noted = marks(request)
    line = AccessLine(
        method=redact_text(request.method),
        path=redact_text(request.rel_url.raw_path),
        status=status,
        duration_ms=round(seconds * 1000, 1),
        sent=sent,
        remote=request.remote,
        request_id=redact_text(noted.get(REQUEST_ID, "")) or None,
        session_id=noted.get(SESSION_ID),
        user_id=noted.get(USER_ID),
        event=event,
        logger=_NAME,
        level="info",
        timestamp=timestamp(),
    )
    if not write_line(line):
        _log.info(**line.fields())
