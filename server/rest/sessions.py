"""Sessions: made, listed, read, deleted; and their history."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import hdrs, web
from msgspec import Meta, Struct

from protocol.cursor import Cursor, parse_cursor
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN, format_timestamp
from server.auth import principal_of
from server.rest.inputs import body_of, query_of
from server.rest.openapi import Routes
from server.rest.responses import json_response
from server.rest.views import (
    FoundSessionList,
    FoundSessionView,
    HistoryView,
    MessageView,
    SessionDetails,
    SessionList,
    SessionView,
    agent_history,
)
from server.services import SERVICES
from storage.messages import MAX_BYTES
from storage.sessions import Session

__all__ = ["CreateSession", "add_routes"]

ROUTES: Final = Routes("Sessions", "Conversations, and what was said in them.")

#: The most messages that come with a session; the history has all, page by page.
INCLUDED_MESSAGES: Final = 200


class CreateSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session to make. `session_id` is the caller's own name for it, `agent_type` an agent's type or `agent_id`."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    title: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    agent_type: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None


class ListQuery(Struct, frozen=True):
    """What `GET /sessions` takes; `q` is a text to find, white space around it aside."""

    q: Annotated[str, Meta(max_length=200)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0
    active_only: bool = True
    shared: bool = False


class ReadQuery(Struct, frozen=True):
    """What `GET /sessions/{session}` takes."""

    include_messages: bool = False


class HistoryQuery(Struct, frozen=True):
    """What `GET /sessions/{session}/history` takes; `after` is a cursor or a bare sequence number."""

    after: str = "0"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@ROUTES.post(
    "/sessions",
    body=CreateSession,
    body_required=False,
    answer=SessionView,
    status=201,
    errors=(ErrorCode.CONFLICT, ErrorCode.UNKNOWN_AGENT),
)
async def _create(request: web.Request) -> web.Response:
    """Make a session."""
    services = request.app[SERVICES]
    body = await body_of(request, CreateSession)
    agent = services.registry.default if body.agent_type is None else services.registry.get(body.agent_type).definition
    try:
        session = await services.sessions.create(
            principal_of(request).user_id,
            agent=agent.type,
            now=services.clock.now(),
            alias=body.session_id,
            title=body.title,
        )
    except ParleyError as error:
        if error.path is None and error.code in {ErrorCode.INVALID, ErrorCode.CONFLICT}:
            # Both are about the one thing that the store judges.
            error.path = "$.session_id"
        raise
    return json_response(
        SessionView.of(session), status=201, headers={hdrs.LOCATION: f"/sessions/{session.session_id}"}
    )


@ROUTES.get("/sessions", query=ListQuery, answer=(SessionList, FoundSessionList))
async def _list(request: web.Request) -> web.Response:
    """List your sessions, the latest activity first; with `q` those in which a text is found."""
    query = query_of(request, ListQuery)
    if query.shared:
        return await _list_shared(request, query)
    store, owner = request.app[SERVICES].sessions, principal_of(request).user_id
    page, active_only = {"limit": query.limit, "offset": query.offset}, query.active_only
    if query.q is None:
        sessions, total = await store.list(owner, **page, active_only=active_only)
        return json_response(SessionList(sessions=[SessionView.of(one) for one in sessions], total=total, **page))
    text = query.q.strip()
    if not text:
        raise ParleyError(ErrorCode.INVALID, "query parameter 'q': it is blank; leave it out to list all", path="?q")
    found = await store.search(owner, text, **page, active_only=active_only)
    views = [FoundSessionView.found(*one) for one in found.page]
    return json_response(FoundSessionList(sessions=views, total=found.total, complete=found.complete, **page))


async def _list_shared(request: web.Request, query: ListQuery) -> web.Response:
    limit, offset = query.limit, query.offset
    sessions, total = await request.app[SERVICES].sessions.shared(
        principal_of(request).user_id, limit=limit, offset=offset
    )
    views = [SessionView.of(one) for one in sessions]
    return json_response(SessionList(sessions=views, total=total, limit=limit, offset=offset))


@ROUTES.get("/sessions/{session}", query=ReadQuery, answer=SessionDetails)
async def _read(request: web.Request) -> web.Response:
    """Read a session, with its newest messages if you like."""
    services = request.app[SERVICES]
    query = query_of(request, ReadQuery)
    session = await services.access.session(request)
    messages = await services.messages.tail(session.session_id, INCLUDED_MESSAGES) if query.include_messages else None
    return json_response(SessionDetails.detailed(session, messages))


@ROUTES.get("/sessions/{session}/history", query=HistoryQuery, answer=HistoryView)
async def _history(request: web.Request) -> web.Response:
    """Read what was said, page by page."""
    services = request.app[SERVICES]
    query = query_of(request, HistoryQuery)
    # The session is read before its messages, so that its cursor never lies beyond what the page may show.
    session = await services.access.session(request)
    after = _after(query.after, session)
    # One more than asked for tells whether there is a next page.
    found = await services.messages.page(session.session_id, after, query.limit + 1)
    page = found[: query.limit]
    # A page that is full by its bytes may be the last one; the empty one after it says so.
    more = len(found) > len(page) or sum(message.size for message in page) >= MAX_BYTES
    following = Cursor(session.epoch, page[-1].seq) if more else None
    return json_response(
        HistoryView(
            session_id=session.session_id,
            messages=[MessageView.of(message, session.epoch) for message in page],
            message_count=session.message_count,
            last_activity=format_timestamp(session.last_activity),
            current_agent=session.current_agent,
            agent_history=agent_history(page),
            cursor=str(Cursor(session.epoch, session.seq)),
            next=None if following is None else str(following),
        )
    )


@ROUTES.delete("/sessions/{session}")
async def _delete(request: web.Request) -> web.Response:
    """Delete a session; its streams end."""
    services = request.app[SERVICES]
    session = await services.access.session(request)
    await services.sessions.delete(session, services.clock.now())
    services.hub.end_session(session.session_id)
    return web.Response(status=204)


def _after(text: str, session: Session) -> int:
    """The sequence number of a cursor of this session."""
    try:
        cursor = parse_cursor(text)
    except ParleyError as error:
        raise ParleyError(ErrorCode.INVALID, f"query parameter 'after': {error.message}", path="?after") from None
    if isinstance(cursor, int):
        return cursor
    if cursor.epoch != session.epoch:
        raise ParleyError(
            ErrorCode.INVALID,
            "query parameter 'after': this cursor is from before the session was restored; read from the start",
            path="?after",
        )
    return cursor.seq


def add_routes(app: web.Application) -> None:
    """Add the routes under `/sessions`."""
    ROUTES.add_to(app)
