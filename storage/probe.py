"""Looking at a database before a server works on it: nothing is made or changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
from msgspec import Struct

from storage.migrations import MigrationError, pending
from storage.pool import is_outage
from storage.queries import sql

__all__ = ["DatabaseLook", "UnusableError", "look"]

#: How the connection calls itself, so that it is not counted.
_NAME: Final = "parley check"


class UnusableError(Exception):
    """The database cannot be looked at: why, and what to do about it."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


class DatabaseLook(Struct, frozen=True, kw_only=True):
    """What there is. `refusal` is why this version cannot work on it, in words; `pending` what it would migrate first.

    `room` is how many connections those who are no superusers may have, and `others` how many are taken by anybody
    but Parley.
    """

    version: str
    user: str
    database: str
    encoding: str
    fsync: str
    full_page_writes: str
    synchronous_commit: str
    may_create: bool
    read_only: bool
    room: int
    others: int
    pending: tuple[str, ...] = ()
    refusal: str | None = None


async def look(address: str | Mapping[str, Any], *, timeout: float) -> DatabaseLook:
    """Connect, by a DSN or with asyncpg's arguments, and look, within `timeout` seconds. Raises UnusableError."""
    arguments: dict[str, Any] = {"dsn": address} if isinstance(address, str) else dict(address)
    try:
        async with asyncio.timeout(timeout):
            connection = await asyncpg.connect(**arguments, server_settings={"application_name": _NAME})
            try:
                async with connection.transaction(readonly=True):
                    return await _look(connection)
            finally:
                await connection.close(timeout=1)
    except Exception as error:
        raise _unusable(error, timeout) from error


async def _look(connection: asyncpg.Connection) -> DatabaseLook:
    found = connection.get_server_version()
    row = await connection.fetchrow(sql("look_at_database"))
    assert row is not None
    names: tuple[str, ...] = ()
    refusal = None
    try:
        names = tuple(migration.name for migration in await pending(connection))
    except MigrationError as error:
        refusal = str(error)
    except asyncpg.InsufficientPrivilegeError as error:
        refusal = f"the user {row['user']} may not use its tables ({error})"
    # Since version 10 the second number is what used to be the third.
    return DatabaseLook(version=f"{found.major}.{found.micro}", **dict(row), pending=names, refusal=refusal)


def _unusable(error: Exception, timeout: float) -> Exception:
    """Why nothing could be seen. The address is not quoted, as it may hold a password; its owner knows it."""
    match error:
        case TimeoutError():
            reason, advice = f"no answer within {timeout:g} s", "does it run there, and does the network lead there?"
        case asyncpg.InvalidPasswordError() | asyncpg.InvalidAuthorizationSpecificationError():
            reason, advice = f"it refuses us: {error}", "check user and password, and pg_hba.conf there"
        case asyncpg.InvalidCatalogNameError():
            reason, advice = str(error), "create it (createdb), or name another one"
        case asyncpg.TooManyConnectionsError():
            reason, advice = str(error), "raise max_connections there, or let others have fewer"
        case asyncpg.PostgresError():
            reason, advice = f"it refuses us: {error}", "see its log"
        case OSError():
            reason, advice = f"nobody answers ({error.strerror or error})", "does it run, and is the address right?"
        case asyncpg.InterfaceError() | ValueError():
            reason = "the URL cannot be understood"
            advice = "postgresql://user:password@host:5432/database; characters such as / in a password are written %2F"
        case _ if is_outage(error):
            reason, advice = "the connection broke", "see its log"
        case _:
            return error
    return UnusableError(reason, advice)
