"""A real PostgreSQL for tests: one cluster a process, one database a test, made from a migrated template or emptied.

`database` is on the embedded server; `any_database` runs a test on that one and on every other PostgreSQL >= 15 at hand
(programs of the system, or `PARLEY_TEST_DATABASE_URL`, whose user must be allowed to create databases).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import asyncpg
import pytest

from storage.embedded import EmbeddedPostgres
from storage.migrations import migrate
from storage.pool import Database

TEMPLATE: Final = "parley_test_template"

#: Tests kill processes, not machines: what the operating system holds survives, so nothing needs to reach the disk.
FAST: Final = {"fsync": "off", "full_page_writes": "off", "max_connections": "100"}


#: How long emptying a database may take before it is dropped instead, in seconds.
_PATIENCE: Final = 10.0
#: How often to look whether somebody else has left who has just said good-bye.
_GLANCES: Final = 20
#: What tests may have changed about a database beside its rows: tables, indexes, migrations, settings, its sheer size.
_SHAPE: Final = """
SELECT md5(string_agg(thing, E'\\n' ORDER BY thing))
  FROM (SELECT indexdef AS thing FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL
        SELECT concat_ws(' ', c.relname, c.reloptions::text, a.attname, a.atttypid, a.attnotnull)
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
        UNION ALL
        SELECT concat_ws(' ', conname, pg_get_constraintdef(oid))
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL
        SELECT concat_ws(' ', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT m::text FROM parley_migrations m
        UNION ALL
        SELECT setconfig::text FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
         WHERE d.datname = current_database()
        UNION ALL
        SELECT 'large' WHERE pg_database_size(current_database()) > 32 << 20) things
"""
_ALONE: Final = """
SELECT NOT EXISTS (SELECT FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend')
"""
_USED: Final = """
SELECT relname FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'parley_migrations'
   AND pg_relation_size(oid) > 0
"""


class Cluster:
    """A running PostgreSQL: databases are made on it and dropped again."""

    def __init__(self, name: str, connect_args: Callable[[str], dict[str, Any]], dsn: Callable[[str], str]) -> None:
        self.name = name
        self.connect_args = connect_args
        self.dsn = dsn
        self._admin = "postgres"
        self._made: set[str] = set()
        self._spare: list[str] = []
        self._shape: str | None = None

    async def _run(self, statement: str, database: str | None = None) -> None:
        connection = await asyncpg.connect(**self.connect_args(database or self._admin))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def make_template(self) -> None:
        """A migrated database to copy."""
        await self._run(f"DROP DATABASE IF EXISTS {TEMPLATE}")
        await self._run(f"CREATE DATABASE {TEMPLATE}")
        connection = await asyncpg.connect(**self.connect_args(TEMPLATE))
        try:
            await migrate(connection)
            self._shape = await connection.fetchval(_SHAPE)
        finally:
            await connection.close()

    async def create(self, template: str = TEMPLATE) -> str:
        """An empty database; returns its name. Copying one costs some hundred times what emptying a used one does."""
        if template == TEMPLATE and self._spare:
            return self._spare.pop()
        name = f"parley_test_{uuid4().hex[:12]}"
        await self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        if template == TEMPLATE:
            self._made.add(name)
        return name

    async def drop(self, name: str) -> None:
        """Away with what is in it, whoever is still connected, and with itself, unless it can be made as it was."""
        if name in self._made and await self._emptied(name):
            self._spare.append(name)
            return
        self._made.discard(name)
        await self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    async def _emptied(self, name: str) -> bool:
        """Whether a database could be made as good as new."""
        try:
            connection = await asyncpg.connect(**self.connect_args(name), timeout=_PATIENCE)
        except (asyncpg.PostgresError, OSError, TimeoutError):
            return False
        try:
            # Somebody who is still connected, and not just about to leave, might use it beside the next test.
            glances = 0
            while not await connection.fetchval(_ALONE):
                glances += 1
                if glances > _GLANCES:
                    return False
                await connection.execute("SELECT pg_sleep(0.01)")
            if await connection.fetchval(_SHAPE) != self._shape:
                return False
            used = [row[0] for row in await connection.fetch(_USED)]
            if used:
                await connection.execute(f"TRUNCATE {', '.join(used)} RESTART IDENTITY CASCADE", timeout=_PATIENCE)
        except (asyncpg.PostgresError, OSError, TimeoutError):
            return False
        finally:
            await connection.close(timeout=_PATIENCE)
        return True


class Keeper:
    """An event loop in a thread of its own: it supervises clusters while the loops of tests come and go."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres keeper", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def installed() -> dict[str, Path]:
    """The PostgreSQL servers that this system has installed, by version."""
    found = {path.parent.parent.name: path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")}
    return {version: path for version, path in sorted(found.items()) if version.isdigit() and int(version) >= 15}


@pytest.fixture(scope="session")
def clusters() -> Iterator[Callable[[str], Cluster]]:
    """Start clusters when they are first asked for."""
    running: dict[str, Cluster] = {}
    with ExitStack() as stack:
        keeper = Keeper()
        stack.callback(keeper.close)
        # Not pytest's temporary directory: its mode keeps the user away under which root runs PostgreSQL.
        home = Path(tempfile.mkdtemp(prefix="parley-test-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        home.chmod(0o755)

        def start(name: str) -> Cluster:
            if name not in running:
                if name == "url":
                    running[name] = _external(os.environ["PARLEY_TEST_DATABASE_URL"])
                else:
                    binaries = None if name == "embedded" else installed()[name]
                    postgres = EmbeddedPostgres(home / name, binaries=binaries, settings=FAST)
                    keeper.run(postgres.start())
                    stack.callback(lambda: keeper.run(postgres.stop()))
                    running[name] = Cluster(name, postgres.connect_args, postgres.dsn)
                keeper.run(running[name].make_template())
            return running[name]

        yield start


def _external(url: str) -> Cluster:
    base, _, rest = url.partition("://")
    place = rest.partition("/")[0]

    def dsn(database: str) -> str:
        return f"{base}://{place}/{database}"

    return Cluster("url", lambda database: {"dsn": dsn(database)}, dsn)


def kinds() -> list[str]:
    """The clusters that `any_database` runs on."""
    return ["embedded", *installed(), *(["url"] if "PARLEY_TEST_DATABASE_URL" in os.environ else [])]


@pytest.fixture(scope="session")
def cluster(clusters: Callable[[str], Cluster]) -> Cluster:
    """The embedded PostgreSQL."""
    return clusters("embedded")


async def _database(cluster: Cluster) -> AsyncIterator[Database]:
    name = await cluster.create()
    database = Database()
    await database.open(cluster.connect_args(name))
    try:
        yield database
    finally:
        await database.close()
        with suppress(asyncpg.PostgresError, OSError):
            await cluster.drop(name)


@pytest.fixture
async def database(cluster: Cluster) -> AsyncIterator[Database]:
    """A migrated, empty database on the embedded PostgreSQL."""
    async for database in _database(cluster):
        yield database


@pytest.fixture(params=kinds())
async def any_database(request: pytest.FixtureRequest, clusters: Callable[[str], Cluster]) -> AsyncIterator[Database]:
    """A migrated, empty database on each PostgreSQL at hand in turn."""
    async for database in _database(clusters(request.param)):
        yield database


@pytest.fixture
async def database_url(cluster: Cluster) -> AsyncIterator[str]:
    """The DSN of a migrated, empty database on the embedded PostgreSQL."""
    name = await cluster.create()
    try:
        yield cluster.dsn(name)
    finally:
        with suppress(asyncpg.PostgresError, OSError):
            await cluster.drop(name)
