"""`/auth/tickets` and `/auth/login`: what browsers are given in place of a token. `README.md` says how pages use it."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta, Struct

from protocol.errors import ErrorCode
from protocol.ids import ID_PATTERN, format_timestamp
from server.auth.origins import foreign_origin
from server.auth.principals import Principal, principal_of
from server.rest.inputs import body_of
from server.rest.openapi.routes import JSON, Answer, Routes
from server.rest.responses import json_response
from server.services import SERVICES

__all__ = ["ROUTES", "Identity", "IssuedTicket", "TicketRequest", "add_routes"]


class TicketRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The session whose streams the ticket is to open, by id or alias; without one it opens any of the user's."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None


class IssuedTicket(Struct, frozen=True, kw_only=True):
    """A ticket: good once, as `ticket=` in the query of a stream."""

    ticket: str
    expires_at: str


class Identity(Struct, frozen=True, kw_only=True):
    """Who is asking, how we know (`local`, `token`, `login`), what for (`all`, `read`), until when (null: no end)."""

    user_id: str
    kind: str
    scope: str
    expires_at: str | None

    @classmethod
    def of(cls, principal: Principal) -> Identity:
        """What a principal is told about himself."""
        ends = principal.expires_at
        return cls(
            user_id=principal.user_id,
            kind=principal.kind,
            scope=principal.scope,
            expires_at=None if ends is None else format_timestamp(ends),
        )


ROUTES: Final = Routes("Access", "What browsers are given in place of a token.")


def add_routes(app: web.Application) -> None:
    """Add the routes under `/auth`."""
    ROUTES.add_to(app)


@ROUTES.post(
    "/auth/tickets",
    body=TicketRequest,
    body_required=False,
    # Without an address: a ticket can be used, and not be looked at.
    answers=(Answer(status=201, about="Good for one stream", content={JSON: IssuedTicket}),),
    errors=(ErrorCode.NOT_FOUND, ErrorCode.LIMIT_REACHED),
    readers=True,
)
async def _issue(request: web.Request) -> web.Response:
    """Ask for a ticket.

    It opens one stream, within 30 seconds, for pages of the origin that asked, as `ticket=` in the query: for
    `EventSource`, which can send no header.
    """
    services = request.app[SERVICES]
    body = await body_of(request, TicketRequest)
    session_id = None
    if body.session_id is not None:
        session_id = (await services.access.named(request, body.session_id, "observer")).session_id
    ticket, ends = await services.credentials.tickets.issue(principal_of(request), session_id, foreign_origin(request))
    return json_response(IssuedTicket(ticket=ticket, expires_at=format_timestamp(ends)), status=201)


@ROUTES.get("/auth/login", answer=Identity)
async def _who(request: web.Request) -> web.Response:
    """Who is asking."""
    return json_response(Identity.of(principal_of(request)))


@ROUTES.post("/auth/login", answer=Identity, readers=True)
async def _begin(request: web.Request) -> web.Response:
    """Make a cookie of a token.

    The token comes in the header. The cookie is for pages of this very server, and out of reach for their scripts.
    """
    principal = principal_of(request)
    if principal.kind != "token":
        # Nobody is asked who he is, or he is logged in already.
        return json_response(Identity.of(principal))
    logins = request.app[SERVICES].credentials.logins
    secret, known = await logins.begin(principal)
    response = json_response(Identity.of(known))
    logins.give(request, response, secret)
    return response


@ROUTES.delete("/auth/login", public=True)
async def _end(request: web.Request) -> web.Response:
    """Forget the login, and the cookie."""
    response = web.Response(status=204)
    await request.app[SERVICES].credentials.logins.end(request, response)
    return response
