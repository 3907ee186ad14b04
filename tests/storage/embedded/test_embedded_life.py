"""Starting, using and stopping, as everybody does it every day."""

# ruff: noqa: ASYNC240 - a test serves nobody else meanwhile

import asyncio
import contextlib
import os
import re
import shutil
import stat
import threading
from pathlib import Path

import asyncpg
import pytest

from storage.embedded import EmbeddedError, EmbeddedPostgres
from storage.embedded.server import _MOVES
from tests.storage.embedded.processes import LOST, PATIENCE, Watched, embedded, running, tree, until, users_of

OTHER_VERSIONS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def state(server: EmbeddedPostgres) -> str:
    """The state, of which the type checker must not believe that it stays."""
    return server.state


@pytest.mark.feature("S16")
async def test_what_is_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    async with running(server := embedded(tmp_path / "new/data")):
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("CREATE TABLE kept AS SELECT 'Grüße 🎈' AS words")
        await connection.close()
    async with running(server := embedded(tmp_path / "new/data")):
        connection = await asyncpg.connect(**server.connect_args())
        assert await connection.fetchval("SELECT words FROM kept") == "Grüße 🎈"
        await connection.close()


async def test_the_cluster_is_utf8_with_checksums_and_sorts_by_code_point(data_dir: Path) -> None:
    async with running(server := embedded(data_dir)):
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert await connection.fetchval("SHOW data_checksums") == "on"
        assert await connection.fetchval("SHOW synchronous_commit") == "on"
        assert await connection.fetchval("SELECT upper('ä') = 'Ä' AND 'Z' < 'a'")
        assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        locale = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = current_database()"
        assert await connection.fetchval(locale) == "bC.UTF-8"
        await connection.close()


def test_nothing_is_left_of_the_loop_it_ran_in(data_dir: Path) -> None:
    async def live() -> list[int]:
        server = embedded(data_dir)
        async with running(server) as postmaster:
            return tree(postmaster)

    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    pids = asyncio.run(live())
    assert len(pids) > 3
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    # Fewer is nothing to complain about: what an earlier test has left may go at any time.
    assert set(threading.enumerate()) <= threads
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert not list((data_dir / "run").iterdir())


async def test_start_and_stop_are_idempotent_and_may_alternate(data_dir: Path) -> None:
    server = embedded(data_dir)
    await server.stop()
    assert state(server) == "stopped"
    for _ in range(2):
        await asyncio.gather(server.start(), server.start())
        assert state(server) == "running"
        await asyncio.gather(server.stop(), server.stop())
        assert state(server) == "stopped"
        with pytest.raises(EmbeddedError, match="not started"):
            server.dsn()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    server = embedded(tmp_path / "data")
    start = asyncio.create_task(server.start())
    await until((tmp_path / "data/pgdata.new/base").exists)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert server.state == "stopped"
    async with running(server):
        assert not (tmp_path / "data/pgdata.new").exists()


async def test_nobody_else_can_reach_it(data_dir: Path) -> None:
    async with running(server := embedded(data_dir)) as postmaster:
        sockets = Path(server.connect_args()["host"])
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert stat.S_IMODE((data_dir / "pgdata").stat().st_mode) == 0o700
        opened = set()
        for pid in tree(postmaster):
            with contextlib.suppress(OSError):  # a worker that has done its work; of one that is going, EACCES
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    opened |= set(re.findall(r"socket:\[(\d+)]", os.readlink(link)))
        # There is no tcp6 where IPv6 is off.
        tables = [path.read_text().splitlines()[1:] for path in Path("/proc/net").glob("tcp*")]
        tcp = {line.split()[9] for table in tables for line in table}
        assert opened
        assert not opened & tcp
        # Neither another user, by `peer`, nor another role.
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(**{**server.connect_args(), "user": "somebody"})


@pytest.mark.parametrize("name", ["listen_addresses", "Port", "unix_socket_directories", "hba_file"])
def test_settings_cannot_open_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        EmbeddedPostgres(tmp_path, settings={name: "*"})


async def test_settings_reach_the_server(data_dir: Path) -> None:
    async with running(server := embedded(data_dir, max_connections="7", application_name='it\'s a "test"')):
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SHOW max_connections") == "7"
        assert await connection.fetchval("SHOW application_name") == 'it\'s a "test"'
        await connection.close()


async def test_a_wrong_setting_is_told_with_the_servers_own_words(data_dir: Path) -> None:
    server = embedded(data_dir, max_connections="many")
    with pytest.raises(EmbeddedError, match='invalid value for parameter "max_connections": "many"'):
        await server.start()
    assert state(server) == "failed"
    await server.stop()
    assert state(server) == "stopped"


async def test_databases_come_and_go(data_dir: Path) -> None:
    name = "odd \"name's/%ü"
    async with running(server := embedded(data_dir)):
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("CREATE TABLE template AS SELECT 1 AS one")
        await connection.close()
        await server.create_database(name, template="parley")
        connection = await asyncpg.connect(server.dsn(name))
        assert await connection.fetchval("SELECT one FROM template") == 1
        await server.drop_database(name)
        with pytest.raises(LOST):
            await connection.fetchval("SELECT 1")
        await connection.close()
        await server.drop_database(name)
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("DROP TABLE template")
        await connection.close()


async def test_a_connection_in_use_does_not_hold_up_the_end(data_dir: Path) -> None:
    async with running(server := embedded(data_dir)) as postmaster:
        connection = await asyncpg.connect(server.dsn())
        query = asyncio.create_task(connection.execute("SELECT pg_sleep(600)"))
        with Watched(tree(postmaster)) as watched:
            await server.stop()
            assert not [pid for pid in watched.pids if Path(f"/proc/{pid}").exists()]
        with pytest.raises(LOST):
            await query
        await connection.close()


async def test_the_log_stays_bounded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = data_dir / "postgres.log"
    monkeypatch.setattr("storage.embedded.server._LOG_CHECK", 0.01)
    monkeypatch.setattr("storage.embedded.logfile.trim.__defaults__", (20_000,))
    async with running(server := embedded(data_dir, log_statement="all")):
        connection = await asyncpg.connect(server.dsn())
        former = data_dir / "postgres.log.1"
        former.write_text("")
        async with asyncio.timeout(PATIENCE):
            while not former.stat().st_size:
                await connection.execute(f"SELECT '{'x' * 5000}'")
        await connection.execute("SELECT 'the server still writes here'")
        await connection.close()
    assert "the server still writes here" in log.read_text()
    assert log.stat().st_size < 40_000


@pytest.mark.parametrize("binaries", OTHER_VERSIONS, ids=lambda path: path.parent.name)
async def test_other_versions_serve_too_but_never_each_others_data(
    binaries: Path, tmp_path: Path, data_dir: Path
) -> None:
    def server(path: Path) -> EmbeddedPostgres:
        return EmbeddedPostgres(path, binaries=binaries, settings={"fsync": "off"})

    async with running(old := server(tmp_path / "old")):
        connection = await asyncpg.connect(old.dsn())
        assert await connection.fetchval("SELECT upper('ä') = 'Ä'")
        assert str(connection.get_server_version().major) == binaries.parent.name
        await connection.close()
    with pytest.raises(EmbeddedError, match=f"made by PostgreSQL {binaries.parent.name}, this is version"):
        await embedded(tmp_path / "old").start()
    with pytest.raises(EmbeddedError, match=f"this is version {binaries.parent.name}: dump it"):
        await server(data_dir).start()


async def test_programs_that_are_missing_or_something_else_are_named(tmp_path: Path, public_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match=f"no PostgreSQL in {public_dir}"):
        await EmbeddedPostgres(tmp_path / "data", binaries=public_dir).start()
    shutil.copy("/bin/echo", public_dir / "postgres")
    with pytest.raises(EmbeddedError, match="is no PostgreSQL server"):
        await EmbeddedPostgres(tmp_path / "data", binaries=public_dir).start()


async def test_a_directory_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pgdata").mkdir()
    if os.geteuid() == 0:
        shutil.chown(tmp_path / "pgdata", "nobody")
    (tmp_path / "pgdata/letters.txt").write_text("dear")
    with pytest.raises(EmbeddedError, match=f"{tmp_path}/pgdata holds something else"):
        await embedded(tmp_path).start()
    assert (tmp_path / "pgdata/letters.txt").read_text() == "dear"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
async def test_roots_server_runs_as_an_ordinary_user(data_dir: Path) -> None:
    async with running(embedded(data_dir)) as postmaster:
        assert users_of(postmaster) <= {"postgres", "nobody"}
        status = Path(f"/proc/{postmaster}/status").read_text()
        assert re.search(r"^Groups:\s*$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\s*0+$", status, re.MULTILINE)


def test_every_state_can_be_left_and_reached() -> None:
    assert set().union(*_MOVES.values()) == set(_MOVES)
    assert all(_MOVES.values())
