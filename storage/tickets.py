"""What browsers bring in place of a token: tickets, which are good once, and logins. Only their hashes are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from storage.pool import Database

__all__ = ["Login", "Logins", "Ticket", "Tickets"]

#: Open ones of one user: a page of a hundred streams that all come back at once is served, a loop is not.
_MOST_TICKETS: Final = 1_000
#: Logins of one user; a further one ends the oldest.
_MOST_LOGINS: Final = 100
#: Expired rows that a new one takes away with it: more than one, so that they become fewer.
_SWEPT: Final = 100


class Ticket(Struct, frozen=True, kw_only=True):
    """What a ticket opens: a stream of one session or of any, for pages of one origin (None: of our own).

    `until` is when what it opened has to end.
    """

    user_id: str
    scope: str
    session_id: UUID | None
    origin: str | None
    until: datetime | None


class Login(Struct, frozen=True, kw_only=True):
    """What a cookie stands for; `credential` tells which token it was made of, None where tokens are not listed."""

    user_id: str
    scope: str
    credential: bytes | None
    expires_at: datetime


class Tickets:
    """Tickets by their digests. The statement that uses one up is the one that finds it, so it is good once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, digest: bytes, ticket: Ticket, *, expires_at: datetime, now: datetime) -> bool:
        """Keep a ticket; False when its user has too many open ones."""
        row = await self._database.fetchrow(
            "issue_ticket",
            *(digest, ticket.user_id, ticket.scope, ticket.session_id, ticket.origin, expires_at, ticket.until, now),
            *(_MOST_TICKETS, _SWEPT),
        )
        return row is not None

    async def redeem(self, digest: bytes, now: datetime) -> Ticket | None:
        """The ticket, which is used up by that; None when there is none, or it has expired."""
        row = await self._database.fetchrow("redeem_ticket", digest, now)
        if row is None or not row["valid"]:
            return None
        return Ticket(
            user_id=row["user_id"],
            scope=row["scope"],
            session_id=row["session_id"],
            origin=row["origin"],
            until=row["until"],
        )


class Logins:
    """Logins by their digests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, digest: bytes, login: Login, now: datetime) -> None:
        """Keep a login; the user's oldest one ends when he has too many."""
        await self._database.execute(
            "keep_login",
            *(digest, login.user_id, login.scope, login.credential, login.expires_at, now),
            *(_MOST_LOGINS - 1, _SWEPT),
        )

    async def find(self, digest: bytes, now: datetime) -> Login | None:
        """The login, while it is good."""
        row = await self._database.fetchrow("login", digest, now)
        return None if row is None else _login(row)

    async def forget(self, digest: bytes) -> bool:
        """End a login; False when there was none."""
        return await self._database.fetchrow("forget_login", digest) is not None


def _login(row: asyncpg.Record) -> Login:
    return Login(user_id=row["user_id"], scope=row["scope"], credential=row["credential"], expires_at=row["expires_at"])
