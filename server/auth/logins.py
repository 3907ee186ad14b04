"""Logins: a cookie in place of a token, for browsers that are to remember, and for EventSource on pages of our own.

The cookie is out of reach for scripts (HttpOnly), for other sites' pages (SameSite) and, over TLS, for other hosts and
for plain HTTP (Secure and the prefix `__Host-`, RFC 6265bis, section 4.1.3). It holds nothing but a random number.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, cast

from aiohttp import hdrs, web

from protocol.errors import ErrorCode, ParleyError
from server.auth.origins import is_secure, own_origin
from server.auth.principals import Principal, Scope
from server.auth.tickets import digest_of, new_secret
from server.auth.tokens import Verifier
from server.clock import Clock
from storage.tickets import Login
from storage.tickets import Logins as Store

__all__ = ["COOKIE", "SECURE_COOKIE", "Logins"]

COOKIE: Final = "parley"
SECURE_COOKIE: Final = "__Host-parley"

_SAFE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
#: What browsers say of a request of a page of our own, or of the user himself (Fetch Metadata); old ones say nothing.
_OWN_SITES: Final = frozenset({"", "same-origin", "none"})
_SITE: Final = "Sec-Fetch-Site"


class Logins:
    """Makes logins of tokens, finds and forgets them."""

    def __init__(self, store: Store, verifier: Verifier, clock: Clock, lifetime: float) -> None:
        """`lifetime` is in seconds."""
        self._store = store
        self._verifier = verifier
        self._clock = clock
        self._lifetime = lifetime

    async def begin(self, principal: Principal) -> tuple[str, Principal]:
        """Log a principal in, who brought a token: what the cookie holds, and who he is with it.

        The login ends with the token at the latest.
        """
        now = self._clock.now()
        ends = now + timedelta(seconds=self._lifetime)
        if principal.expires_at is not None:
            ends = min(ends, principal.expires_at)
        secret = new_secret()
        login = Login(
            user_id=principal.user_id, scope=principal.scope, credential=principal.credential, expires_at=ends
        )
        await self._store.keep(digest_of(secret), login, now)
        return secret, _principal(login)

    def give(self, request: web.Request, response: web.Response, secret: str) -> None:
        """Set the cookie; the login itself says when it is over."""
        secure = is_secure(request)
        response.set_cookie(
            SECURE_COOKIE if secure else COOKIE,
            secret,
            max_age=int(self._lifetime),
            path="/",
            secure=secure,
            httponly=True,
            samesite="Strict",
        )

    async def end(self, request: web.Request, response: web.Response) -> None:
        """Forget the login that the request brings, if any, and have its browser forget the cookie.

        Raises ParleyError ORIGIN_REFUSED as `find` does.
        """
        for name in (SECURE_COOKIE, COOKIE):
            secret = request.cookies.get(name)
            if secret is not None:
                _refuse_forgery(request)
                await self._store.forget(digest_of(secret))
                secure = name == SECURE_COOKIE
                response.del_cookie(name, path="/", secure=secure, httponly=True, samesite="Strict")

    async def find(self, request: web.Request) -> Principal | None:
        """Who the request's cookie stands for; None without one.

        Raises ParleyError: UNAUTHORIZED for a login that is over, ORIGIN_REFUSED for a request that a browser may have
        been made to send with it.
        """
        secret = _cookie(request)
        if secret is None:
            return None
        _refuse_forgery(request)
        login = await self._store.find(digest_of(secret), self._clock.now())
        principal = None if login is None else _principal(login)
        if principal is None or not self._verifier.vouches_for(principal):
            raise ParleyError(ErrorCode.UNAUTHORIZED, "this login is over; log in again with a token")
        return principal


def _principal(login: Login) -> Principal:
    return Principal(login.user_id, "login", cast("Scope", login.scope), login.expires_at, login.credential)


def _cookie(request: web.Request) -> str | None:
    if hdrs.COOKIE not in request.headers:
        # Most requests; the framework would keep an empty mapping for each.
        return None
    cookies = request.cookies
    # Where we speak TLS ourselves the other one was set by somebody who does not.
    return cookies.get(SECURE_COOKIE) or (None if request.secure else cookies.get(COOKIE)) or None


def _refuse_forgery(request: web.Request) -> None:
    """A cookie is sent by the browser, whoever made it ask: this must have been a page of our own."""
    changing = request.method not in _SAFE or request.headers.get(hdrs.UPGRADE) is not None
    origin = own_origin(request)
    if (changing and origin is not True) or origin is False or request.headers.get(_SITE, "").lower() not in _OWN_SITES:
        raise ParleyError(
            ErrorCode.ORIGIN_REFUSED,
            "with a cookie only pages of this very server are served; others bring a token or a ticket",
        )
