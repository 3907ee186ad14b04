"""`/my/projects/{project}/chat/...` and `/my/chat/...`: chat as simple web clients know it, in a project or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from aiohttp import hdrs, web

from protocol.commands import UserMessage
from protocol.cursor import Cursor, parse_cursor
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import format_timestamp, parse_timestamp
from server.agents.interface import AgentDefinition
from server.auth import client_id, principal_of
from server.channel.negotiation import EVENT_STREAM, NDJSON, negotiate
from server.channel.routes import ClientQuery
from server.channel.sse import begin, is_chunked
from server.channel.streams import opening_of
from server.channel.subscriber import Wire
from server.compat.chat_types import (
    TIME_OR_CURSOR,
    ChatMessages,
    ChatSession,
    ChatSessions,
    ChatStatistics,
    EventsQuery,
    MessageShape,
    MessagesQuery,
    NewChat,
    PostedMessage,
    SessionsQuery,
    StreamCounts,
)
from server.compat.sessions import new_session
from server.compat.streams import perform
from server.rest.acting import command_id
from server.rest.inputs import body_of, query_of
from server.rest.openapi import IDEMPOTENCY_KEY, LAST_EVENT_ID, Answer, Events, Routes, refusal
from server.rest.responses import json_response
from server.services import SERVICES, Services
from storage.chat import Chat, ChatMessage
from storage.projects import Project
from storage.sessions import Session

__all__ = ["add_routes"]

_COMMAND_ERRORS: Final = (
    ErrorCode.UNKNOWN_AGENT,
    ErrorCode.CONFLICT,
    ErrorCode.FORBIDDEN,
    ErrorCode.QUEUE_FULL,
    ErrorCode.LIMIT_REACHED,
    ErrorCode.RATE_LIMITED,
)


async def _create(request: web.Request) -> web.Response:
    """Make a session."""
    services = request.app[SERVICES]
    body = await body_of(request, NewChat)
    project_id = await _project_id(request)
    agent = services.registry.default
    if body.target_agent is not None:
        agent = await _agent(services, body.target_agent, project_id=project_id)
    try:
        session = await new_session(
            request, agent=agent, alias=body.session_id, title=body.title, project_id=project_id
        )
    except ParleyError as error:
        if error.code is ErrorCode.CONFLICT:
            error.path = "$.session_id"
        raise
    location = f"/sessions/{session.session_id}"
    return json_response(ChatSession.of(session), status=201, headers={hdrs.LOCATION: location})


async def _sessions(request: web.Request) -> web.Response:
    """List your sessions, the latest activity first."""
    query = query_of(request, SessionsQuery)
    project_id = await _project_id(request)
    sessions, total = await request.app[SERVICES].sessions.list(
        principal_of(request).user_id, limit=query.limit, offset=query.offset, project_id=project_id
    )
    page = [ChatSession.of(session) for session in sessions]
    return json_response(ChatSessions(sessions=page, total=total, limit=query.limit, offset=query.offset))


async def _delete(request: web.Request) -> web.Response:
    """Delete a session; its streams end."""
    services = request.app[SERVICES]
    session = await _session(request)
    await services.sessions.delete(session, services.clock.now())
    services.hub.end_session(session.session_id)
    return web.Response(status=204)


async def _messages(request: web.Request) -> web.Response:
    """Read what was said in a session, page by page."""
    services = request.app[SERVICES]
    query = query_of(request, MessagesQuery)
    session = await _session(request)
    found = await Chat(services.db).messages(session.session_id, limit=query.limit, offset=query.offset)
    agents = {agent.type: agent.agent_id for agent in await services.directory.definitions(session.session_id)}
    messages = [_shape(message, agents) for message in found.page]
    return json_response(ChatMessages(messages=messages, total=found.total, limit=query.limit, offset=query.offset))


async def _post(request: web.Request) -> web.Response:
    """Say something in a session; its stream of events brings the answer."""
    services = request.app[SERVICES]
    body = await body_of(request, PostedMessage)
    session = await _session(request)
    target = await _agent(services, body.target_agent or session.current_agent, session_id=session.session_id)
    command = UserMessage(
        id=command_id(request), content=body.content, agent_type=None if body.target_agent is None else target.type
    )
    ack = await perform(request, session, command)
    assert ack.seq is not None, "a message is stored, and has an event"
    assert ack.message_id is not None, "so has it an id"
    # The very time that the event tells; also when this is a repeat.
    (event,) = await services.log.read(session.session_id, ack.seq - 1, limit=1)
    return json_response(
        MessageShape(
            id=ack.message_id,
            role="user",
            content=body.content,
            agent_id=target.agent_id,
            timestamp=format_timestamp(event.created_at),
        )
    )


async def _events(request: web.Request) -> web.StreamResponse:
    """Stream a session's events, as lines of JSON, or as an event stream if `Accept` says so.

    `since` is a time, strictly after which the events begin, or a cursor. Events of one instant that was read in part
    are lost with a time: remember the cursor of the last event.
    """
    framing = negotiate(request, "ndjson")
    query = query_of(request, EventsQuery)
    last = request.headers.get(LAST_EVENT_ID)
    try:
        session = await _session(request)
    except ParleyError as error:
        if error.code is ErrorCode.SESSION_GONE and last:
            # The answer that makes a browser stop (WHATWG HTML, section 9.2.3).
            return web.Response(status=204)
        raise
    after = await _place(request, session, last, LAST_EVENT_ID) if last else None
    if after is None and query.since is not None:
        after = await _place(request, session, query.since, "?since")
    opening = await opening_of(request, session, client_id(request), after)
    return await begin(request, opening, Wire(framing, is_chunked(request)))


async def _stats(request: web.Request) -> web.Response:
    """Count your sessions and messages, and the streams of this server."""
    services = request.app[SERVICES]
    mine = await Chat(services.db).stats(principal_of(request).user_id)
    streams = services.hub.stats()
    return json_response(
        ChatStatistics(
            sessions=mine.sessions,
            messages=mine.messages,
            running_turns=mine.running_turns,
            waiting_messages=mine.queued,
            last_activity=None if mine.last_activity is None else format_timestamp(mine.last_activity),
            streams=StreamCounts(
                connections=sum(streams.connections.values()),
                sessions_with_subscribers=streams.sessions_with_subscribers,
                events_sent=streams.events_sent,
            ),
        )
    )


# --- what they share


async def _project_id(request: web.Request) -> UUID | None:
    """The project of the path, if it names one. Raises ParleyError(NOT_FOUND)."""
    reference = request.match_info.get("project")
    if reference is None:
        return None
    project: Project = await request.app[SERVICES].projects.resolve(principal_of(request).user_id, reference)
    return project.project_id


async def _session(request: web.Request) -> Session:
    """The session of the path; one of another project is not there. Raises ParleyError."""
    project_id = await _project_id(request)
    session = await request.app[SERVICES].access.session(request)
    if project_id is not None and session.project_id != project_id:
        raise ParleyError(ErrorCode.NOT_FOUND, "there is no session of this name in the project")
    return session


async def _agent(services: Services, reference: str, **place: UUID | None) -> AgentDefinition:
    session_id = place.get("session_id")
    try:
        return await services.directory.definition(session_id, reference, project_id=place.get("project_id"))
    except ParleyError as error:
        if error.code is ErrorCode.UNKNOWN_AGENT:
            error.path = "$.target_agent"
        raise


async def _place(request: web.Request, session: Session, text: str, path: str) -> Cursor | int:
    """Where a cursor or a time points to in the session's log. Raises ParleyError(INVALID)."""
    try:
        if ":" not in text:
            return parse_cursor(text)
        # An offset's `+` that was not encoded has become a space on the way.
        moment = parse_timestamp(text.replace(" ", "+"))
    except ParleyError:
        raise ParleyError(ErrorCode.INVALID, f"{path.removeprefix('?')}: it is {TIME_OR_CURSOR}", path=path) from None
    return await Chat(request.app[SERVICES].db).seq_at(session.session_id, moment)


def _shape(message: ChatMessage, agents: Mapping[str, UUID]) -> MessageShape:
    return MessageShape(
        id=message.message_id,
        role="user" if message.role == "user" else "assistant",
        content=message.content,
        agent_id=None if message.agent_type is None else agents.get(message.agent_type),
        timestamp=format_timestamp(message.created_at),
    )


# --- the addresses

IN_PROJECT: Final = Routes("Project chat", "Chat in a project, as simple web clients know it.")
ALONE: Final = Routes("Chat", "The same without a project.")

_GONE: Final = Answer(status=204, about="The session is gone: do not come back (to a client that sent `Last-Event-ID`)")
_NEITHER: Final = refusal(406, "`Accept` wants neither lines of JSON nor an event stream")
_BOTH: Final = {NDJSON: Events(), EVENT_STREAM: Events()}

for _routes, _prefix in ((IN_PROJECT, "/my/projects/{project}/chat"), (ALONE, "/my/chat")):
    _routes.post(
        f"{_prefix}/sessions/",
        body=NewChat,
        body_required=False,
        answer=ChatSession,
        status=201,
        errors=(ErrorCode.CONFLICT, ErrorCode.UNKNOWN_AGENT, ErrorCode.LIMIT_REACHED),
    )(_create)
    _routes.get(f"{_prefix}/sessions/", query=SessionsQuery, answer=ChatSessions)(_sessions)
    _routes.delete(f"{_prefix}/sessions/{{session}}")(_delete)
    _routes.get(f"{_prefix}/sessions/{{session}}/messages/", query=MessagesQuery, answer=ChatMessages)(_messages)
    _routes.post(
        f"{_prefix}/{{session}}/message/",
        query=ClientQuery,
        headers=(IDEMPOTENCY_KEY,),
        body=PostedMessage,
        answer=MessageShape,
        errors=_COMMAND_ERRORS,
    )(_post)
    _routes.get(
        f"{_prefix}/{{session}}/events/",
        query=EventsQuery,
        headers=(LAST_EVENT_ID,),
        answers=(Answer(about="The events, until the client or the server ends it", content=_BOTH), _GONE, _NEITHER),
        errors=(ErrorCode.RATE_LIMITED, ErrorCode.SHUTDOWN),
        streams=True,
        tickets=True,
    )(_events)
ALONE.get("/my/chat/stats/", answer=ChatStatistics)(_stats)


def add_routes(app: web.Application) -> None:
    """Add the routes, with and without a project."""
    IN_PROJECT.add_to(app)
    ALONE.add_to(app)
