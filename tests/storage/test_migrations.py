"""Migrations: append-only, whole, and checked against a fresh database."""

from __future__ import annotations

import asyncio

import pytest

from storage.migrations import MigrationError, migrate, migrations, pending
from storage.pool import Database
from storage.queries import queries
from tests.support.database import Cluster


async def test_every_statement_is_understood_by_every_postgresql(any_database: Database) -> None:
    async with any_database.pool.acquire() as connection:
        for query in queries().values():
            prepared = await connection.prepare(query.text)
            assert prepared is not None, query.name


async def test_a_fresh_database_gets_all_and_a_migrated_one_none(cluster: Cluster) -> None:
    name = await cluster.create("template0")
    database = Database()
    await database.open(cluster.connect_args(name))
    try:
        async with database.pool.acquire() as connection:
            assert [migration.name for migration in await pending(connection)] == [m.name for m in migrations()]
            assert await migrate(connection) == [migration.name for migration in migrations()]
            assert await pending(connection) == []
            assert await migrate(connection) == []
    finally:
        await database.close()
        await cluster.drop(name)


async def test_processes_that_start_at_once_migrate_once(cluster: Cluster) -> None:
    name = await cluster.create("template0")
    database = Database()
    await database.open(cluster.connect_args(name))

    async def one() -> list[str]:
        async with database.pool.acquire() as connection:
            return await migrate(connection)

    try:
        applied = await asyncio.gather(*(one() for _ in range(8)))
        assert max(applied, key=len) == [migration.name for migration in migrations()]
        assert sum(bool(names) for names in applied) == 1
    finally:
        await database.close()
        await cluster.drop(name)


async def test_a_changed_or_unknown_migration_is_refused(database: Database) -> None:
    async with database.pool.acquire() as connection:
        await connection.execute("UPDATE parley_migrations SET sha256 = 'x' WHERE name = $1", migrations()[0].name)
        with pytest.raises(MigrationError, match="was changed after it was applied"):
            await migrate(connection)
        await connection.execute("DELETE FROM parley_migrations")
        await connection.execute("INSERT INTO parley_migrations VALUES ('9999_future', 'x')")
        with pytest.raises(MigrationError, match="9999_future"):
            await pending(connection)
