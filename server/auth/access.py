"""What is theirs: the only place where ownership is checked."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from aiohttp import web

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias
from server.auth.principals import principal_of
from server.auth.query import has_query
from server.observe.marks import SESSION_ID, mark
from storage.sessions import Session, Sessions

__all__ = ["Access", "client_id"]

_REMEMBERED: Final = 10_000


class Access:
    """Turns the `{session}` of a path into a session that the request's principal may use."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        # By user and id as it stands in the path: never by alias, which may come to name another session.
        self._known: OrderedDict[tuple[str, str], Session] = OrderedDict()

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
        user_id = principal_of(request).user_id
        session = await self._sessions.resolve(user_id, reference)
        session_id = str(session.session_id)
        if reference == session_id:
            # The path's own text lives as long as the request anyway.
            session_id = reference
        mark(request, SESSION_ID, session_id)
        if reference == session_id:
            return self._remember((user_id, session_id), session)
        return session

    async def session_to_command(self, request: web.Request) -> Session:
        """The same for a command, without a trip to the database when the session was found here before.

        It may be as old as the one that a WebSocket keeps, and be deleted by now: only for commands that are stored,
        whose own statement looks at owner and deletion again, under the session's lock.
        """
        reference = request.match_info["session"]
        key = principal_of(request).user_id, reference
        known = self._known.get(key)
        if known is None:
            return await self.session(request)
        self._known.move_to_end(key)
        mark(request, SESSION_ID, reference)
        return known

    def _remember(self, key: tuple[str, str], session: Session) -> Session:
        known = self._known.get(key)
        if known == session:
            # One object for all streams of a session at rest.
            session = known
        self._known[key] = session
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return session


def client_id(request: web.Request) -> str | None:
    """The query parameter `client_id`; None when missing. Raises ParleyError(INVALID) when it is no valid id."""
    values = request.query.getall("client_id", []) if has_query(request) else []
    if not values:
        return None
    if len(values) > 1:
        raise ParleyError(ErrorCode.INVALID, "the query parameter 'client_id' is given twice", path="?client_id")
    try:
        return parse_alias(values[0])
    except ParleyError as error:
        raise ParleyError(ErrorCode.INVALID, f"client_id: {error.message}", path="?client_id") from None
