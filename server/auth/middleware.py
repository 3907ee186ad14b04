"""The one door: every request, of whatever transport, passes here before a handler is chosen to act."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from protocol.errors import ErrorCode, ParleyError
from server.auth.origins import Gatekeeper
from server.auth.principals import LOCAL, set_principal
from server.auth.tokens import Tokens, presented_token, refuse_token_in_url

__all__ = ["PUBLIC", "add_public_get", "authenticate"]


#: The resources that need no token: health, readiness, and the files of the web console.
PUBLIC: Final = web.AppKey("public", set[web.AbstractResource])


def add_public_get(app: web.Application, path: str, handler: Handler) -> None:
    """Add a GET route that is served without a token (its Host and Origin are checked like all others')."""
    resource = app.router.add_get(path, handler).resource
    assert resource is not None, "a route that was added by path has a resource"
    app.setdefault(PUBLIC, set()).add(resource)


def authenticate(gatekeeper: Gatekeeper, tokens: Tokens) -> Middleware:
    """The middleware that refuses strangers and gives every other request its principal.

    Without configured tokens everybody is the local user; the configuration allows that on loopback addresses only.
    Raises ParleyError, which the outer middleware answers: HOST_REFUSED, ORIGIN_REFUSED, MALFORMED, UNAUTHORIZED.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        gatekeeper.check(request)
        refuse_token_in_url(request)
        preflight = gatekeeper.preflight(request)
        if preflight is not None:
            return preflight
        if not tokens:
            set_principal(request, LOCAL)
        elif not _is_public(request):
            _identify(request, tokens)
        return await handler(request)

    return middleware


def _identify(request: web.Request, tokens: Tokens) -> None:
    token = presented_token(request)
    if token is None:
        raise ParleyError(
            ErrorCode.UNAUTHORIZED,
            "a token is needed: send 'Authorization: Bearer <token>', or offer the WebSocket subprotocol "
            "'parley.bearer.<token>'",
        )
    principal = tokens.principal(token)
    if principal is None:
        raise ParleyError(ErrorCode.UNAUTHORIZED, "nobody has this token")
    set_principal(request, principal)


def _is_public(request: web.Request) -> bool:
    if request.method not in {hdrs.METH_GET, hdrs.METH_HEAD}:
        return False
    return request.match_info.route.resource in request.app.get(PUBLIC, ())
