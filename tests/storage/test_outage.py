"""The database goes away, in mid-statement too: one error, no half effects, and everything comes back by itself."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import Reply
from storage.embedded import EmbeddedPostgres
from storage.pool import Database, is_outage
from tests.storage.conftest import Open
from tests.storage.scene import PATIENCE, Rival, Scene, rival_scene
from tests.storage.wire import wire_to
from tests.support.database import FAST, TEMPLATE, Cluster

T = TypeVar("T")


async def until_it_works(action: Callable[[], Awaitable[T]]) -> T:
    """As clients do: what was refused because the database is away is sent again, as it is."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await action()
            except ParleyError as error:
                if (error.code, error.retry_after) != (ErrorCode.UNAVAILABLE, 1.0):
                    raise
                await asyncio.sleep(0)


async def cut_all(rival: Rival) -> int:
    """Every other connection to this database is ended by an administrator."""
    return len(
        await rival.connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
    )


@pytest.mark.feature("S14")
async def test_connections_cut_in_mid_statement_are_one_error_and_come_back(any_opener: Open) -> None:
    scene, foreign = await any_opener(max_size=8), await any_opener(max_size=1)
    sessions = [await scene.session() for _ in range(8)]
    async with rival_scene(foreign.database) as (elsewhere, rival):
        for session in sessions:
            await elsewhere.say(session, "held")
        writers = [asyncio.create_task(scene.say(session, "mine")) for session in sessions]
        await rival.until_waiting(8)
        assert await cut_all(rival) >= 8
        outcomes = await asyncio.gather(*writers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ParleyError] * 8
    assert {outcome.code for outcome in outcomes if isinstance(outcome, ParleyError)} == {ErrorCode.UNAVAILABLE}
    # The same pool: nothing of the lost statements is there, and they are sent again. A connection may have heard that
    # it is to end, and not yet have seen its end.
    replies = [await until_it_works(partial(scene.say, session, "mine")) for session in sessions]
    assert [(reply.status, reply.seq) for reply in replies] == [("queued", 3)] * 8
    await scene.audit()


async def test_idle_connections_that_were_cut_are_replaced(any_opener: Open) -> None:
    scene, foreign = await any_opener(max_size=4), await any_opener(max_size=1)
    sessions = [await scene.session() for _ in range(4)]
    await asyncio.gather(*(scene.begun(session) for session in sessions))
    async with rival_scene(foreign.database) as (_, rival):
        assert await cut_all(rival) >= 1
    for session in sessions:
        assert (await until_it_works(partial(scene.say, session, "again"))).seq == 3
    await scene.audit()


@pytest.mark.feature("S06")
@pytest.mark.parametrize("n", [None, 1], ids=["plain", "numbered"])
async def test_a_command_that_was_done_though_its_answer_was_lost_is_answered_when_repeated(
    cluster: Cluster, n: int | None
) -> None:
    async with wire_to(cluster) as wire:
        scene = Scene(await wire.open(max_size=2))
        session = await scene.session()
        await scene.say(await scene.session(), "prepares the statement", n=n)
        plan = scene.plan("hello")
        wire.lose_next_answer()
        with pytest.raises(ParleyError) as lost:
            await scene.say(session, "once", "hello", plan=plan, n=n)
        assert (lost.value.code, lost.value.retry_after) == (ErrorCode.UNAVAILABLE, 1.0)
        reply = await scene.say(session, "once", "hello", n=n)
        assert (reply.status, reply.seq, reply.turn_id, reply.commit) == ("accepted", 1, plan.start().turn_id, None)
        assert await scene.value("SELECT count(*) FROM turns WHERE session_id = $1", session.session_id) == 1
        # Nobody runs that turn: its worker does not know of it, and finds it.
        await scene.alive(scene.worker)
        (found,) = await scene.turns.claim(scene.worker, await _turns_but(scene, plan.start().turn_id), 10)
        assert found.turn_id == plan.start().turn_id
        await scene.audit()


async def _turns_but(scene: Scene, turn_id: UUID) -> list[UUID]:
    return [row[0] for row in await scene.rows("SELECT turn_id FROM turns") if row[0] != turn_id]


async def test_a_move_that_was_made_though_its_answer_was_lost_is_not_made_again(cluster: Cluster) -> None:
    async with wire_to(cluster) as wire:
        scene = Scene(await wire.open(max_size=2))
        claim = await scene.begun(await scene.session())
        other = await scene.begun(await scene.session())
        await scene.end(other)
        move, before = scene.ending(claim), msgspec.structs.replace(claim)
        wire.lose_next_answer()
        with pytest.raises(ParleyError):
            await scene.turns.advance(claim, move, scene.now())
        assert claim == before
        assert (await scene.turns.advance(claim, move, scene.now())).commit is None
        await scene.audit()


@pytest.fixture
async def mortal() -> AsyncIterator[tuple[Cluster, Path]]:
    """A PostgreSQL of the test's own, and where its files are."""
    home = Path(tempfile.mkdtemp(prefix="parley-test-"))
    os.chmod(home, 0o755)
    postgres = EmbeddedPostgres(home / "data", settings=FAST)
    await postgres.start()
    try:
        cluster = Cluster("mortal", postgres.connect_args, postgres.dsn)
        await cluster.make_template()
        yield cluster, home / "data"
    finally:
        await postgres.stop()
        shutil.rmtree(home)


def _postmaster(data_dir: Path) -> int:
    return int((data_dir / "pgdata/postmaster.pid").read_text().splitlines()[0])


@pytest.mark.feature("S06", "S14", "S16")
async def test_postgresql_killed_under_load_loses_nothing_acknowledged(mortal: tuple[Cluster, Path]) -> None:
    cluster, data_dir = mortal
    database = Database(max_size=8)
    await database.open(cluster.connect_args(TEMPLATE))
    scene = Scene(database)
    sessions = [await scene.session() for _ in range(4)]
    postmaster = await asyncio.to_thread(_postmaster, data_dir)
    told: dict[str, Reply] = {}

    async def caller(first: int) -> None:
        for number in range(first, 160, 16):
            session, command = sessions[number % 4], f"c{number}"
            told[command] = await until_it_works(partial(scene.say, session, command, "hello", most=1000))
            if len(told) == 60:
                os.kill(postmaster, signal.SIGKILL)

    async with asyncio.TaskGroup() as group:
        for first in range(16):
            group.create_task(caller(first))

    for number in range(160):
        again, before = await scene.say(sessions[number % 4], f"c{number}", "hello"), told[f"c{number}"]
        assert (again.status, again.seq, again.message_id) == (before.status, before.seq, before.message_id)
    assert await scene.value("SELECT count(*) FROM commands") == 160
    await scene.audit()
    await database.close()


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = Database()
    attempts: list[Callable[[], Awaitable[Any]]] = [
        lambda: database.open({"host": str(tmp_path), "user": "nobody", "database": "none"}),
        lambda: database.fetchrow("session_heads", []),
        database.ping,
    ]
    for work in attempts:
        with pytest.raises(ParleyError) as refused:
            await work()
        assert (refused.value.code, refused.value.retry_after) == (ErrorCode.UNAVAILABLE, 1.0)
    await database.close()


async def test_a_closed_database_can_be_opened_again_and_closed_twice(cluster: Cluster, database: Database) -> None:
    async with database.pool.acquire() as connection:
        name = await connection.fetchval("SELECT current_database()")
    await database.ping()
    await database.open("never looked at: it is open")
    await database.close()
    await database.close()
    with pytest.raises(ParleyError):
        await database.ping()
    await database.open(cluster.dsn(name))
    await database.ping()


async def test_closing_does_not_wait_for_ever(opener: Open) -> None:
    scene, foreign = await opener(max_size=2), await opener(max_size=1)
    session = await scene.session()
    async with rival_scene(foreign.database) as (elsewhere, rival):
        await elsewhere.say(session, "held")
        stuck = asyncio.create_task(scene.say(session, "stuck"))
        await rival.until_waiting()
        await scene.database.close(timeout=0)
        with pytest.raises(ParleyError) as lost:
            await stuck
    assert lost.value.code is ErrorCode.UNAVAILABLE


async def test_a_caller_that_gives_up_does_not_wait_for_a_database_that_hangs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.pool._CANCEL_PATIENCE", 0.01)
    async with wire_to(cluster) as wire:
        database = await wire.open(max_size=1, timeout=3600)
        wire.hang()
        asking = asyncio.create_task(database.fetchrow("session_heads", []))
        await wire.held.wait()
        asking.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({asking})
        assert asking.cancelled()
        wire.go_on()
        await database.ping(timeout=PATIENCE)


async def test_a_pool_that_is_used_up_says_so_in_time(opener: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await opener(max_size=1)
    async with scene.database.pool.acquire():
        monkeypatch.setattr(scene.database, "_timeout", 0.001)
        with pytest.raises(ParleyError) as refused:
            await scene.database.fetchrow("session_heads", [])
        monkeypatch.undo()
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert await scene.database.fetchrow("session_heads", []) is None


@pytest.mark.parametrize(
    ("error", "outage"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (asyncpg.ConnectionDoesNotExistError(), True),
        (asyncpg.CannotConnectNowError(), True),
        (asyncpg.TooManyConnectionsError(), True),
        (asyncpg.AdminShutdownError(), True),
        (asyncpg.DiskFullError(), True),
        (asyncpg.InternalClientError("cannot switch to state"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (asyncpg.InterfaceError("pool is closing"), True),
        (asyncpg.InterfaceError("another operation is in progress"), False),
        (asyncpg.DataError("invalid input for query argument"), False),
        (asyncpg.UniqueViolationError(), False),
        (asyncpg.UndefinedTableError(), False),
        (ValueError("closed"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_counts_as_an_outage(error: Exception, outage: bool) -> None:
    assert is_outage(error) == outage


async def test_a_block_that_fails_leaves_no_transaction_open(opener: Open) -> None:
    scene = await opener(max_size=1)

    async def fail() -> None:
        async with scene.database.pool.acquire() as connection:
            await connection.execute("BEGIN")
            raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        await fail()
    async with scene.database.pool.acquire() as connection:
        assert not connection.is_in_transaction()


async def test_a_statement_that_takes_too_long_is_an_outage(opener: Open) -> None:
    scene, foreign = await opener(max_size=1, timeout=0.3), await opener(max_size=1)
    session = await scene.session()
    async with rival_scene(foreign.database) as (elsewhere, _):
        await elsewhere.say(session, "held")
        with pytest.raises(ParleyError) as lost:
            await scene.say(session, "stuck")
    assert (lost.value.code, lost.value.retry_after) == (ErrorCode.UNAVAILABLE, 1.0)
    assert (await scene.say(session, "stuck")).status == "queued"


async def test_a_statement_that_its_caller_gave_up_is_cancelled(opener: Open) -> None:
    scene, foreign = await opener(max_size=1), await opener(max_size=1)
    session = await scene.session()
    async with scene.database.pool.acquire() as connection:
        pid = connection.get_server_pid()
    async with rival_scene(foreign.database) as (elsewhere, rival):
        await elsewhere.say(session, "held")
        stuck = asyncio.create_task(scene.say(session, "stuck"))
        await rival.until_waiting()
        stuck.cancel()
        await asyncio.wait({stuck})
        # Lent again, the very same, when the server has cancelled what ran on it.
        async with asyncio.timeout(PATIENCE), scene.database.pool.acquire() as connection:
            assert connection.get_server_pid() == pid
            assert await connection.fetchval("SELECT 1") == 1
