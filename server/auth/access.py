"""What is theirs: the only place where ownership is checked."""

from __future__ import annotations

from aiohttp import web

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias
from server.auth.principals import principal_of
from server.observe.marks import SESSION_ID, mark
from storage.sessions import Session, Sessions

__all__ = ["Access", "client_id"]


class Access:
    """Turns the `{session}` of a path into a session that the request's principal may use."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def session(self, request: web.Request) -> Session:
        """The session named in the path, by its UUID or by the caller's own alias; call it before any effect.

        Raises ParleyError: NOT_FOUND when there is none or it is somebody else's, which look the same from outside;
        SESSION_GONE when it was deleted. From here on the request's log lines carry the session's id.
        """
        reference = request.match_info["session"]
        try:
            parse_alias(reference)
        except ParleyError:
            # Nothing can have such a name, so nothing has it.
            raise ParleyError(ErrorCode.NOT_FOUND, "there is no session of this name") from None
        session = await self._sessions.resolve(principal_of(request).user_id, reference)
        mark(request, SESSION_ID, str(session.session_id))
        return session


def client_id(request: web.Request) -> str | None:
    """The query parameter `client_id`; None when missing. Raises ParleyError(INVALID) when it is no valid id."""
    values = request.query.getall("client_id", [])
    if not values:
        return None
    if len(values) > 1:
        raise ParleyError(ErrorCode.INVALID, "the query parameter 'client_id' is given twice", path="?client_id")
    try:
        return parse_alias(values[0])
    except ParleyError as error:
        raise ParleyError(ErrorCode.INVALID, f"client_id: {error.message}", path="?client_id") from None
