"""Everything that can go wrong, by name, once for every surface.

    ErrorCode     the enumeration: wire code, HTTP status, WebSocket close code, title
    ParleyError   the one exception that crosses rooms on purpose; it carries an ErrorCode

WebSocket, SSE, NDJSON, REST and the documents all take their codes from here. A close code below 4500 tells the
client to reconnect, one from 4500 on tells it not to; a code without a close code never ends a channel.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

__all__ = ["PROBLEM_TYPE_PREFIX", "ErrorCode", "ParleyError"]

_FIRST_CLOSE_CODE: Final = 4000
_FIRST_FINAL_CLOSE_CODE: Final = 4500

#: RFC 9457 wants a URI that names the problem's type; ours are URNs, as there is no page to promise.
PROBLEM_TYPE_PREFIX: Final = "urn:parley:error:"


class ErrorCode(Enum):
    """One kind of failure: what it is called on the wire and what it means to HTTP and to WebSocket."""

    # The request itself.
    MALFORMED = ("malformed", 400, None, "The input could not be read")
    INVALID = ("invalid", 422, None, "A field has a value that is not allowed")
    UNKNOWN_AGENT = ("unknown_agent", 422, None, "There is no such agent")
    TOO_LARGE = ("too_large", 413, None, "The input is larger than the limit")
    NOT_SUPPORTED = ("not_supported", 501, None, "The server does not offer this")
    # The state of the session.
    NOT_FOUND = ("not_found", 404, None, "There is no such thing, or it is not yours")
    CONFLICT = ("conflict", 409, None, "The same id was used with another body, or the name is taken")
    OUT_OF_ORDER = ("out_of_order", 409, None, "The client's own sequence has a gap")
    BUSY = ("busy", 409, None, "A turn is running and the command asked not to wait")
    NO_ACTIVE_TURN = ("no_active_turn", 409, None, "No turn is running")
    ALREADY_RESOLVED = ("already_resolved", 409, None, "Someone else was first")
    LIMIT_REACHED = ("limit_reached", 429, None, "You have as many of these as you may")
    NOT_A_DECISION = ("not_a_decision", 422, None, "This call does not allow that decision")
    QUEUE_FULL = ("queue_full", 429, None, "Too many messages are waiting")
    # HTTP's word for it, RFC 4918, section 11.4: no failure of its own, and it may be sent again as it is.
    NOT_TRIED = ("not_tried", 424, None, "An earlier command of the same request was refused")
    # Who is asking, and from where.
    HOST_REFUSED = ("host_refused", 403, None, "The Host header is not one of this server's names")
    ORIGIN_REFUSED = ("origin_refused", 403, None, "The Origin may not use this server")
    # Channel endings after which a client reconnects.
    SHUTDOWN = ("shutdown", 503, 4000, "The server is going away")
    SLOW_CONSUMER = ("slow_consumer", 408, 4001, "The client did not read for too long")
    TOKEN_EXPIRED = ("token_expired", 401, 4002, "The token has expired")
    STALE = ("stale", 408, 4003, "Nothing was heard from the client for too long")
    INTERNAL = ("internal", 500, 4004, "The server failed")
    UNAVAILABLE = ("unavailable", 503, 4005, "The database is away")
    RATE_LIMITED = ("rate_limited", 429, 4006, "Too many requests")
    # Channel endings after which it does not.
    UNAUTHORIZED = ("unauthorized", 401, 4500, "Authentication is missing or wrong")
    FORBIDDEN = ("forbidden", 403, 4501, "This role may not do that")
    SESSION_GONE = ("session_gone", 410, 4502, "The session was deleted")
    PROTOCOL_ERROR = ("protocol_error", 400, 4503, "The other side does not speak the protocol")
    REPLACED = ("replaced", 409, 4504, "Another connection took this client's place")

    code: str
    status: int
    close: int | None
    title: str

    def __init__(self, code: str, status: int, close: int | None, title: str) -> None:
        self.code = code
        self.status = status
        self.close = close
        self.title = title

    @property
    def may_reconnect(self) -> bool:
        """Whether a channel that ended with this code is worth opening again."""
        return self.close is not None and _FIRST_CLOSE_CODE <= self.close < _FIRST_FINAL_CLOSE_CODE

    @classmethod
    def of(cls, code: str) -> ErrorCode | None:
        """The member with this wire code; None when it is unknown (a newer server's)."""
        return _BY_CODE.get(code)

    @classmethod
    def of_close(cls, close: int) -> ErrorCode | None:
        """The member with this WebSocket close code; None when it is not one of ours."""
        return _BY_CLOSE.get(close)


_BY_CODE: Final = {member.code: member for member in ErrorCode}
_BY_CLOSE: Final = {member.close: member for member in ErrorCode if member.close is not None}


class ParleyError(Exception):
    """A refusal or a failure that the other side is told about.

    `message` is for people and names the rule that was broken; `path` names the field (`$.content`, `$[2].id`);
    `retry_after` is in seconds; `id` is the command's id when it could be read.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        path: str | None = None,
        retry_after: float | None = None,
        id: str | None = None,  # noqa: A002 - the wire's own word
    ) -> None:
        place = f" (at {path})" if path is not None else ""
        super().__init__(f"{code.code}: {message}{place}")
        self.code = code
        self.message = message
        self.path = path
        self.retry_after = retry_after
        self.id = id

    def to_problem(self) -> dict[str, Any]:
        """The body of an `application/problem+json` response (RFC 9457), with our `code`, `path`, `retry_after`."""
        problem: dict[str, Any] = {
            "type": PROBLEM_TYPE_PREFIX + self.code.code,
            "title": self.code.title,
            "status": self.code.status,
            "detail": self.message,
            "code": self.code.code,
        }
        optional = {"path": self.path, "retry_after": self.retry_after, "id": self.id}
        problem.update({key: value for key, value in optional.items() if value is not None})
        return problem
