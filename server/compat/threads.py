"""`GET /agents/{agent}/sse` and `POST /agents/{agent}/messages`: threads with an agent, each of which is a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal

from aiohttp import web
from msgspec import Meta, Struct

from protocol.commands import Text, UserMessage
from protocol.cursor import Cursor, parse_cursor
from protocol.envelope import Event
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Connected, Heartbeat, MessageCreated
from protocol.ids import ID_PATTERN, parse_timestamp
from server.agents.interface import AgentDefinition
from server.auth import client_id
from server.channel.negotiation import EVENT_STREAM
from server.channel.routes import ClientQuery
from server.channel.streams import opening_of
from server.compat.sessions import thread_session
from server.compat.streams import perform, tell
from server.compat.wires import payload_of, sse_message
from server.rest.acting import command_id
from server.rest.inputs import body_of, query_of
from server.rest.openapi import IDEMPOTENCY_KEY, LAST_EVENT_ID, Answer, Routes
from server.rest.responses import json_response
from server.services import SERVICES

__all__ = ["add_routes"]

ROUTES: Final = Routes("Threads", "Threads with an agent. Each is a session, which is made when it is first named.")

#: Heartbeats are at least so far apart; the channel's may be more.
_HEARTBEAT: Final = timedelta(seconds=30)

ThreadId = Annotated[str, Meta(pattern=ID_PATTERN, description="Your own name for the thread, one an agent")]


class ThreadQuery(ClientQuery, frozen=True, kw_only=True):
    """Which thread."""

    thread_id: ThreadId


class ThreadMessage(Struct, frozen=True, kw_only=True):
    """Something to say in a thread; fields that are not known are passed over."""

    thread_id: ThreadId
    message: Text


class Sent(Struct, frozen=True, kw_only=True):
    """It was sent."""

    status: Literal["success"] = "success"
    message: Literal["Message sent to agent."] = "Message sent to agent."


class ThreadFrame(Struct, frozen=True, kw_only=True):
    """The text of one message of the agent, whole."""

    agent_id: str
    thread_id: str
    message: str


class ThreadPlace(Struct, frozen=True, kw_only=True):
    """What comes with `connected` and `heartbeat`: which thread it is."""

    agent_id: str
    thread_id: str
    timestamp: str


class ThreadTeller:
    """Tells what an agent says in a thread, a message at a time."""

    def __init__(self, agent_id: str, thread_id: str) -> None:
        self._agent_id = agent_id
        self._thread_id = thread_id
        self._beaten: datetime | None = None

    def told(self, events: Sequence[Event]) -> Iterator[bytes]:
        """The messages that tell of these events; messages of the agent are unnamed, which `onmessage` hears."""
        for event in events:
            match payload_of(event):
                case Connected():
                    self._beaten = parse_timestamp(event.timestamp)
                    yield sse_message(self._place(event), event="connected", identity=event.sse_id)
                case MessageCreated(role="assistant", parent_call_id=None, content=text) if text:
                    frame = ThreadFrame(agent_id=self._agent_id, thread_id=self._thread_id, message=text)
                    yield sse_message(frame, identity=event.sse_id)
                case Heartbeat() if self._is_due(event):
                    yield sse_message(self._place(event), event="heartbeat")
                case _:
                    # Not said by the agent.
                    continue

    def _place(self, event: Event) -> ThreadPlace:
        return ThreadPlace(agent_id=self._agent_id, thread_id=self._thread_id, timestamp=event.timestamp)

    def _is_due(self, event: Event) -> bool:
        now = parse_timestamp(event.timestamp)
        if self._beaten is not None and now - self._beaten < _HEARTBEAT:
            return False
        self._beaten = now
        return True


@ROUTES.get(
    "/agents/{agent}/sse",
    query=ThreadQuery,
    headers=(LAST_EVENT_ID,),
    answers=(
        Answer(
            about="What the agent says, until the client or the server ends it",
            content={EVENT_STREAM: (ThreadFrame, ThreadPlace)},
        ),
        Answer(status=204, about="The thread was deleted: do not come back (to a client that sent `Last-Event-ID`)"),
    ),
    errors=(ErrorCode.SESSION_GONE, ErrorCode.LIMIT_REACHED, ErrorCode.RATE_LIMITED, ErrorCode.SHUTDOWN),
    streams=True,
    tickets=True,
)
async def _events(request: web.Request) -> web.StreamResponse:
    """Stream what an agent says in a thread.

    First `connected`, then an unnamed message for each of the agent's, when it is complete, and a `heartbeat` every 30
    seconds. Begins now, or where a stream broke off, which a browser says by itself.
    """
    query = query_of(request, ThreadQuery)
    after = _last_event_id(request)
    agent = _agent(request)
    try:
        session = await thread_session(request, agent, query.thread_id, least="observer")
    except ParleyError as error:
        if error.code is ErrorCode.SESSION_GONE and after is not None:
            # The answer that makes a browser stop (WHATWG HTML, section 9.2.3).
            return web.Response(status=204)
        raise
    teller = ThreadTeller(request.match_info["agent"], query.thread_id)
    return await tell(request, await opening_of(request, session, client_id(request), after), teller)


@ROUTES.post(
    "/agents/{agent}/messages",
    headers=(IDEMPOTENCY_KEY,),
    body=ThreadMessage,
    answer=Sent,
    errors=(
        ErrorCode.SESSION_GONE,
        ErrorCode.CONFLICT,
        ErrorCode.FORBIDDEN,
        ErrorCode.QUEUE_FULL,
        ErrorCode.LIMIT_REACHED,
        ErrorCode.RATE_LIMITED,
    ),
)
async def _send(request: web.Request) -> web.Response:
    """Say something to an agent in a thread."""
    body = await body_of(request, ThreadMessage)
    agent = _agent(request)
    session = await thread_session(request, agent, body.thread_id, least="controller")
    # Addressed only where another agent has taken the thread over.
    addressed = None if session.current_agent == agent.type else agent.type
    await perform(request, session, UserMessage(id=command_id(request), content=body.message, agent_type=addressed))
    return json_response(Sent())


def _agent(request: web.Request) -> AgentDefinition:
    """The agent of the path. Raises ParleyError(NOT_FOUND)."""
    try:
        return request.app[SERVICES].registry.get(request.match_info["agent"]).definition
    except ParleyError as error:
        raise ParleyError(ErrorCode.NOT_FOUND, error.message) from None


def _last_event_id(request: web.Request) -> Cursor | int | None:
    text = request.headers.get(LAST_EVENT_ID, "")
    try:
        return parse_cursor(text) if text else None
    except ParleyError as error:
        raise ParleyError(error.code, f"{LAST_EVENT_ID}: {error.message}", path=LAST_EVENT_ID) from None


def add_routes(app: web.Application) -> None:
    """Add the routes."""
    ROUTES.add_to(app)
