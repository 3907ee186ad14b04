"""Migrations: `sql/migrations/NNNN_name.sql`, applied in order, each in a transaction, never changed afterwards."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple, TypeAlias

import asyncpg
import asyncpg.pool

#: A connection of one's own, or one borrowed from a pool.
Connection: TypeAlias = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

__all__ = ["Migration", "MigrationError", "migrate", "migrations", "pending"]

_FILE: Final = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")
#: Only one process migrates a database at a time: an advisory lock with this key ("parley" in a bigint).
_LOCK: Final = 0x7061726C6579
_OLDEST: Final = 150000


class MigrationError(Exception):
    """The database cannot be brought to this version of the server; the message says why and what to do."""


class Migration(NamedTuple):
    """One file: its number and name, its text, and the hash by which a later change of it is noticed."""

    name: str
    text: str
    sha256: str


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations of this version, in order; ValueError when a number is missing or a file is misnamed."""
    found: list[Migration] = []
    folder = files("storage") / "sql" / "migrations"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        match = _FILE.fullmatch(entry.name)
        if match is None or int(match[1]) != len(found) + 1:
            raise ValueError(f"migration {entry.name} is misnamed or out of order")
        text = entry.read_text(encoding="utf-8")
        found.append(Migration(entry.name.removesuffix(".sql"), text, hashlib.sha256(text.encode()).hexdigest()))
    return tuple(found)


async def pending(connection: Connection) -> list[Migration]:
    """The migrations that this database lacks.

    Raises MigrationError when it has one that this version does not know, or knows with another text, or when the
    server is too old.
    """
    if int(await connection.fetchval("SHOW server_version_num")) < _OLDEST:
        raise MigrationError("Parley needs PostgreSQL 15 or newer")
    if await connection.fetchval("SELECT to_regclass('parley_migrations')") is None:
        return list(migrations())
    known = {migration.name: migration for migration in migrations()}
    applied = await connection.fetch("SELECT name, sha256 FROM parley_migrations ORDER BY name")
    for row in applied:
        migration = known.pop(row["name"], None)
        if migration is None:
            raise MigrationError(
                f"the database has migration {row['name']}, which this version does not know: upgrade it"
            )
        if migration.sha256 != row["sha256"]:
            raise MigrationError(f"migration {row['name']} was changed after it was applied to this database")
    return list(known.values())


async def migrate(connection: Connection) -> list[str]:
    """Apply what is pending and return its names. Safe to run from several processes at once."""
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    try:
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS parley_migrations"
            " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        todo = await pending(connection)
        for migration in todo:
            async with connection.transaction():
                await connection.execute(migration.text)
                await connection.execute(
                    "INSERT INTO parley_migrations (name, sha256) VALUES ($1, $2)", migration.name, migration.sha256
                )
        return [migration.name for migration in todo]
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)
