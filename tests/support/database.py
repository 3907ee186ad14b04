"""A real PostgreSQL for tests: one cluster a run, one database a test, made from a migrated template.

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


class Cluster:
    """A running PostgreSQL: databases are made on it and dropped again."""

    def __init__(self, name: str, connect_args: Callable[[str], dict[str, Any]], dsn: Callable[[str], str]) -> None:
        self.name = name
        self.connect_args = connect_args
        self.dsn = dsn
        self._admin = "postgres"

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
        finally:
            await connection.close()

    async def create(self, template: str = TEMPLATE) -> str:
        """A new database; returns its name."""
        name = f"parley_test_{uuid4().hex[:12]}"
        await self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    async def drop(self, name: str) -> None:
        """Away with it, whoever is still connected."""
        await self._run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


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
