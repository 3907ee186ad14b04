"""`POST /agent/message/stream`: one request says something, and its answer streams what comes of it."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec.structs import replace

from protocol import commands
from protocol._override import override
from protocol.commands import Command
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Heartbeat
from protocol.explain import explain
from server.auth import client_id
from server.channel.negotiation import EVENT_STREAM
from server.channel.routes import ClientQuery
from server.channel.sse import EventStream
from server.channel.streams import opening_of
from server.compat.chunks import Chunk, Posted, SwitchAgentMessage, UserMessage_
from server.compat.flat import FlatTeller, OpenCall, Origin
from server.compat.sessions import session_or_new
from server.compat.streams import perform, tell
from server.rest.acting import command_id
from server.rest.inputs import json_of
from server.rest.openapi import IDEMPOTENCY_KEY, Answer, Routes
from server.services import SERVICES, Services
from server.turns.records import value_of
from storage.calls import CallRow
from storage.sessions import Session

__all__ = ["add_routes"]

#: Seconds between two looks who has a client's call: the first, and what it grows to.
_FIRST_LOOK: Final = 0.05
_LAST_LOOK: Final = 2.0

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
    identity = command_id(request)
    command = _command(posted, identity)
    session = await _session(request, posted)
    opening = await opening_of(request, session, client_id(request), None)
    # Where no stream can be had, nothing is done either.
    services.hub.enter(session.session_id)
    services.hub.leave(session.session_id)
    ack = await perform(request, session, command)
    assert ack.seq is not None, "these commands are stored, and have events"
    match posted.message:
        case UserMessage_():
            teller = FlatTeller(Origin(ack.message_id, identity))
        case SwitchAgentMessage():
            teller = FlatTeller(Origin(None, identity, ends=True))
        case _:
            teller = FlatTeller(Origin(None, identity), *await _open_calls(services, session))
    # The session was read before these events came into being.
    known = replace(session, seq=max(session.seq, ack.seq))
    stream = FlatStream(services, known, opening.client_id, teller)
    return await tell(request, opening._replace(session=known, after=ack.seq - 1), teller, stream)


class FlatStream(EventStream):
    """The response, which ends with the last chunk. While calls of clients are open it looks whose they are."""

    __slots__ = ("_client_id", "_looking", "_services", "_session", "_teller")

    def __init__(self, services: Services, session: Session, client_id: str, teller: FlatTeller) -> None:
        super().__init__()
        self._services = services
        self._session = session
        self._client_id = client_id
        self._teller = teller
        self._looking: asyncio.Task[None] | None = None
        teller.ended = self.finish
        teller.doubt = self._look

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_until_known(), name="compat:look")

    async def _look_until_known(self) -> None:
        """Look who has the calls, until it is settled: the turn's run gives them out soon after it announced them."""
        clock, pause = self._services.clock, _FIRST_LOOK
        while not self._teller.over:
            try:
                calls = await self._client_calls()
            except ParleyError:
                # The database is away; it comes back.
                calls = []
            self._teller.ours = {str(call.call_id) for call in calls if self._is_ours(call)}
            if self._teller.ours:
                # Any frame will do: with it the turn is found to rest.
                self._services.hub.reply(self.subscriber, Heartbeat())
                return
            if calls and all(call.client_id is not None for call in calls):
                # Others have them all; there will be an event when one is over.
                return
            await clock.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK)

    async def _client_calls(self) -> list[CallRow]:
        rows = await self._services.calls.of_session(self._session.session_id)
        return [row for row in rows if row.executor == "client"]

    def _is_ours(self, call: CallRow) -> bool:
        """Whether this client is to run it: it has it, or nobody has it, who could be given it."""
        if call.state == "running":
            return call.client_id == self._client_id
        return call.state == "ready" and call.deadline is not None

    @override
    async def _release(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        await super()._release()


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


async def _open_calls(services: Services, session: Session) -> tuple[list[OpenCall], list[UUID]]:
    """The calls of the running turn that have no result yet, and the turns that answer some of them."""
    rows = await services.calls.of_session(session.session_id)
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
