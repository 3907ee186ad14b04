"""kill -9, at any instant and of anybody: nothing is corrupted, nobody is left behind, the next start works."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import pytest

from storage.embedded import EmbeddedError, EmbeddedPostgres, access, instance
from storage.embedded import server as supervisor
from storage.embedded.child import Child
from tests.storage.embedded.processes import (
    BUSY,
    LOST,
    PATIENCE,
    Owner,
    Watched,
    embedded,
    owner,
    running,
    tree,
    until,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watches processes as Linux does")


async def kept(server: EmbeddedPostgres) -> set[int]:
    connection = await asyncpg.connect(server.dsn())
    numbers = {row["number"] for row in await connection.fetch("SELECT number FROM kept")}
    await connection.close()
    return numbers


async def written(writer: Owner, count: int) -> set[int]:
    """The numbers that it says are committed: `count` of them, or more."""
    return {int(await writer.line()) for _ in range(count)}


def kill(server: EmbeddedPostgres) -> None:
    assert server._child is not None
    server._child.send(signal.SIGKILL)


@pytest.mark.feature("S16")
@pytest.mark.parametrize("victims", ["owner", "all at once", "server, then owner"])
async def test_what_was_committed_before_the_kill_is_there_after_it(data_dir: Path, victims: str) -> None:
    async with owner(data_dir, "write") as writer:
        await writer.answer()
        numbers = await written(writer, 20)
        with Watched(tree(writer.process.pid)) as everybody, Watched([writer.postmaster]) as server:
            assert len(everybody.pids) > 4
            if victims == "all at once":
                everybody.kill()
            elif victims == "server, then owner":
                server.kill()
            writer.process.kill()
            await writer.process.wait()
            numbers |= {int(line) for line in await writer.rest()}
            # Nobody told them to: they leave with their parent.
            await everybody.gone()
    async with running(server_again := embedded(data_dir)):
        assert numbers <= await kept(server_again)


async def test_a_new_owner_need_not_wait_for_the_old_ones_server_to_be_gone(data_dir: Path) -> None:
    for _ in range(3):
        async with owner(data_dir, "write") as writer:
            await writer.answer()
            numbers = await written(writer, 3)
            with Watched(tree(writer.process.pid)) as everybody:
                writer.process.kill()
                await writer.process.wait()
                async with running(server := embedded(data_dir)):
                    assert numbers <= await kept(server)
                await everybody.gone()


@pytest.mark.parametrize(
    "sign", ["pgdata.new", "pgdata.new/base", "pgdata.new/postmaster.pid", "pgdata", "pgdata/postmaster.pid"]
)
async def test_a_kill_while_the_database_is_being_made(tmp_path: Path, sign: str) -> None:
    data_dir = tmp_path / "data"
    async with owner(data_dir) as maker:
        await until((data_dir / sign).exists)
        with Watched(tree(maker.process.pid)) as everybody:
            maker.process.kill()
            await maker.process.wait()
            async with running(server := embedded(data_dir)):
                connection = await asyncpg.connect(server.dsn())
                assert await connection.fetchval("SELECT 1") == 1
                await connection.close()
            await everybody.gone()
    assert not (data_dir / "pgdata.new").exists()


async def test_a_server_that_is_killed_comes_back_by_itself(data_dir: Path) -> None:
    server = embedded(data_dir)
    async with running(server) as postmaster:
        address = server.dsn()
        connection = await asyncpg.connect(address)
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (number bigint PRIMARY KEY)")
        await connection.execute("INSERT INTO kept VALUES (-1) ON CONFLICT DO NOTHING")
        with Watched(tree(postmaster)) as former:
            looping = asyncio.create_task(connection.execute(BUSY))
            await asyncio.sleep(0)
            os.kill(postmaster, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE):
                await server.reached("restarting")
                await server.reached("running")
            await former.gone()
        with pytest.raises(LOST):
            await looping
        await connection.close()
        assert server.dsn() == address
        assert -1 in await kept(server)


async def test_a_server_that_is_killed_while_it_is_made_ready_comes_back_too(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = embedded(data_dir)
    connect = access._connect
    killed: list[int] = []

    async def connect_and_kill(sockets: Path, database: str, role: str) -> "asyncpg.Connection[asyncpg.Record]":
        connection = await connect(sockets, database, role)
        if not killed:
            killed.append(int(server._places.pidfile.read_text().split()[0]))
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            os.kill(killed[0], signal.SIGKILL)
            await lost.wait()
        return connection

    async with running(server) as postmaster:
        monkeypatch.setattr(access, "_connect", connect_and_kill)
        os.kill(postmaster, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            await server.reached("restarting")
            await server.reached("running")
        assert killed
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()


async def test_what_nobody_foresaw_at_a_restart_is_tried_again(
    own_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = EmbeddedPostgres(own_data_dir, settings={"fsync": "off"}, restart_pauses=(0.0, 0.01))
    launch, mistakes = instance.launch, [LookupError("not foreseen")]

    async def launch_badly(plan: instance.Plan) -> Child:
        if mistakes:
            raise mistakes.pop()
        return await launch(plan)

    async with running(server) as postmaster:
        monkeypatch.setattr(supervisor, "launch", launch_badly)
        os.kill(postmaster, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            await server.reached("restarting")
            await server.reached("running")
    assert not mistakes


async def test_a_backend_that_is_killed_is_the_servers_own_business(data_dir: Path) -> None:
    async with running(server := embedded(data_dir)):
        connection = await asyncpg.connect(server.dsn())
        os.kill(connection.get_server_pid(), signal.SIGKILL)
        with pytest.raises(LOST):
            await connection.execute("SELECT pg_sleep(600)")
        await connection.close()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    connection = await asyncpg.connect(server.dsn())
                    break
                except LOST:
                    await asyncio.sleep(0)
        await connection.close()
        assert server.state == "running"


async def test_a_server_that_cannot_come_back_is_given_up_with_a_reason(own_data_dir: Path) -> None:
    server = EmbeddedPostgres(own_data_dir, settings={"fsync": "off"}, restart_pauses=(0.0, 0.01))
    reasons: list[EmbeddedError] = []
    server.on_exit = reasons.append
    async with running(server) as postmaster:
        lost = (own_data_dir / "pgdata/global/pg_control").rename(own_data_dir / "pg_control")
        os.kill(postmaster, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            await server.reached("failed")
        assert reasons == [server.failure]
        assert "could not find the database system" in str(server.failure)
    assert server.state == "stopped"
    # The directory is free for whoever mends it.
    lost.rename(own_data_dir / "pgdata/global/pg_control")
    async with running(embedded(own_data_dir)):
        pass


async def test_a_server_that_dies_again_and_again_is_given_up(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, settings={"fsync": "off"}, restart_pauses=(0.0, 0.0))
    async with running(server):
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                kill(server)
                await server.reached("restarting")
                await server.reached("running")
            kill(server)
            await server.reached("failed")
        assert "died (signal 9)" in str(server.failure)


async def test_stop_in_the_middle_of_a_restart(data_dir: Path) -> None:
    server = embedded(data_dir)
    async with running(server) as postmaster:
        os.kill(postmaster, signal.SIGKILL)
        await server.reached("restarting")
        await server.stop()
        assert server.state == "stopped"
    assert not (data_dir / "pgdata/postmaster.pid").exists()


async def put(server: EmbeddedPostgres, number: int) -> None:
    connection = await asyncpg.connect(server.dsn())
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (number bigint PRIMARY KEY)")
    await connection.execute("INSERT INTO kept VALUES ($1) ON CONFLICT DO NOTHING", number)
    await connection.close()


@pytest.mark.parametrize("whole", [True, False], ids=["all of it", "its first process"])
async def test_a_server_that_was_suspended_is_woken_and_stops_in_good_order(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr("storage.embedded.instance._ORDERLY", 0.1)
    monkeypatch.setattr("storage.embedded.instance._SUSPENDED", PATIENCE)
    server = embedded(data_dir)
    async with running(server) as postmaster:
        await put(server, -2)
        with Watched(tree(postmaster) if whole else [postmaster]) as everybody:
            logged = (data_dir / "postgres.log").stat().st_size
            everybody.kill(signal.SIGSTOP)
            await server.stop()
            await everybody.gone()
    assert b"database system is shut down" in (data_dir / "postgres.log").read_bytes()[logged:]
    async with running(server):
        assert -2 in await kept(server)


async def test_a_server_that_does_not_listen_is_killed_in_the_end(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("_ORDERLY", "_SUSPENDED", "_IMMEDIATE"):
        monkeypatch.setattr(f"storage.embedded.instance.{patience}", 0.1)
    # As if it were not just suspended, but stuck in the kernel or held by a debugger.
    monkeypatch.setattr("storage.embedded.instance._resume", lambda plan: None)
    server = embedded(data_dir)
    async with running(server) as postmaster:
        await put(server, -3)
        with Watched(tree(postmaster)) as everybody:
            logged = (data_dir / "postgres.log").stat().st_size
            everybody.kill(signal.SIGSTOP)
            await server.stop()
            await everybody.gone()
    assert b"database system is shut down" not in (data_dir / "postgres.log").read_bytes()[logged:]
    async with running(server):
        assert -3 in await kept(server)


def test_a_stop_is_over_before_a_process_manager_loses_its_patience() -> None:
    steps = (instance._ORDERLY, instance._SUSPENDED, instance._IMMEDIATE, instance._KILLED)
    # Half of what Kubernetes grants by default: streams, turns and the pool end before it.
    assert sum(steps) <= 15
