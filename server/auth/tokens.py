"""Bearer tokens: where a request may carry one, and whose it is."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from aiohttp import hdrs, web

from protocol.errors import ErrorCode, ParleyError
from server.auth.principals import Principal
from server.auth.query import has_query
from server.config import TokenSettings

__all__ = ["BEARER_PROTOCOL", "Tokens", "presented_token", "refuse_token_in_url"]

#: A browser cannot set headers on a WebSocket; it offers the token as one more subprotocol. The answer never names it.
BEARER_PROTOCOL: Final = "parley.bearer."

#: Query parameters that look like a long-lived token. URLs end up in histories, proxies' logs and Referer headers.
_TOKEN_PARAMETERS: Final = frozenset({"access_token", "api_key", "auth_token", "bearer", "token"})


class Tokens:
    """The configured tokens, as digests."""

    def __init__(self, entries: Iterable[TokenSettings]) -> None:
        self._users = [(entry.digest, Principal(entry.user, "token")) for entry in entries]

    def __bool__(self) -> bool:
        return bool(self._users)

    def principal(self, token: str) -> Principal | None:
        """Whose token this is; None when nobody's.

        All entries are compared, each in constant time, so that the answer's time tells nothing about them.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, principal in self._users:
            if hmac.compare_digest(known, digest):
                found = principal
        return found


def presented_token(request: web.Request) -> str | None:
    """The token in `Authorization: Bearer` (RFC 6750), or in the subprotocols of a WebSocket's opening handshake."""
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
    return next((name.removeprefix(BEARER_PROTOCOL) for name in names if name.startswith(BEARER_PROTOCOL)), None)


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
