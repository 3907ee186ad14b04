"""Which credential a request brought, and whether it may bring it there."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from protocol.errors import ErrorCode, ParleyError
from server.auth.logins import Logins
from server.auth.origins import foreign_origin
from server.auth.principals import Principal
from server.auth.query import has_query
from server.auth.tickets import Tickets
from server.auth.tokens import Verifier, presented_token, verified
from server.clock import Clock

__all__ = ["Credentials"]

_TICKET: Final = "ticket"


class Credentials:
    """Finds out who a request speaks for: by a token, else by a ticket where those count, else by a login's cookie.

    `verifier` is None on a server that asks nobody; then it is false.
    """

    def __init__(self, verifier: Verifier | None, tickets: Tickets, logins: Logins, clock: Clock) -> None:
        self.verifier = verifier
        self.tickets = tickets
        self.logins = logins
        self._clock = clock

    def __bool__(self) -> bool:
        return self.verifier is not None

    async def principal(self, request: web.Request, *, by_ticket: bool) -> Principal:
        """Who the request speaks for.

        Raises ParleyError: UNAUTHORIZED, TOKEN_EXPIRED, MALFORMED, ORIGIN_REFUSED (of a cookie), UNAVAILABLE.
        """
        assert self.verifier is not None, "a server that asks nobody does not look at what is brought"
        token = presented_token(request)
        if token is not None:
            return await verified(self.verifier, token, self._clock.now())
        ticket = _ticket(request) if by_ticket else None
        if ticket is not None:
            return await self.tickets.redeem(ticket, foreign_origin(request))
        principal = await self.logins.find(request)
        if principal is None:
            raise ParleyError(
                ErrorCode.UNAUTHORIZED,
                "a token is needed: send 'Authorization: Bearer <token>', or offer the WebSocket subprotocol "
                "'parley.bearer.<token>'",
            )
        return principal


def _ticket(request: web.Request) -> str | None:
    values = request.query.getall(_TICKET, []) if has_query(request) else []
    if len(values) > 1:
        raise ParleyError(ErrorCode.INVALID, "the query parameter 'ticket' is given twice", path="?ticket")
    return values[0] if values else None
