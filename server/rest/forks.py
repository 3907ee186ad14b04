"""Branches of a conversation: forked at any place, with the last message sent again, or with one edited."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from protocol.commands import TextPart, UserMessage, text_of
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN
from server.auth import principal_of
from server.rest.acting import given_key, origin_of
from server.rest.inputs import body_of
from server.rest.openapi import Routes
from server.rest.openapi.parameters import IDEMPOTENCY_KEY
from server.rest.responses import json_response
from server.rest.sessions import Title, seq_of
from server.rest.values import uuid_in_path
from server.rest.views import SessionView
from server.services import SERVICES
from server.turns.forking import Fork
from storage.sessions import Session

__all__ = ["add_routes"]

ROUTES: Final = Routes("Branches", "Sessions that begin as copies of others: nothing that was said is ever changed.")

_REFUSALS: Final = (ErrorCode.CONFLICT, ErrorCode.LIMIT_REACHED, ErrorCode.TOO_LARGE)


class BranchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`session_id` is the caller's own name for the new session; its title says what it is, unless one is given."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    title: Title | None = None


class ForkBody(BranchBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to fork: at most one of a number, a cursor, a message, all inclusive; all of the session when none."""

    seq: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    cursor: str | None = None
    message_id: UUID | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.seq, self.cursor, self.message_id)) > 1:
            raise ValueError("at most one of `seq`, `cursor` and `message_id` says where")


class EditBody(BranchBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said instead."""

    content: Annotated[str, Meta(min_length=1)] | Annotated[list[TextPart], Meta(min_length=1, max_length=1024)]


class BranchView(SessionView, frozen=True, kw_only=True):
    """The new session; `message_id` and `turn_id` are of what was said in it, null after a fork alone."""

    message_id: UUID | None
    turn_id: UUID | None


@ROUTES.post(
    "/sessions/{session}/fork",
    body=ForkBody,
    body_required=False,
    headers=(IDEMPOTENCY_KEY,),
    answer=BranchView,
    status=201,
    errors=(*_REFUSALS, ErrorCode.NOT_FOUND),
)
async def _fork(request: web.Request) -> web.Response:
    """Copy a conversation into a session of your own, up to a place in it.

    The messages have new ids there, and the old times. A step of an agent whose tools had no results yet is left out.
    """
    session = await request.app[SERVICES].access.session(request, "observer")
    body = await body_of(request, ForkBody)
    path = "$.seq" if body.cursor is None else "$.cursor"
    at = body.seq if body.cursor is None else seq_of(body.cursor, session, path)
    if at is not None and at > session.seq:
        raise ParleyError(ErrorCode.INVALID, f"the session has {session.seq} events only", path=path)
    return await _branch(
        request,
        session,
        Fork(kind="fork", user_id=principal_of(request).user_id, at=at, message_id=body.message_id),
        body,
    )


@ROUTES.post(
    "/sessions/{session}/retry",
    body=BranchBody,
    body_required=False,
    headers=(IDEMPOTENCY_KEY,),
    answer=BranchView,
    status=201,
    errors=_REFUSALS,
)
async def _retry(request: web.Request) -> web.Response:
    """Fork before the last user message, and send that again there."""
    session = await request.app[SERVICES].access.session(request, "observer")
    body = await body_of(request, BranchBody)
    return await _branch(request, session, Fork(kind="retry", user_id=principal_of(request).user_id), body)


@ROUTES.post(
    "/sessions/{session}/messages/{message}/edit",
    body=EditBody,
    headers=(IDEMPOTENCY_KEY,),
    answer=BranchView,
    status=201,
    errors=_REFUSALS,
)
async def _edit(request: web.Request) -> web.Response:
    """Fork before a user message, and say something else there."""
    session = await request.app[SERVICES].access.session(request, "observer")
    message_id = uuid_in_path(request, "message")
    body = await body_of(request, EditBody)
    fork = Fork(
        kind="edit", user_id=principal_of(request).user_id, message_id=message_id, content=text_of(body.content)
    )
    return await _branch(request, session, fork, body)


async def _branch(request: web.Request, source: Session, fork: Fork, body: BranchBody) -> web.Response:
    services = request.app[SERVICES]
    fork = msgspec.structs.replace(fork, title=body.title, alias=body.session_id, key=given_key(request))
    made = await services.forking.fork(source, fork)
    session, message_id, turn_id = made.session, None, None
    if made.content is not None:
        # The same id for every delivery: what was asked for once is said once.
        command = UserMessage(id=f"{fork.kind}:{session.session_id}", content=made.content, agent_type=made.agent_type)
        ack = await services.commands.handle(session, command, origin_of(request, session))
        message_id, turn_id = ack.message_id, ack.turn_id
        session = await services.sessions.resolve(fork.user_id, str(session.session_id))
    view = BranchView(**msgspec.structs.asdict(SessionView.of(session)), message_id=message_id, turn_id=turn_id)
    return json_response(view, status=201, headers={hdrs.LOCATION: f"/sessions/{session.session_id}"})


def add_routes(app: web.Application) -> None:
    """Add the routes of branches."""
    ROUTES.add_to(app)
