"""Places to open databases at, for tests that want a pool of their own size or several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, cast

import pytest

from storage.pool import Database
from tests.storage.scene import Scene
from tests.support.database import Cluster, kinds

Open = Callable[..., Any]

#: All that a test may have written to, whatever tables there are.
_EMPTY: Final = """
DO $$ BEGIN
  EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(relname), ', ')
             FROM pg_class
            WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace AND relname <> 'parley_migrations');
END $$
"""


Lend = Callable[[str], Any]


@pytest.fixture(scope="session")
def kept(clusters: Callable[[str], Cluster]) -> Iterator[dict[str, tuple[Cluster, str]]]:
    """A database on each cluster for all tests that leave its schema alone: emptying one is cheaper than making it."""
    databases: dict[str, tuple[Cluster, str]] = {}
    yield databases
    for cluster, name in databases.values():
        asyncio.run(cluster.drop(name))


@pytest.fixture
async def lend(
    kept: dict[str, tuple[Cluster, str]], clusters: Callable[[str], Cluster]
) -> AsyncIterator[Callable[[str], Any]]:
    """`await lend(kind)`: a scene on that cluster's kept database, which is emptied afterwards."""
    database = Database()

    async def lend_(kind: str) -> Scene:
        if kind not in kept:
            kept[kind] = (clusters(kind), await clusters(kind).create())
        cluster, name = kept[kind]
        await database.open(cluster.connect_args(name))
        return Scene(database)

    yield lend_
    async with database.pool.acquire() as connection:
        await connection.execute(_EMPTY)
    await database.close()


@pytest.fixture
async def scene(lend: Lend) -> Scene:
    """An empty database on the embedded PostgreSQL."""
    return cast("Scene", await lend("embedded"))


@pytest.fixture(params=kinds())
async def any_scene(request: pytest.FixtureRequest, lend: Lend) -> Scene:
    """An empty database on each PostgreSQL at hand in turn."""
    return cast("Scene", await lend(request.param))


async def _opener(cluster: Cluster) -> AsyncIterator[Open]:
    name = await cluster.create()
    opened: list[Database] = []

    async def open_(**options: Any) -> Scene:
        database = Database(**options)
        await database.open(cluster.connect_args(name))
        opened.append(database)
        return Scene(database)

    yield open_
    for database in opened:
        await database.close()
    await cluster.drop(name)


@pytest.fixture(params=kinds())
async def any_opener(request: pytest.FixtureRequest, clusters: Callable[[str], Cluster]) -> AsyncIterator[Open]:
    """`await any_opener(max_size=64)`: a scene on a pool of its own; all of one test are on the same database."""
    async for opener in _opener(clusters(request.param)):
        yield opener


@pytest.fixture
async def opener(cluster: Cluster) -> AsyncIterator[Open]:
    """The same on the embedded PostgreSQL only."""
    async for opener in _opener(cluster):
        yield opener
