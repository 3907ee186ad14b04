"""Places to open databases at, for tests that want a pool of their own size or several."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from storage.pool import Database
from tests.storage.scene import Scene
from tests.support.database import Cluster, kinds

Open = Callable[..., Any]


@pytest.fixture
async def scene(database: Database) -> Scene:
    """The embedded PostgreSQL."""
    return Scene(database)


@pytest.fixture
async def any_scene(any_database: Database) -> Scene:
    """Each PostgreSQL at hand in turn."""
    return Scene(any_database)


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
