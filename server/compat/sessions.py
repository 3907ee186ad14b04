"""Sessions that begin to exist when they are first used."""

from __future__ import annotations

from typing import Unpack

from aiohttp import web

from protocol.errors import ErrorCode, ParleyError
from protocol.parts import SessionRole
from server.agents.interface import AgentDefinition
from server.auth import principal_of
from server.services import SERVICES
from storage.sessions import Session, SessionFields

__all__ = ["new_session", "session_or_new", "thread_session"]


async def session_or_new(request: web.Request, reference: str, *, least: SessionRole = "controller") -> Session:
    """The session that a client calls so, made if there is none.

    Raises ParleyError: SESSION_GONE when it was deleted, FORBIDDEN, LIMIT_REACHED.
    """
    access = request.app[SERVICES].access
    try:
        return await access.named(request, reference, least)
    except ParleyError as missing:
        if missing.code is not ErrorCode.NOT_FOUND:
            raise
    try:
        await new_session(request, alias=reference)
    except ParleyError as taken:
        # Somebody else was quicker: then it is there.
        if taken.code is not ErrorCode.CONFLICT:
            raise
    return await access.named(request, reference, least)


async def thread_session(request: web.Request, agent: AgentDefinition, thread: str, *, least: SessionRole) -> Session:
    """The session that is a thread of an agent, made if there is none. Raises ParleyError as `session_or_new` does."""
    services, owner = request.app[SERVICES], principal_of(request).user_id
    session = await services.sessions.thread(owner, agent.type, thread)
    if session is None:
        try:
            session = await new_session(request, agent=agent, alias=thread, thread_agent=agent.type)
        except ParleyError as error:
            if error.code is not ErrorCode.CONFLICT:
                raise
            session = await services.sessions.thread(owner, agent.type, thread)
    assert session is not None, "its name is taken, so it is there"
    return await services.access.named(request, str(session.session_id), least)


async def new_session(
    request: web.Request, *, agent: AgentDefinition | None = None, **given: Unpack[SessionFields]
) -> Session:
    """A new session of whoever asks, with the default agent unless one is given.

    Raises ParleyError: CONFLICT when the name is taken, LIMIT_REACHED, FORBIDDEN.
    """
    services, principal = request.app[SERVICES], principal_of(request)
    if principal.scope == "read" or principal.session_id is not None:
        # Also by GET, where a thread begins to exist when it is first listened to.
        raise ParleyError(ErrorCode.FORBIDDEN, "there is no such session, and what you brought may not make one")
    return await services.sessions.create(
        principal.user_id,
        agent=(agent or services.registry.default).type,
        now=services.clock.now(),
        most=services.config.limits.sessions,
        **given,
    )
