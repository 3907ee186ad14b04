"""One-time tickets: what opens a stream where no header can be set, as in a browser's EventSource.

A ticket is in a URL, so it is good once, for seconds, on streams only, and for pages of the origin that asked for it.
Where it arrives it is used up whether or not it fits: nobody gets to try.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Final, cast
from uuid import UUID

from protocol.errors import ErrorCode, ParleyError
from server.auth.principals import Principal, Scope
from server.clock import Clock
from storage.tickets import Ticket
from storage.tickets import Tickets as Store

__all__ = ["LIFETIME", "Tickets", "digest_of", "new_secret"]

#: How long a ticket is good: for a page to open its stream, also on a slow network. Seconds.
LIFETIME: Final = 30.0

#: Bytes of randomness; nobody guesses that many.
_BYTES: Final = 32


def new_secret() -> str:
    """A secret that may stand in a URL and in a cookie."""
    return secrets.token_urlsafe(_BYTES)


def digest_of(secret: str) -> bytes:
    """What is kept of a secret. Looking for it tells nothing by its time: who can choose a digest has the secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Tickets:
    """Issues tickets and takes them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def issue(self, principal: Principal, session_id: UUID | None, origin: str | None) -> tuple[str, datetime]:
        """A new ticket for a principal, and when it is good no longer; `origin` is that of a page that is not our own.

        Raises ParleyError LIMIT_REACHED when the user has too many open ones.
        """
        now = self._clock.now()
        expires_at = now + timedelta(seconds=LIFETIME)
        secret = new_secret()
        ticket = Ticket(
            user_id=principal.user_id,
            scope=principal.scope,
            session_id=session_id,
            origin=origin,
            until=principal.expires_at,
        )
        if not await self._store.issue(digest_of(secret), ticket, expires_at=expires_at, now=now):
            raise ParleyError(
                ErrorCode.LIMIT_REACHED, "you have too many tickets that were not used", retry_after=LIFETIME
            )
        return secret, expires_at

    async def redeem(self, secret: str, origin: str | None) -> Principal:
        """Who asked for the ticket, which is used up by that. Raises ParleyError UNAUTHORIZED, TOKEN_EXPIRED."""
        now = self._clock.now()
        ticket = await self._store.redeem(digest_of(secret), now)
        if ticket is None:
            raise ParleyError(
                ErrorCode.UNAUTHORIZED, "the ticket is used up, too old, or none; ask for another at /auth/tickets"
            )
        if ticket.origin != origin:
            raise ParleyError(ErrorCode.UNAUTHORIZED, "the ticket was given to a page of another origin")
        principal = Principal(
            ticket.user_id, "ticket", cast("Scope", ticket.scope), ticket.until, session_id=ticket.session_id
        )
        if principal.expired(now):
            raise ParleyError(ErrorCode.TOKEN_EXPIRED, "the token has expired that the ticket was asked for with")
        return principal
