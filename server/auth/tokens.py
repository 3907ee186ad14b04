"""Bearer tokens: where a request may carry one, and whose it is."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final, Protocol

from aiohttp import hdrs, web

from protocol.errors import ErrorCode, ParleyError
from server.auth.principals import Principal
from server.auth.query import has_query
from server.config import TokenSettings

__all__ = ["BEARER_PROTOCOL", "Tokens", "Verifier", "presented_token", "refuse_token_in_url", "verified"]

#: A browser cannot set headers on a WebSocket; it offers the token as one more subprotocol. The answer never names it.
BEARER_PROTOCOL: Final = "parley.bearer."
#: What of a token may stand in a subprotocol (RFC 6750, section 2.1, and `token` in RFC 9110): no `/`, no `=`.
_OFFERABLE: Final = re.compile(r"[A-Za-z0-9._~+-]+")

#: Query parameters that look like a long-lived token. URLs end up in histories, proxies' logs and Referer headers.
_TOKEN_PARAMETERS: Final = frozenset({"access_token", "api_key", "auth_token", "bearer", "token"})


class Verifier(Protocol):
    """Something that knows whose a token is: a list, as here, or whoever checks signatures."""

    async def principal(self, token: str) -> Principal | None:
        """Whose token this is; None when nobody's. Its time may be over, which is for the caller to see."""
        ...

    def vouches_for(self, principal: Principal) -> bool:
        """Whether the credential that the principal was made of is still one."""
        ...


class Tokens:
    """The configured tokens, as digests."""

    def __init__(self, entries: Iterable[TokenSettings]) -> None:
        self._users = [
            (entry.digest, Principal(entry.user, "token", entry.scope, entry.expires, _name_of(entry.digest)))
            for entry in entries
        ]
        self._names = {principal.credential for _, principal in self._users}

    def __bool__(self) -> bool:
        return bool(self._users)

    async def principal(self, token: str) -> Principal | None:
        """Whose token this is; None when nobody's.

        All entries are compared, each in constant time, so that the answer's time tells nothing about them.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, principal in self._users:
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def vouches_for(self, principal: Principal) -> bool:
        """Whether the token that the principal was made of is still listed."""
        return principal.credential in self._names


def _name_of(digest: bytes) -> bytes:
    """What a token is called where it is only remembered that it was used: from this nobody gets back to it."""
    return hashlib.sha256(b"parley credential " + digest).digest()


async def verified(verifier: Verifier, token: str, now: datetime) -> Principal:
    """Whose token this is. Raises ParleyError: UNAUTHORIZED when nobody's, TOKEN_EXPIRED when its time is over."""
    principal = await verifier.principal(token)
    if principal is None:
        raise ParleyError(ErrorCode.UNAUTHORIZED, "nobody has this token")
    if principal.expired(now):
        raise ParleyError(ErrorCode.TOKEN_EXPIRED, "the token has expired; ask for a new one")
    return principal


def presented_token(request: web.Request) -> str | None:
    """The token in `Authorization: Bearer` (RFC 6750), or in the subprotocols of a WebSocket's opening handshake.

    Raises ParleyError: UNAUTHORIZED for another header, MALFORMED for a subprotocol that no token can be.
    """
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ParleyError(ErrorCode.UNAUTHORIZED, "the Authorization header has to be: Bearer <token>")
        return token.strip()
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        return None
    offered = ",".join(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())).split(",")
    names = [name.strip() for name in offered]
    tokens = [name.removeprefix(BEARER_PROTOCOL) for name in names if name.startswith(BEARER_PROTOCOL)]
    if len(tokens) > 1:
        raise ParleyError(ErrorCode.MALFORMED, f"only one subprotocol '{BEARER_PROTOCOL}<token>' may be offered")
    if tokens and tokens[0] and not _OFFERABLE.fullmatch(tokens[0]):
        raise ParleyError(
            ErrorCode.MALFORMED,
            "a token that is offered as a subprotocol may have A-Z a-z 0-9 . _ ~ + - only; for others ask for a ticket",
        )
    return tokens[0] if tokens else None


def refuse_token_in_url(request: web.Request) -> None:
    """Raise ParleyError(MALFORMED) when the query has something named like a token; its value is never read."""
    if not has_query(request):
        return
    named = sorted(name for name in request.query if name.lower() in _TOKEN_PARAMETERS)
    if named:
        raise ParleyError(
            ErrorCode.MALFORMED,
            f"the query parameter {named[0]!r} is refused, as URLs are logged on their way; send the token as "
            f"'Authorization: Bearer <token>', or as the WebSocket subprotocol '{BEARER_PROTOCOL}<token>'",
            path=f"?{named[0]}",
        )
