"""Lending connections: in the order of coming, never a lost one, never more than there may be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from protocol.errors import ErrorCode, ParleyError
from storage import connections as module
from storage.connections import Connections
from tests.storage.conftest import Open
from tests.storage.scene import PATIENCE, rival_scene


class Fake:
    """As much of a connection as lending looks at."""

    def __init__(self) -> None:
        self.closed = False
        self.cut = asyncio.Event()
        self.in_transaction = False
        self.said: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.fails: Exception | None = None

    def is_closed(self) -> bool:
        return self.closed

    def is_in_transaction(self) -> bool:
        return self.in_transaction

    def terminate(self) -> None:
        self.closed = True
        self.cut.set()

    async def execute(self, statement: str, timeout: float) -> None:
        self.said.append(statement)
        await self.answers.wait()
        if self.fails is not None:
            raise self.fails
        self.in_transaction = False


class Bench:
    """Connections, and the means to make making them fail or wait."""

    def __init__(self, max_size: int = 2) -> None:
        self.made: list[Fake] = []
        self.refuses: Exception | None = None
        self.opens = asyncio.Event()
        self.opens.set()
        self.pool = Connections(self._connect, max_size)

    async def _connect(self) -> Any:
        await self.opens.wait()
        if self.refuses is not None:
            raise self.refuses
        self.made.append(Fake())
        return self.made[-1]

    async def borrow(self, timeout: float = PATIENCE) -> Any:
        return await self.pool.borrow(timeout)

    def take(self) -> Any:
        return self.pool.take()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.pool.terminate()
    for connection in list(bench.pool._lent):
        bench.pool.part_with(connection)
    async with asyncio.timeout(PATIENCE):
        await bench.pool.close()
    assert bench.pool.size == 0


async def turns(count: int = 5) -> None:
    """Let others go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_connection_used_last_is_lent_first(bench: Bench) -> None:
    one, two = await bench.borrow(), await bench.borrow()
    bench.pool.give_back(one)
    bench.pool.give_back(two)
    assert (bench.pool.size, bench.pool.idle) == (2, 2)
    assert bench.take() is two
    assert bench.take() is one
    assert bench.take() is None


async def test_who_waits_is_served_in_the_order_of_coming(bench: Bench) -> None:
    one, two = await bench.borrow(), await bench.borrow()
    served: list[int] = []

    async def user(number: int) -> None:
        connection = await bench.borrow()
        served.append(number)
        bench.pool.give_back(connection)

    users = [asyncio.create_task(user(number)) for number in range(6)]
    await turns()
    assert served == []
    bench.pool.give_back(one)
    bench.pool.give_back(two)
    await asyncio.gather(*users)
    assert served == list(range(6))
    assert len(bench.made) == 2


async def test_a_wait_has_an_end(bench: Bench) -> None:
    one, _ = await bench.borrow(), await bench.borrow()
    with pytest.raises(TimeoutError):
        await bench.borrow(timeout=0.001)
    bench.pool.give_back(one)
    assert await bench.borrow() is one


async def test_a_loan_has_an_end(bench: Bench) -> None:
    one, two = await bench.pool.borrow(PATIENCE, 0.001), await bench.borrow()
    async with asyncio.timeout(PATIENCE):
        await one.cut.wait()  # type: ignore[attr-defined]
    assert (bench.pool.size, two.closed) == (2, False)
    bench.pool.give_back(one)
    assert bench.pool.size == 1


async def test_making_a_connection_has_an_end(bench: Bench) -> None:
    bench.opens.clear()
    with pytest.raises(TimeoutError):
        await bench.borrow(timeout=0.001)
    assert bench.pool.size == 0


async def test_who_gives_up_while_waiting_takes_nothing_along(bench: Bench) -> None:
    one, two = await bench.borrow(), await bench.borrow()
    gives_up, waits = asyncio.create_task(bench.borrow()), asyncio.create_task(bench.borrow())
    await turns()
    gives_up.cancel()
    await turns()
    bench.pool.give_back(one)
    assert await waits is one
    # Also when it was served in the same turn of the loop, be it with a connection or with a place.
    for leave in (bench.pool.give_back, bench.pool.part_with):
        served = asyncio.create_task(bench.borrow())
        await turns()
        leave(two)
        served.cancel()
        await asyncio.wait({served})
        assert served.cancelled()
        two = await bench.borrow()
    assert bench.pool.size == 2


async def test_a_lost_connection_leaves_its_place_to_who_waits(bench: Bench) -> None:
    one, two = await bench.borrow(), await bench.borrow()
    waits = asyncio.create_task(bench.borrow())
    await turns()
    one.closed = True
    bench.pool.give_back(one)
    three: Any = await waits
    assert [three] == bench.made[2:]
    bench.pool.give_back(two)
    bench.pool.give_back(three)
    # Lost while nobody used them.
    two.closed = three.closed = True
    assert await bench.borrow() is bench.made[3]
    assert bench.pool.size == 1


async def test_a_connection_that_cannot_be_made_leaves_its_place_too(bench: Bench) -> None:
    one, _ = await bench.borrow(), await bench.borrow()
    waiting = [asyncio.create_task(bench.borrow()) for _ in range(2)]
    await turns()
    bench.refuses = ConnectionRefusedError()
    bench.pool.part_with(one)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionRefusedError] * 2
    assert bench.pool.size == 1
    bench.refuses = None
    assert await bench.borrow() is bench.made[2]


async def test_what_was_given_up_is_lent_again_when_it_is_in_order(bench: Bench) -> None:
    one = await bench.borrow()
    one.answers.clear()
    bench.pool.settle(one, PATIENCE)
    await turns()
    assert (one.said, bench.pool.idle) == (["SELECT 1"], 0)
    one.answers.set()
    await turns()
    assert bench.take() is one
    # A transaction that was left open is rolled back first.
    one.in_transaction = True
    bench.pool.give_back(one)
    await turns()
    assert (one.said[-1], bench.pool.idle) == ("ROLLBACK", 1)


@pytest.mark.parametrize("error", [TimeoutError(), asyncpg.InterfaceError("x"), asyncpg.QueryCanceledError()])
async def test_what_does_not_come_into_order_is_cut(bench: Bench, error: Exception) -> None:
    one = await bench.borrow()
    one.fails = error
    bench.pool.settle(one, PATIENCE)
    await turns()
    assert (one.closed, bench.pool.size) == (True, 0)
    # Nor is anything asked of one that is closed already.
    two = await bench.borrow()
    two.closed = True
    bench.pool.settle(two, PATIENCE)
    assert (two.said, bench.pool.size) == ([], 0)


async def test_a_closed_pool_lends_nothing_and_waits_for_what_is_lent(bench: Bench) -> None:
    one, two = await bench.borrow(), await bench.borrow()
    waits = asyncio.create_task(bench.borrow())
    bench.pool.give_back(one)
    assert await waits is one
    waits = asyncio.create_task(bench.borrow())
    await turns()
    closing = asyncio.create_task(bench.pool.close())
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await waits
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await bench.borrow()
    assert not closing.done()
    bench.pool.give_back(one)
    bench.pool.part_with(two)
    await closing
    assert (one.closed, two.closed) == (True, True)


async def test_a_connection_that_comes_too_late_is_cut(bench: Bench) -> None:
    bench.opens.clear()
    late = asyncio.create_task(bench.borrow())
    await turns()
    closing = asyncio.create_task(bench.pool.close())
    await turns()
    bench.opens.set()
    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await late
    await closing
    assert bench.made[0].closed


async def test_what_is_not_needed_for_long_is_closed_but_for_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_LIFETIME", 0.01)
    one, two = await bench.borrow(), await bench.borrow()
    bench.pool.give_back(one)
    bench.pool.give_back(two)
    async with asyncio.timeout(PATIENCE):
        await one.cut.wait()
    assert (two.closed, bench.pool.size) == (False, 1)


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
