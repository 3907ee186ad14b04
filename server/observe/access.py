"""The access log: a line a request, through structlog, without the query."""

from __future__ import annotations

from typing import Final

import structlog
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web import BaseRequest, StreamResponse

from protocol._override import override
from server.observe.marks import marks

__all__ = ["AccessLog", "log_left"]

_log: Final = structlog.stdlib.get_logger("server.access")


class AccessLog(AbstractAccessLogger):
    """What aiohttp calls once a response is over; for a stream that is when it ends.

    The query is left out whole: a token in a URL is refused, but it must not be kept by the refusal either.
    """

    @override
    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Write the line; `time` is in seconds."""
        _log.info(
            "request",
            method=request.method,
            path=request.rel_url.raw_path,
            status=response.status,
            duration_ms=round(time * 1000, 1),
            sent=response.body_length,
            remote=request.remote,
            **marks(request),
        )


def log_left(request: BaseRequest, seconds: float) -> None:
    """The line of a request whose client went away before the end, as every stream's does; aiohttp logs none then."""
    _log.info(
        "client left",
        method=request.method,
        path=request.rel_url.raw_path,
        duration_ms=round(seconds * 1000, 1),
        remote=request.remote,
        **marks(request),
    )
