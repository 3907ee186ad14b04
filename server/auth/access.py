"""What is theirs: the only place where ownership and membership are checked."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias
from protocol.parts import SessionRole
from server.auth.grants import Grant
from server.auth.principals import principal_of
from server.auth.query import has_query
from server.auth.roles import needs_of, require, role_for
from server.observe.marks import SESSION_ID, mark
from storage.members import Members
from storage.sessions import Session, Sessions

__all__ = ["Access", "client_id"]

_REMEMBERED: Final = 10_000


class Access:
    """Turns the `{session}` of a path into a session that the request's principal may use."""

    def __init__(self, sessions: Sessions, members: Members) -> None:
        self._sessions = sessions
        self._members = members
        # Of owners, by user and id as it stands in the path: never by alias, which may come to name another session.
        self._known: OrderedDict[tuple[str, str], Session] = OrderedDict()

    async def session(self, request: web.Request, least: SessionRole | None = None) -> Session:
        """The session named in the path, by its UUID or by its owner's alias for it; call it before any effect.

        `least` is the role that the request needs; when missing, `needs_of` says. Its `role` is the caller's. Raises
        ParleyError: NOT_FOUND when there is none or the caller has no role in it, which look the same from outside;
        SESSION_GONE when it was deleted; FORBIDDEN. From here on the request's log lines carry the session's id.
        """
        return await self.named(request, request.match_info["session"], least)

    async def named(self, request: web.Request, reference: str, least: SessionRole | None = None) -> Session:
        """The same for a session that is named elsewhere."""
        try:
            parse_alias(reference)
        except ParleyError:
            # Nothing can have such a name, so nothing has it.
            raise ParleyError(ErrorCode.NOT_FOUND, "there is no session of this name") from None
        principal = principal_of(request)
        session = await self._sessions.resolve(principal.user_id, reference)
        if principal.session_id not in {None, session.session_id}:
            raise ParleyError(ErrorCode.NOT_FOUND, f"there is no session {reference!r}")
        session_id = str(session.session_id)
        if reference == session_id:
            # The path's own text lives as long as the request anyway.
            session_id = reference
        mark(request, SESSION_ID, session_id)
        role = role_for(principal.scope, session.role)
        require(role, needs_of(request) if least is None else least)
        if role != session.role:
            return msgspec.structs.replace(session, role=role)
        if reference == session_id and role == "owner":
            return self._remember((principal.user_id, session_id), session)
        return session

    async def session_to_command(self, request: web.Request) -> Session:
        """The same for a command, without a trip to the database when the caller was found to own the session before.

        It may be as old as the one that a WebSocket keeps, and be deleted by now: only for commands that are stored,
        whose own statement looks at owner and deletion again, under the session's lock. What the role allows is asked
        for each command.
        """
        reference = request.match_info["session"]
        principal = principal_of(request)
        known = self._known.get((principal.user_id, reference)) if principal.scope == "all" else None
        if known is None:
            return await self.session(request, "observer")
        self._known.move_to_end((principal.user_id, reference))
        mark(request, SESSION_ID, reference)
        return known

    async def role_now(self, grant: Grant, session_id: UUID) -> SessionRole:
        """What a guest is in a session by now, whose stream was granted before.

        Raises ParleyError NOT_FOUND when he is no member any more.
        """
        role = await self._members.role(grant.user_id, session_id)
        if role is None:
            raise ParleyError(ErrorCode.NOT_FOUND, f"there is no session {str(session_id)!r}")
        return role_for(grant.scope, role)

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
