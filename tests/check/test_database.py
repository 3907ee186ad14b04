"""The database: one's own by its URL, and the embedded one as far as it shows without being started."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from storage.embedded import EmbeddedPostgres
from storage.migrations import migrations
from storage.pool import Database
from tests.check.support import context, looked, said
from tests.support.database import Cluster

ADVICE = "turn it on, unless losing what was acknowledged is no loss"
#: What the tests' own cluster is run without, for speed.
UNSAFE = [
    f"warning: {setting} is off: a power cut may destroy the database -> {ADVICE}"
    for setting in ("fsync", "full_page_writes")
]


async def about(url: str, patience: float = 8, pool_size: int | None = None) -> list[str]:
    """What is said of the database at the URL, but for what all tests' databases are."""
    here = context(database__url=url, database__pool_size=pool_size, patience=patience)
    findings = said(await looked("database", here))
    return [finding for finding in findings if finding not in UNSAFE]


async def change(cluster: Cluster, url: str, statement: str) -> None:
    """Do something as the cluster's administrator."""
    name = url.partition("?")[0].rpartition("/")[2]
    connection = await asyncpg.connect(**{**cluster.connect_args(name), "user": "postgres"})
    try:
        await connection.execute(statement.replace("THIS", name))
    finally:
        await connection.close()


class Empty(NamedTuple):
    url: str
    name: str


@pytest.fixture
async def empty(cluster: Cluster) -> AsyncIterator[Empty]:
    """A database without our tables."""
    name = await cluster.create("template1")
    yield Empty(cluster.dsn(name), name)
    await cluster.drop(name)


async def test_a_database_that_is_ready(database_url: str) -> None:
    findings = await looked("database", context(database__url=database_url))
    answers, tables = said(findings, "ok")
    assert answers.startswith("ok: PostgreSQL 18.")
    assert ", as parley" in answers
    assert tables.startswith("ok: its tables are those of this version")
    assert sorted(said(findings)) == sorted(UNSAFE)


async def test_pending_migrations_are_told_and_not_run(cluster: Cluster, empty: Empty) -> None:
    (finding,) = await about(empty.url)
    names = ", ".join(migration.name for migration in migrations())
    assert finding == (
        f"note: {len(migrations())} migrations are pending: {names}"
        " -> `parley serve` applies them when it starts, `parley migrate` beforehand"
    )
    connection = await asyncpg.connect(empty.url)
    assert await connection.fetchval("SELECT to_regclass('parley_migrations')") is None
    await connection.close()


async def test_a_user_who_may_not_make_tables(cluster: Cluster, empty: Empty) -> None:
    await change(cluster, empty.url, "ALTER DATABASE THIS OWNER TO postgres")
    (finding,) = await about(empty.url)
    await change(cluster, empty.url, "ALTER DATABASE THIS OWNER TO parley")
    assert finding.startswith("error: tables are missing, and parley may not make them -> run `parley migrate` as")
    assert "GRANT CREATE ON SCHEMA public TO parley" in finding


async def test_a_database_of_another_version(cluster: Cluster, database_url: str) -> None:
    await change(cluster, database_url, "INSERT INTO parley_migrations (name, sha256) VALUES ('9999_future', '')")
    (finding,) = await about(database_url)
    assert finding.startswith("error: the database has migration 9999_future, which this version does not know")


async def test_tables_of_somebody_else(cluster: Cluster, database_url: str) -> None:
    await change(cluster, database_url, "ALTER TABLE parley_migrations OWNER TO postgres")
    (finding,) = await about(database_url)
    assert finding.startswith("error: the user parley may not use its tables (permission denied")


async def test_settings_that_lose_what_was_acknowledged(database_url: str) -> None:
    (finding,) = await about(f"{database_url}&synchronous_commit=off")
    assert finding.startswith("warning: synchronous_commit is off: a crash takes back what was acknowledged")


async def test_a_database_that_only_reads(database_url: str) -> None:
    (finding,) = await about(f"{database_url}&default_transaction_read_only=on")
    assert finding.startswith("error: it is read-only -> name the primary")


async def test_connections_are_counted(cluster: Cluster, database_url: str, tmp_path: Path) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    await change(cluster, database_url, "ALTER DATABASE THIS CONNECTION LIMIT 20")
    assert await about(database_url) == []
    (finding,) = await about(database_url, pool_size=21)
    assert finding.startswith("error: database.pool_size is 21, and parley may have 20 connections -> lower it")
    others = [await asyncpg.connect(**cluster.connect_args(name)) for _ in range(5)]
    try:
        (finding,) = await about(database_url)
        assert finding.startswith("warning: database.pool_size is 16, and others have taken ")
        # Those of a Parley are the ones that are configured.
        database = Database(max_size=2)
        await database.open(cluster.connect_args(name))
        assert await about(database_url) == [finding]
        await database.close()
    finally:
        for connection in others:
            await connection.close()


@pytest.mark.parametrize(
    ("change_url", "told"),
    [
        (lambda url: url.replace("/parley_test_", "/no_"), ['database "no_', "create it (createdb)"]),
        (lambda url: url.replace("parley@", "nobody@"), ["it refuses us: ", "pg_hba.conf"]),
        (lambda url: url.replace("port=5432", "port=5433"), ["nobody answers (", "is the address right?"]),
        (lambda _: "postgresql://ada:s3cr/et@db/x", ["the URL cannot be understood", "written %2F"]),
        (lambda _: "postgresql://nowhere.invalid/x", ["nobody answers (", "does it run"]),
    ],
)
async def test_a_database_that_cannot_be_reached(change_url: Any, told: list[str], database_url: str) -> None:
    (finding,) = await about(change_url(database_url))
    assert finding.startswith("error: database.url (from the command line): ")
    assert [part for part in told if part not in finding] == []
    assert "s3cr" not in finding


async def test_one_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (finding,) = await about(
            f"postgresql://ada@127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable", patience=0.2
        )
    assert "no answer within 0.2 s" in finding


# --- the embedded one


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def contents(directory: Path) -> list[tuple[Path, int]]:
    """All that is in there, each with the time when it was changed."""
    return sorted((path, path.stat().st_mtime_ns) for path in directory.rglob("*"))


async def own(data_dir: Path) -> list[str]:
    """What is said of a data directory."""
    return said(await looked("database", context(database__data_dir=str(data_dir))), "ok", "note", "warning", "error")


async def test_a_directory_that_is_not_there_is_not_made(data_dir: Path) -> None:
    findings = await own(data_dir / "deep")
    assert any(finding.startswith(f"ok: {data_dir / 'deep'} can be made, ") for finding in findings)
    assert any("the first start makes one" in finding for finding in findings)
    assert any("PostgreSQL" in finding for finding in findings)
    assert contents(data_dir.parent) == []


async def test_a_running_one_is_looked_into_and_a_stopped_one_is_left_alone(data_dir: Path) -> None:
    postgres = EmbeddedPostgres(data_dir, settings={"fsync": "off", "full_page_writes": "off"})
    await postgres.start()
    try:
        running = await own(data_dir)
        assert any(finding.startswith(f"note: {data_dir} is in use by process {os.getpid()}") for finding in running)
        assert any("migrations are pending" in finding for finding in running)
        assert [finding for finding in running if finding.startswith(("error", "warning"))] == UNSAFE
    finally:
        await postgres.stop()
    before = contents(data_dir)
    stopped = await own(data_dir)
    assert any(finding.startswith(f"ok: {data_dir} can be used") for finding in stopped)
    assert not any("in use" in finding or "migrations" in finding for finding in stopped)
    assert contents(data_dir) == before
    (data_dir / "pgdata" / "PG_VERSION").write_text("12\n")
    (error,) = [finding for finding in await own(data_dir) if finding.startswith("error: ")]
    assert "was made by PostgreSQL 12, this is PostgreSQL 18 -> dump it with version 12" in error


async def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    os.mknod(data_dir)
    (finding,) = await own(data_dir / "deep")
    assert finding.startswith("error: ")
    (finding,) = await own(Path("~nobody.at.all/x"))
    assert finding.startswith("note: not looked at, as [database] has mistakes")
    (finding,) = await own(data_dir)
    assert finding == f"error: {data_dir} is no directory -> move it away, or choose another data directory"


async def test_a_directory_of_somebody_else(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, and tests may be run by root.
    monkeypatch.setattr(os, "access", lambda *_arguments, **_options: False)
    assert (
        f"error: {data_dir} cannot be written by this user -> mend its owner, or choose another --data-dir"
        in await own(data_dir)
    )


@pytest.mark.parametrize(
    ("free", "told"), [(1 << 20, "error: the disk"), (1 << 30, "warning: the disk"), (1 << 40, None)]
)
async def test_disk_space(free: int, told: str | None, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(1 << 50, 0, free))
    findings = [finding for finding in await own(data_dir) if "the disk that holds" in finding]
    assert [finding.startswith(told or "") for finding in findings] == ([True] if told else [])


async def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("server.check.database.default_data_dir", nowhere)
    (finding,) = said(await looked("database", context()))
    assert finding.startswith("error: this user has no home for a database -> name a place with --data-dir")
