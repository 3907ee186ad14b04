"""What every measurement gets: a PostgreSQL as it is in operation, and a report that is printed at the end."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from typing import Final

import asyncpg
import pytest

from storage.embedded import EmbeddedPostgres
from storage.pool import Database
from tests.benchmarks.harness import Report
from tests.support.database import Cluster, Keeper

_REPORT: Final = pytest.StashKey[Report]()


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Report:
    """Where figures go."""
    return request.config.stash.setdefault(_REPORT, Report())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of all figures."""
    report = config.stash.get(_REPORT, None)
    if report is not None and report.figures:
        terminalreporter.section("figures")
        terminalreporter.write_line(report.text())


@pytest.fixture(scope="session")
def durable_cluster() -> Iterator[Cluster]:
    """A PostgreSQL with the settings of operation: what it has acknowledged survives a loss of power."""
    with ExitStack() as stack:
        keeper = Keeper()
        stack.callback(keeper.close)
        # Not pytest's temporary directory: its mode keeps the user away under which root runs PostgreSQL.
        home = Path(tempfile.mkdtemp(prefix="parley-bench-"))
        stack.callback(rmtree, home, ignore_errors=True)
        home.chmod(0o755)
        postgres = EmbeddedPostgres(home / "postgres")
        keeper.run(postgres.start())
        stack.callback(lambda: keeper.run(postgres.stop()))
        cluster = Cluster("durable", postgres.connect_args, postgres.dsn)
        keeper.run(cluster.make_template())
        yield cluster


@pytest.fixture
async def bench_url(durable_cluster: Cluster, report: Report) -> AsyncIterator[str]:
    """The address of a migrated, empty database."""
    name = await durable_cluster.create()
    connection = await asyncpg.connect(**durable_cluster.connect_args(name))
    version = await connection.fetchval("SHOW server_version")
    await connection.close()
    note = f"PostgreSQL {version}, embedded, fsync and synchronous_commit on"
    if note not in report.notes:
        report.notes.append(note)
    yield durable_cluster.dsn(name)
    await durable_cluster.drop(name)


@pytest.fixture
async def bench_database(bench_url: str) -> AsyncIterator[Database]:
    """A pool on it, of the size that the server has."""
    database = Database()
    await database.open(bench_url)
    yield database
    await database.close()
