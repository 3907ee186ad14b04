"""What the end of a connection means, and what a refusal means."""

from __future__ import annotations

import socket
from typing import Final, NamedTuple

import aiohttp
import msgspec
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.events import Disconnect

__all__ = ["LOST", "RETRYABLE", "Verdict", "ViolationError", "closed", "code_of", "judge", "refusal", "unreachable"]

#: What a broken, missing or silent connection raises.
LOST: Final = (aiohttp.ClientError, ConnectionError, TimeoutError, OSError)

#: What may be tried again as it is.
RETRYABLE: Final = frozenset(
    {
        ErrorCode.INTERNAL,
        ErrorCode.RATE_LIMITED,
        ErrorCode.SHUTDOWN,
        ErrorCode.SLOW_CONSUMER,
        ErrorCode.STALE,
        ErrorCode.UNAVAILABLE,
    }
)

_RETRYABLE_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_FINAL_STATUS: Final = {
    204: ErrorCode.SESSION_GONE,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    410: ErrorCode.SESSION_GONE,
    413: ErrorCode.TOO_LARGE,
}
#: WebSocket's own codes for "you speak wrongly" (RFC 6455, section 7.4.1): saying it again helps nobody.
_FINAL_CLOSE_CODES: Final = frozenset({1002, 1007, 1009})
_FIRST_FINAL_CLOSE_CODE: Final = 4500
#: Seconds; a server that asks for more is asked again all the same.
_LONGEST_WAIT: Final = 3600.0


class ViolationError(ParleyError):
    """The other side does not speak the protocol: it is no Parley server, or something between mangles what it says."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.PROTOCOL_ERROR, message)


class Verdict(NamedTuple):
    """What to do after a connection.

    `final`: coming back is pointless. `explained`: the server said why it ended, which clears the transport of
    suspicion. `wait`: come back no earlier, in seconds.
    """

    error: Exception
    final: bool
    explained: bool
    wait: float | None = None


def judge(trouble: Exception, farewell: Disconnect | None) -> Verdict:
    """What the end of a connection means; the server's own last word counts more than how the connection ended."""
    if farewell is not None:
        code = ErrorCode.of(farewell.code) or ErrorCode.PROTOCOL_ERROR
        error = ParleyError(code, farewell.reason, retry_after=_seconds(farewell.retry_after_ms))
        return Verdict(error, not farewell.reconnect, explained=True, wait=_bounded(error.retry_after))
    if isinstance(trouble, ViolationError):
        return Verdict(trouble, final=False, explained=False)
    if isinstance(trouble, ParleyError):
        again = trouble.code in RETRYABLE or trouble.code is ErrorCode.TOKEN_EXPIRED
        return Verdict(trouble, not again, explained=True, wait=_bounded(trouble.retry_after))
    # Where nobody listens, no transport is to blame.
    return Verdict(trouble, final=False, explained=isinstance(trouble, aiohttp.ClientConnectorError))


class _CloseReason(Struct):
    retry_after_ms: int | None = None


def closed(code: int, reason: str) -> Exception:
    """Why a WebSocket that was closed with this code was: an error that says whether and when to come back."""
    known = ErrorCode.of_close(code)
    if known is not None or code >= _FIRST_FINAL_CLOSE_CODE or code in _FINAL_CLOSE_CODES:
        try:
            wait = msgspec.json.decode(reason, type=_CloseReason).retry_after_ms
        except (msgspec.DecodeError, UnicodeError):
            wait = None  # somebody else's words
        message = f"the server closed the connection with {code}"
        return ParleyError(known or ErrorCode.PROTOCOL_ERROR, message, retry_after=_seconds(wait))
    return ConnectionError(f"the connection was closed with {code}")


class _Problem(Struct):
    code: str = ""
    detail: str = ""
    path: str | None = None
    retry_after: float | None = None
    id: str | None = None


def refusal(status: int, content_type: str, body: bytes, location: str | None = None) -> ParleyError:
    """What an answer other than the wanted one means, in the server's words where they are there."""
    if content_type == "application/problem+json":
        try:
            problem = msgspec.json.decode(body, type=_Problem)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            problem = _Problem()
        code = ErrorCode.of(problem.code) or code_of(status)
        wait = _bounded(problem.retry_after)
        return ParleyError(code, problem.detail or code.title, path=problem.path, retry_after=wait, id=problem.id)
    moved = f" and says to go to {location}" if location is not None and 300 <= status < 400 else ""
    return ParleyError(code_of(status), f"the server answered {status}{moved}")


def code_of(status: int) -> ErrorCode:
    """The code that fits a status which came without one."""
    if status in _RETRYABLE_STATUS:
        return ErrorCode.RATE_LIMITED if status == 429 else ErrorCode.UNAVAILABLE
    return _FINAL_STATUS.get(status, ErrorCode.PROTOCOL_ERROR)


def unreachable(url: str, error: BaseException | None, patience: float) -> ConnectionError:
    """That nobody answers, in words for a person: who, and why."""
    return ConnectionError(f"{url} does not answer: {reason_of(error, patience)}")


def reason_of(error: BaseException | None, patience: float) -> str:
    """Why a connection failed, in a few words."""
    match error:
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, socket.gaierror):
            return f"there is no host named {error.host}"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return f"nothing listens on port {error.port}"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case None | TimeoutError():
            return f"nothing came within {patience:g} s"
        case _:
            return str(error) or type(error).__name__


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _bounded(wait: float | None) -> float | None:
    return None if wait is None else min(max(wait, 0.0), _LONGEST_WAIT)
