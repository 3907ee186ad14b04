"""`POST /agent/message/stream`: one request says something, and its answer streams what comes of it."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec.structs import replace

from protocol import commands
from protocol.commands import Command
from protocol.errors import ErrorCode, ParleyError
from protocol.explain import explain
from server.auth import client_id
from server.channel.negotiation import EVENT_STREAM
from server.channel.routes import ClientQuery
from server.channel.streams import opening_of
from server.compat.chunks import Chunk, Posted, SwitchAgentMessage, UserMessage_
from server.compat.flat import FlatTeller, OpenCall, Origin
from server.compat.sessions import session_or_new
from server.compat.streams import perform, tell
from server.rest.acting import command_id
from server.rest.inputs import json_of
from server.rest.openapi import IDEMPOTENCY_KEY, Answer, Routes
from server.services import SERVICES
from server.turns.records import value_of
from storage.sessions import Session

__all__ = ["add_routes"]

ROUTES: Final = Routes("Flat stream", "One request that says something and streams what comes of it.")


@ROUTES.post(
    "/agent/message/stream",
    query=ClientQuery,
    headers=(IDEMPOTENCY_KEY,),
    body=Posted,
    answers=(Answer(about="Chunks, until the turn rests", content={EVENT_STREAM: Chunk}),),
    errors=(
        ErrorCode.NOT_FOUND,
        ErrorCode.SESSION_GONE,
        ErrorCode.UNKNOWN_AGENT,
        ErrorCode.CONFLICT,
        ErrorCode.ALREADY_RESOLVED,
        ErrorCode.NOT_A_DECISION,
        ErrorCode.FORBIDDEN,
        ErrorCode.QUEUE_FULL,
        ErrorCode.LIMIT_REACHED,
        ErrorCode.RATE_LIMITED,
        ErrorCode.SHUTDOWN,
    ),
)
async def _stream(request: web.Request) -> web.StreamResponse:
    """Send a message and stream chunks until the turn rests.

    It rests when it is completed, failed or cancelled, or waits for a decision or a result of the client, which then
    sends it by another such request. A session that does not exist is made. Whoever drops the stream loses nothing: the
    turn goes on, and the same request with the same `Idempotency-Key` streams it again.
    """
    services = request.app[SERVICES]
    posted = await _posted(request)
    command = _command(posted, command_id(request))
    session = await _session(request, posted)
    opening = await opening_of(request, session, client_id(request), None)
    # Where no stream can be had, nothing is done either.
    services.hub.enter(session.session_id)
    services.hub.leave(session.session_id)
    ack = await perform(request, session, command)
    assert ack.seq is not None, "these commands are stored, and have events"
    match posted.message:
        case UserMessage_():
            teller = FlatTeller(Origin(ack.message_id, command.id or ""))
        case SwitchAgentMessage():
            teller = FlatTeller(Origin(None, command.id or "", ends=True))
        case _:
            teller = FlatTeller(Origin(None, command.id or ""), *await _open_calls(request, session))
    # The session was read before these events came into being.
    known = replace(session, seq=max(session.seq, ack.seq))
    stream = await tell(request, opening._replace(session=known, after=ack.seq - 1), teller)
    teller.over.add_done_callback(lambda _over: stream.finish())
    return stream


async def _posted(request: web.Request) -> Posted:
    """The body. Raises ParleyError(MALFORMED), which is 400, for whatever is wrong with it."""
    value = await json_of(request)
    try:
        return msgspec.convert(value, Posted)
    except msgspec.ValidationError as error:
        message, path = explain(error, value, Posted)
        raise ParleyError(ErrorCode.MALFORMED, message, path=path) from None


def _command(posted: Posted, identity: str) -> Command:
    """The protocol's command for a message. Raises ParleyError(MALFORMED) where fields contradict each other."""
    fields = {"id": identity, **msgspec.to_builtins(posted.message)}
    kind = commands.COMMANDS[fields["type"]]
    try:
        command: Command = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        message, path = explain(error, fields, kind)
        raise ParleyError(ErrorCode.MALFORMED, message, path=f"$.message{path[1:]}") from None
    return command


async def _session(request: web.Request, posted: Posted) -> Session:
    """The session; only what can begin something makes one."""
    if isinstance(posted.message, UserMessage_ | SwitchAgentMessage):
        return await session_or_new(request, posted.session_id)
    return await request.app[SERVICES].access.named(request, posted.session_id, "controller")


async def _open_calls(request: web.Request, session: Session) -> tuple[list[OpenCall], list[UUID]]:
    """The calls of the running turn that have no result yet, and the turns that answer some of them."""
    rows = await request.app[SERVICES].calls.of_session(session.session_id)
    calls = [
        OpenCall(
            call_id=str(row.call_id),
            name=row.name,
            arguments=value_of(row.effective_arguments),
            executor="client" if row.executor == "client" else "server",
            asked=row.state == "awaiting_approval",
        )
        for row in rows
    ]
    return calls, [row.child_turn for row in rows if row.child_turn is not None]


def add_routes(app: web.Application) -> None:
    """Add the route."""
    ROUTES.add_to(app)
