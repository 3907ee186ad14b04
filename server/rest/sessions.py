"""Sessions: made, listed, read, renamed, deleted; and their history."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias
from uuid import UUID

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from protocol.cursor import Cursor, parse_cursor
from protocol.errors import ErrorCode, ParleyError
from protocol.events import SessionUpdated
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
from server.services import SERVICES, Services
from server.turns.records import event
from storage.messages import MAX_BYTES
from storage.sessions import Session

__all__ = ["CreateSession", "HistoryQuery", "Title", "add_routes", "after_of", "seq_of"]

ROUTES: Final = Routes("Sessions", "Conversations, and what was said in them.")

#: The most messages that come with a session; the history has all, page by page.
INCLUDED_MESSAGES: Final = 200


Title: TypeAlias = Annotated[str, Meta(min_length=1, max_length=500)]


class CreateSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session to make. `session_id` is the caller's own name for it, `agent_type` an agent's type or `agent_id`.

    `project_id` is a project's id, or the caller's own name for it; the session may use the project's agents.
    """

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    title: Title | None = None
    agent_type: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    project_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None


class UpdateSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be changed about a session; an empty description takes it away."""

    title: Title | None = None
    description: Annotated[str, Meta(max_length=4_000)] | None = None


class ListQuery(Struct, frozen=True):
    """What `GET /sessions` takes; `q` is a text to find, white space around it aside; `project_id` as in `POST`."""

    q: Annotated[str, Meta(max_length=200, extra_json_schema={"pattern": r"\S"})] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0
    active_only: bool = True
    shared: bool = False
    project_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None


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
    errors=(ErrorCode.CONFLICT, ErrorCode.UNKNOWN_AGENT, ErrorCode.LIMIT_REACHED, ErrorCode.NOT_FOUND),
)
async def _create(request: web.Request) -> web.Response:
    """Make a session."""
    services = request.app[SERVICES]
    body = await body_of(request, CreateSession)
    owner = principal_of(request).user_id
    project_id = await _project_id(services, owner, body.project_id, "$.project_id")
    agent = services.registry.default
    if body.agent_type is not None:
        agent = await services.directory.definition(None, body.agent_type, project_id=project_id)
    try:
        session = await services.sessions.create(
            owner,
            agent=agent.type,
            now=services.clock.now(),
            most=services.config.limits.sessions,
            alias=body.session_id,
            title=body.title,
            project_id=project_id,
        )
    except ParleyError as error:
        if error.path is None and error.code in {ErrorCode.INVALID, ErrorCode.CONFLICT}:
            # Both are about the one thing that the store judges.
            error.path = "$.session_id"
        raise
    return json_response(
        SessionView.of(session), status=201, headers={hdrs.LOCATION: f"/sessions/{session.session_id}"}
    )


@ROUTES.get("/sessions", query=ListQuery, answer=(SessionList, FoundSessionList), errors=(ErrorCode.NOT_FOUND,))
async def _list(request: web.Request) -> web.Response:
    """List your sessions, the latest activity first; with `q` those in which a text is found."""
    query = query_of(request, ListQuery)
    if query.shared:
        return await _list_shared(request, query)
    services, owner = request.app[SERVICES], principal_of(request).user_id
    limit, offset, active_only = query.limit, query.offset, query.active_only
    project_id = await _project_id(services, owner, query.project_id, "?project_id")
    if query.q is None:
        sessions, total = await services.sessions.list(
            owner, limit=limit, offset=offset, active_only=active_only, project_id=project_id
        )
        listed = [SessionView.of(one) for one in sessions]
        return json_response(SessionList(sessions=listed, total=total, limit=limit, offset=offset))
    text = query.q.strip()
    if not text:
        raise ParleyError(ErrorCode.INVALID, "query parameter 'q': it is blank; leave it out to list all", path="?q")
    found = await services.sessions.search(
        owner, text, limit=limit, offset=offset, active_only=active_only, project_id=project_id
    )
    views = [FoundSessionView.found(*one) for one in found.page]
    return json_response(
        FoundSessionList(sessions=views, total=found.total, complete=found.complete, limit=limit, offset=offset)
    )


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
    after = after_of(query.after, session)
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


@ROUTES.patch("/sessions/{session}", body=UpdateSession, body_required=False, answer=SessionDetails)
async def _update(request: web.Request) -> web.Response:
    """Give a session another title or description; whoever is connected to it is told."""
    services = request.app[SERVICES]
    session = await services.access.session(request)
    body = await body_of(request, UpdateSession)
    # What stays as it is, is no news.
    title = None if body.title == session.title else body.title
    description = None if body.description == (session.description or "") else body.description
    if title is not None or description is not None:
        told = event(SessionUpdated(title=title, description=description))
        async with services.db.gates.hold(session.session_id):
            updated, commit = await services.sessions.update(
                session, title=title, description=description, event=told, now=services.clock.now()
            )
            services.hub.commit(commit)
        session = msgspec.structs.replace(updated, role=session.role)
    return json_response(SessionDetails.detailed(session, None))


@ROUTES.delete("/sessions/{session}")
async def _delete(request: web.Request) -> web.Response:
    """Delete a session; its streams end."""
    services = request.app[SERVICES]
    session = await services.access.session(request)
    await services.sessions.delete(session, services.clock.now())
    services.hub.end_session(session.session_id)
    return web.Response(status=204)


async def _project_id(services: Services, owner: str, reference: str | None, path: str) -> UUID | None:
    if reference is None:
        return None
    try:
        return (await services.projects.resolve(owner, reference)).project_id
    except ParleyError as error:
        error.path = path
        raise


def after_of(text: str, session: Session) -> int:
    """The number of a cursor of this session. Raises ParleyError(INVALID) for one that is none, or none any more."""
    try:
        return seq_of(text, session, "?after")
    except ParleyError as error:
        error.message = f"query parameter 'after': {error.message}"
        raise


def seq_of(text: str, session: Session, path: str) -> int:
    """The same for a cursor that stands elsewhere."""
    try:
        cursor = parse_cursor(text)
    except ParleyError as error:
        raise ParleyError(ErrorCode.INVALID, error.message, path=path) from None
    if isinstance(cursor, int):
        return cursor
    if cursor.epoch != session.epoch:
        raise ParleyError(
            ErrorCode.INVALID,
            "this cursor is from before the session was restored; read from the start",
            path=path,
        )
    return cursor.seq


def add_routes(app: web.Application) -> None:
    """Add the routes under `/sessions`."""
    ROUTES.add_to(app)
