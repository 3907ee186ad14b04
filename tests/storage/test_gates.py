"""Gates: one writer of a session at a time, in the order of arrival, and nothing left behind."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from protocol.errors import ErrorCode, ParleyError
from storage import gates
from storage.gates import Gates
from storage.ids import new_id
from tests.storage.scene import PATIENCE


class Writers:
    """Tasks that pass one gate and note in which order they came in."""

    def __init__(self, gates: Gates, session_id: UUID) -> None:
        self.gates = gates
        self.session_id = session_id
        self.inside = 0
        self.order: list[int] = []
        self.released = asyncio.Event()

    async def write(self, number: int) -> None:
        async with self.gates.hold(self.session_id):
            self.inside += 1
            assert self.inside == 1
            self.order.append(number)
            await self.released.wait()
            await asyncio.sleep(0)
            self.inside -= 1

    async def begin(self, *numbers: int) -> list[asyncio.Task[None]]:
        """The first of them, if nobody is inside, goes in; the others wait."""
        tasks = [asyncio.create_task(self.write(number)) for number in numbers]
        await asyncio.sleep(0)
        return tasks


@pytest.fixture
async def writers() -> Writers:
    return Writers(Gates(PATIENCE), new_id())


async def test_one_at_a_time_in_the_order_of_arrival(writers: Writers) -> None:
    tasks = await writers.begin(*range(20))
    assert (writers.order, len(writers.gates)) == ([0], 1)
    writers.released.set()
    await asyncio.gather(*tasks)
    assert writers.order == list(range(20))
    assert len(writers.gates) == 0


async def test_sessions_do_not_wait_for_each_other() -> None:
    gates = Gates(PATIENCE)
    async with gates.hold(new_id()), gates.hold(new_id()):
        assert len(gates) == 2
    assert len(gates) == 0


async def test_who_is_cancelled_loses_his_place_and_nobody_else_does(writers: Writers) -> None:
    tasks = await writers.begin(*range(6))
    for number in (1, 3, 5):
        tasks[number].cancel()
    writers.released.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [False, True] * 3
    assert writers.order == [0, 2, 4]
    assert len(writers.gates) == 0


async def test_a_turn_given_to_somebody_cancelled_goes_to_the_next(writers: Writers) -> None:
    """The holder leaves and the first waiter is woken; before it runs it is cancelled, and a newcomer arrives."""
    writers.released.set()
    async with writers.gates.hold(writers.session_id):
        first, second = await writers.begin(1, 2)
    first.cancel()
    newcomer = asyncio.create_task(writers.write(3))
    outcomes = await asyncio.gather(first, second, newcomer, return_exceptions=True)
    assert [isinstance(outcome, asyncio.CancelledError) for outcome in outcomes] == [True, False, False]
    assert writers.order == [2, 3]
    assert len(writers.gates) == 0


async def test_the_holder_leaves_it_open_whatever_happens(writers: Writers) -> None:
    holder, waiter = await writers.begin(0, 1)
    holder.cancel()
    writers.inside = 0
    writers.released.set()
    await asyncio.gather(holder, waiter, return_exceptions=True)
    assert writers.order == [0, 1]
    assert len(writers.gates) == 0
    with pytest.raises(ZeroDivisionError):
        async with writers.gates.hold(writers.session_id):
            raise ZeroDivisionError
    assert len(writers.gates) == 0


async def test_one_too_many_is_told_to_come_back(writers: Writers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "MAX_WAITING", 8)
    tasks = await writers.begin(*range(8))
    with pytest.raises(ParleyError) as refused:
        await writers.write(8)
    assert (refused.value.code, refused.value.retry_after) == (ErrorCode.RATE_LIMITED, 1)
    writers.released.set()
    await asyncio.gather(*tasks)
    await writers.write(9)
    assert writers.order == [*range(8), 9]
    assert len(writers.gates) == 0


async def test_a_wait_has_an_end(writers: Writers) -> None:
    writers.gates.patience = 0
    holder, waiter = await writers.begin(0, 1)
    with pytest.raises(ParleyError) as refused:
        await waiter
    assert (refused.value.code, refused.value.retry_after) == (ErrorCode.UNAVAILABLE, 1)
    assert len(writers.gates) == 1
    writers.released.set()
    await holder
    assert (writers.order, len(writers.gates)) == ([0], 0)


async def test_a_wait_has_an_end_also_for_who_comes_as_the_gate_changes_hands(writers: Writers) -> None:
    """At that moment the lock is free, and promised to the one before."""
    gates, key = writers.gates, writers.session_id
    entered = asyncio.Event()

    async def second() -> None:
        async with gates.hold(key):
            entered.set()
            await writers.released.wait()

    async with gates.hold(key):
        waiter = asyncio.create_task(second())
        await asyncio.sleep(0)
    gates.patience = 0
    with pytest.raises(ParleyError) as refused:
        async with gates.hold(key):
            pass
    assert refused.value.code is ErrorCode.UNAVAILABLE
    assert entered.is_set()
    writers.released.set()
    await waiter
    assert len(gates) == 0
