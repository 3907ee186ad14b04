"""The one door: every request, of whatever transport, passes here before a handler is chosen to act."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from protocol.errors import ErrorCode, ParleyError
from server.auth.credentials import Credentials
from server.auth.origins import Gatekeeper
from server.auth.principals import LOCAL, set_principal
from server.auth.tokens import refuse_token_in_url

__all__ = ["add_public", "add_public_get", "authenticate", "is_public", "open_to_readers", "open_to_tickets"]

_Routes = set[tuple[str, web.AbstractResource]]

#: What needs no token: health, readiness, the files of the web console, forgetting a login.
_PUBLIC: Final = web.AppKey("public", _Routes)
#: Where a ticket counts: the streams.
_TICKETED: Final = web.AppKey("ticketed", _Routes)
#: What a token for reading is good for, beside GET; what of it changes something is refused further on.
_READABLE: Final = web.AppKey("readable", _Routes)

_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


def add_public_get(app: web.Application, path: str, handler: Handler) -> None:
    """Add a GET route that is served without a token (its Host and Origin are checked like all others')."""
    add_public(app, hdrs.METH_GET, path, handler)


def add_public(app: web.Application, method: str, path: str, handler: Handler) -> None:
    """The same for any method; with GET comes HEAD."""
    for each in {hdrs.METH_GET: (hdrs.METH_GET, hdrs.METH_HEAD)}.get(method, (method,)):
        _note(app, _PUBLIC, app.router.add_route(each, path, handler))


def open_to_tickets(app: web.Application, route: web.AbstractRoute) -> None:
    """Let tickets open the stream of a route that was added."""
    _note(app, _TICKETED, route)


def open_to_readers(app: web.Application, route: web.AbstractRoute) -> None:
    """Let tokens that are for reading reach a route that is not for GET; its handler refuses what it must."""
    _note(app, _READABLE, route)


def is_public(app: web.Application, route: web.AbstractRoute) -> bool:
    """Whether a route is served without a token."""
    return route.resource is not None and (route.method, route.resource) in app.get(_PUBLIC, ())


def authenticate(gatekeeper: Gatekeeper, credentials: Credentials) -> Middleware:
    """The middleware that refuses strangers and gives every other request its principal.

    Without configured tokens everybody is the local user; the configuration allows that on loopback addresses only.
    Raises ParleyError, which the outer middleware answers: HOST_REFUSED, ORIGIN_REFUSED, MALFORMED, UNAUTHORIZED,
    TOKEN_EXPIRED, FORBIDDEN.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        gatekeeper.check(request)
        refuse_token_in_url(request)
        preflight = gatekeeper.preflight(request)
        if preflight is not None:
            return preflight
        if not credentials:
            set_principal(request, LOCAL)
        elif not _is_one_of(request, _PUBLIC):
            principal = await credentials.principal(request, by_ticket=_is_one_of(request, _TICKETED))
            set_principal(request, principal)
            if principal.scope == "read" and request.method not in _READING and not _is_one_of(request, _READABLE):
                raise ParleyError(ErrorCode.FORBIDDEN, "this token is for reading only")
        return await handler(request)

    return middleware


def _note(app: web.Application, key: web.AppKey[_Routes], route: web.AbstractRoute) -> None:
    assert route.resource is not None, "a route that was added by path has a resource"
    app.setdefault(key, set()).add((route.method, route.resource))


def _is_one_of(request: web.Request, key: web.AppKey[_Routes]) -> bool:
    return (request.method, request.match_info.route.resource) in request.app.get(key, ())
