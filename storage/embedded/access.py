"""How the server is reached, and what it must hold for us: one role, one database."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from storage.embedded.errors import EmbeddedError
from storage.embedded.places import PORT

# The role that made the cluster and may do anything; we use it only to make the other one.
ADMIN = "postgres"
# The role that Parley works as: it owns its databases and is nobody elsewhere.
ROLE = "parley"
DATABASE = "parley"
# The database that every cluster has, for statements that must be given outside the one they concern.
_ELSEWHERE = "postgres"
# Seconds for one connection to a server on the same machine.
_TIMEOUT = 10.0
# What is heard of a server that is not there yet, or not any more: it may be killed while we talk to it, and asyncpg
# has errors of its own for a connection that breaks between two statements.
_ABSENT = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


def dsn(sockets: Path, database: str) -> str:
    """The address as a URI, also for libpq (psql)."""
    return f"postgresql://{ROLE}@/{quote(database, safe='')}?host={quote(str(sockets), safe='')}&port={PORT}"


def connect_args(sockets: Path, database: str, role: str = ROLE) -> dict[str, Any]:
    """The address as keyword arguments of `asyncpg.connect` and `asyncpg.create_pool`."""
    return {"host": str(sockets), "port": PORT, "user": role, "database": database}


async def provision(sockets: Path) -> bool:
    """Prove that the server answers, and make role and database if they are missing.

    Returns:
        False when the server does not take connections yet, or is gone again.

    Raises:
        EmbeddedError: it takes connections, but not ours.
    """
    try:
        connection = await _connect(sockets, _ELSEWHERE, ADMIN)
        try:
            # Each on its own: a former start may have been killed between the two.
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", ROLE):
                await connection.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB")
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")
        finally:
            await connection.close(timeout=_TIMEOUT)
    except _ABSENT:
        return False
    except asyncpg.PostgresError as error:
        raise EmbeddedError(f"The database server behind {sockets} refuses us: {error}") from error
    return True


async def create_database(sockets: Path, name: str, template: str | None) -> None:
    """Create a database of our role's, as a copy of `template` if one is named (nobody may be connected to it)."""
    copying = f" TEMPLATE {_quoted(template)}" if template is not None else ""
    await _execute(sockets, f"CREATE DATABASE {_quoted(name)}{copying}")


async def drop_database(sockets: Path, name: str) -> None:
    """Drop a database, if it is there, and whoever is connected to it."""
    await _execute(sockets, f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")


async def _execute(sockets: Path, statement: str) -> None:
    connection = await _connect(sockets, _ELSEWHERE, ROLE)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _connect(sockets: Path, database: str, role: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(**connect_args(sockets, database, role), timeout=_TIMEOUT)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
