"""Migrations: append-only, whole, and checked against a fresh database."""

from __future__ import annotations

import asyncio

import pytest

from storage.ids import new_id
from storage.migrations import MigrationError, migrate, migrations, pending
from storage.pool import Database
from storage.queries import queries
from tests.storage.scene import Scene
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


async def test_turns_that_were_under_way_go_on_after_the_migration_that_gives_them_their_step(cluster: Cluster) -> None:
    name = await cluster.create("template0")
    database = Database()
    await database.open(cluster.connect_args(name))
    try:
        async with database.pool.acquire() as connection:
            await connection.execute(
                "CREATE TABLE parley_migrations"
                " (name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            )
            first = migrations()[0]
            await connection.execute(first.text)
            await connection.execute("INSERT INTO parley_migrations VALUES ($1, $2)", first.name, first.sha256)
            await connection.execute(_BEFORE_STEPS_MOVED)
            assert await migrate(connection) == [migration.name for migration in migrations()[1:]]
        scene = Scene(database)
        heir = new_id()
        (taken,) = await scene.turns.claim(heir, [], 10)
        assert (taken.turn_id.int, taken.step, taken.message_id.int, taken.state) == (2, 2, 22, "tools")
        assert (taken.worker_id, taken.attempt, taken.revision) == (heir, 4, 6)
        assert (taken.content, taken.reasoning, taken.cancel_requested, taken.prompt_tokens) == ("half", "why", True, 7)
        done = await scene.rows("SELECT * FROM turns WHERE finished_at IS NOT NULL")
        assert [(row["turn_id"].int, row["state"], row["step"], row["step_state"]) for row in done] == [
            (1, "failed", 1, "done")
        ]
        await scene.end(taken)
        await scene.audit()
    finally:
        await database.close()
        await cluster.drop(name)


_BEFORE_STEPS_MOVED = """
CREATE FUNCTION id(integer) RETURNS uuid IMMUTABLE LANGUAGE sql RETURN lpad(to_hex($1), 32, '0')::uuid;
INSERT INTO sessions VALUES (id(9), 'ada', 'e', 5, NULL, NULL, 'coder', id(2), 0, 2, now(), now());
INSERT INTO events SELECT id(9), n, CASE WHEN n IN (1, 4) THEN 'message_created' ELSE 'task_started' END, now(), '{}'
  FROM generate_series(1, 5) n;
INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, created_at)
VALUES (id(10), id(9), 1, id(1), 'user', 'one', now()), (id(20), id(9), 4, id(2), 'user', 'two', now());
INSERT INTO commands VALUES (id(9), 'one', '', 1, 'accepted', id(10), id(1), NULL, 'ada', now()),
                            (id(9), 'two', '', 4, 'accepted', id(20), id(2), NULL, 'ada', now());
INSERT INTO turns (turn_id, session_id, user_message_id, agent_type, state, cancel_requested, prompt_tokens, created_at,
                   finished_at)
VALUES (id(1), id(9), id(10), 'coder', 'failed', false, 0, now(), now()),
       (id(2), id(9), id(20), 'coder', 'running', true, 7, now(), NULL);
INSERT INTO steps VALUES (id(1), 1, id(9), id(11), 'done', id(8), 1, 1, '', '', now()),
                         (id(2), 1, id(9), id(21), 'done', id(8), 1, 3, '', '', now()),
                         (id(2), 2, id(9), id(22), 'tools', id(8), 3, 5, 'half', 'why', now());
"""


async def test_a_changed_or_unknown_migration_is_refused(database: Database) -> None:
    async with database.pool.acquire() as connection:
        await connection.execute("UPDATE parley_migrations SET sha256 = 'x' WHERE name = $1", migrations()[0].name)
        with pytest.raises(MigrationError, match="was changed after it was applied"):
            await migrate(connection)
        await connection.execute("DELETE FROM parley_migrations")
        await connection.execute("INSERT INTO parley_migrations VALUES ('9999_future', 'x')")
        with pytest.raises(MigrationError, match="9999_future"):
            await pending(connection)
