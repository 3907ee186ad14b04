"""The outermost layer: every request has an id, and every failure becomes a problem."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN
from server.observe.access import log_left
from server.observe.marks import REQUEST_ID, begin_marks, marks
from server.rest.responses import problem_response

__all__ = ["REQUEST_ID_HEADER", "harden", "insist", "requests"]

REQUEST_ID_HEADER: Final = "X-Request-ID"

_log: Final = structlog.stdlib.get_logger("server.rest")
#: Set once the head of the response is on its way.
_PREPARED: Final = web.RequestKey("prepared", bool)
_SANE_ID: Final = re.compile(ID_PATTERN)

#: HTTP's own refusals, in our words; a status that is missing here is a malformed request.
_CODES: Final = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.NOT_SUPPORTED,
    413: ErrorCode.TOO_LARGE,
    415: ErrorCode.NOT_SUPPORTED,
}
#: What nginx says in its log of a client that went away before it was answered; nobody receives it.
_CLIENT_CLOSED_REQUEST: Final = 499


@web.middleware
async def requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, bind its name to the task's log lines, and answer whatever goes wrong.

    An `X-Request-ID` from outside is kept if it is sane (1-128 of `A-Z a-z 0-9 . _ : -`), else one is made.
    """
    given = request.headers.get(REQUEST_ID_HEADER, "")
    request_id = given if _SANE_ID.search(given) else secrets.token_hex(8)
    begin_marks(request, request_id)
    now = asyncio.get_running_loop().time
    began = now()
    try:
        return await handler(request)
    except asyncio.CancelledError:
        log_left(request, now() - began)
        raise
    except ParleyError as error:
        return problem_response(error, request_id=request_id)
    except web.RequestPayloadError:
        # As when it says that it is compressed, and is not.
        unreadable = ParleyError(ErrorCode.MALFORMED, "the request's body cannot be read as its headers describe it")
        return problem_response(unreadable, request_id=request_id)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _translated(error, request, request_id)
    except Exception as error:  # noqa: BLE001 - the last resort, which answers generically
        return _unexpected(error, request, request_id)


async def harden(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every response, streams included, what all have in common; a handler of `on_response_prepare`."""
    request[_PREPARED] = True
    response.headers[hdrs.SERVER] = "parley"
    response.headers[REQUEST_ID_HEADER] = marks(request).get(REQUEST_ID, "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    # Answers are somebody's own; files of the console say otherwise themselves.
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


def insist(seconds: int) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """A handler of `on_response_prepare` that has browsers insist on HTTPS for so long (RFC 6797)."""

    async def mark(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Strict-Transport-Security"] = f"max-age={seconds}"

    return mark


def _translated(error: web.HTTPException, request: web.Request, request_id: str) -> web.Response:
    headers: dict[str, str] = {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} is not possible here; possible are {allowed}"
        headers[hdrs.ALLOW] = allowed
    elif isinstance(error, web.HTTPNotFound):
        message = "there is nothing at this address"
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        message = f"a request's body may have {request.client_max_size} bytes"
    else:
        message = error.reason
    code = _CODES.get(error.status, ErrorCode.MALFORMED if error.status < 500 else ErrorCode.INTERNAL)
    return problem_response(ParleyError(code, message), status=error.status, request_id=request_id, headers=headers)


def _unexpected(error: Exception, request: web.Request, request_id: str) -> web.Response:
    """Log the exception whole; tell the client no more than where to find it in the log."""
    gone = request.transport is None or request.transport.is_closing()
    if gone and isinstance(error, ConnectionError):
        _log.debug("client went away", method=request.method, path=request.path)
        return web.Response(status=_CLIENT_CLOSED_REQUEST, reason="Client Closed Request")
    _log.error("unexpected exception", method=request.method, path=request.path, exc_info=error)
    if request.get(_PREPARED) and request.transport is not None:
        # Half a response is out: cutting the connection is the only way left to tell that it is not whole.
        request.transport.abort()
    message = f"something went wrong here; the log has it under the request id {request_id}"
    return problem_response(ParleyError(ErrorCode.INTERNAL, message), request_id=request_id)
