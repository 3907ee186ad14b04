"""Members: users with whom an owner shares a session."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import format_timestamp
from server.auth import principal_of
from server.rest.inputs import body_of
from server.rest.openapi import Routes
from server.rest.responses import json_response
from server.services import SERVICES
from storage.members import Member, MemberRole

__all__ = ["MemberList", "MemberView", "PutMember", "add_routes"]

ROUTES: Final = Routes("Sharing", "Who else may use a session.")

#: As in `auth.tokens[].user`.
UserId = Annotated[str, Meta(min_length=1, max_length=128)]


class PutMember(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user is to be: a `controller`, who talks, decides and runs tools, or an `observer`, who reads."""

    role: MemberRole


class MemberView(Struct, frozen=True, kw_only=True):
    """A member of a session, and who made him one."""

    user_id: str
    role: MemberRole
    added_by: str
    added_at: str

    @classmethod
    def of(cls, member: Member) -> MemberView:
        """The member as the owner sees him."""
        return cls(
            user_id=member.user_id,
            role=member.role,
            added_by=member.added_by,
            added_at=format_timestamp(member.added_at),
        )


class MemberList(Struct, frozen=True, kw_only=True):
    """All members of a session, in the order of their names; its owner is none."""

    members: list[MemberView]


def add_routes(app: web.Application) -> None:
    """Add the routes under `/sessions/{session}/members`."""
    ROUTES.add_to(app)


@ROUTES.get("/sessions/{session}/members", answer=MemberList, errors=(ErrorCode.FORBIDDEN,))
async def _list(request: web.Request) -> web.Response:
    """List the members. For the owner."""
    services = request.app[SERVICES]
    session = await services.access.session(request, "owner")
    members = await services.members.of(session.session_id)
    return json_response(MemberList(members=[MemberView.of(member) for member in members]))


@ROUTES.put(
    "/sessions/{session}/members/{user}",
    body=PutMember,
    answer=MemberView,
    errors=(ErrorCode.FORBIDDEN, ErrorCode.CONFLICT, ErrorCode.LIMIT_REACHED),
)
async def _put(request: web.Request) -> web.Response:
    """Make a user a member, or give him another role. For the owner.

    Whether there is such a user is not looked at. Streams of a member whose role changes end, and come back with it.
    """
    services = request.app[SERVICES]
    session = await services.access.session(request, "owner")
    user_id = _user(request)
    body = await body_of(request, PutMember)
    if user_id == session.owner:
        raise ParleyError(ErrorCode.CONFLICT, "the session is yours: its owner is no member")
    member, before = await services.members.put(
        session.session_id, user_id, body.role, by=principal_of(request).user_id, now=services.clock.now()
    )
    if before not in {None, member.role}:
        services.guests.dismiss(session.session_id, user_id, member.role)
    return json_response(MemberView.of(member))


@ROUTES.delete("/sessions/{session}/members/{user}", errors=(ErrorCode.FORBIDDEN, ErrorCode.INVALID))
async def _remove(request: web.Request) -> web.Response:
    """Take a member out. For the owner, and for the member himself. His streams end."""
    services = request.app[SERVICES]
    user_id = _user(request)
    own = user_id == principal_of(request).user_id
    session = await services.access.session(request, "observer" if own else "owner")
    if not await services.members.remove(session.session_id, user_id):
        raise ParleyError(ErrorCode.NOT_FOUND, "this user is no member of the session")
    services.guests.dismiss(session.session_id, user_id, None)
    return web.Response(status=204)


def _user(request: web.Request) -> str:
    """The user named in the path. Raises ParleyError(INVALID)."""
    try:
        user_id = msgspec.convert(request.match_info["user"], UserId)
    except msgspec.ValidationError as error:
        raise ParleyError(ErrorCode.INVALID, f"the user in the path: {error}") from None
    if "\0" in user_id:
        raise ParleyError(ErrorCode.INVALID, "the user in the path holds the character U+0000, which cannot be kept")
    return user_id
