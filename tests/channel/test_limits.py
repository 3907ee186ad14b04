"""Limits: what `asyncio.timeout` promises, for all commands by one timer."""

from __future__ import annotations

import asyncio

import pytest

from server.channel import limits as module
from server.channel.limits import Limits

PATIENCE = 40.0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP", 0.001)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def bounded(limits: Limits, seconds: float, started: asyncio.Event | None = None) -> None:
    with limits.within(seconds):
        if started is not None:
            started.set()
        await forever()


async def test_what_takes_too_long_is_ended_and_what_does_not_is_left_alone() -> None:
    limits = Limits()
    tasks = [asyncio.create_task(bounded(limits, seconds)) for seconds in (0.002, 3600, 0.004)]
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait({tasks[0], tasks[2]})
    assert isinstance(tasks[0].exception(), TimeoutError)
    assert isinstance(tasks[2].exception(), TimeoutError)
    assert [task.cancelling() for task in (tasks[0], tasks[2])] == [0, 0]
    assert not tasks[1].done()
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert tasks[1].cancelled()
    assert limits.open == set()


async def test_a_result_and_an_error_come_through() -> None:
    limits = Limits()
    with limits.within(3600):
        await asyncio.sleep(0)
    with pytest.raises(ValueError, match="ours"), limits.within(3600):
        raise ValueError("ours")
    assert limits.open == set()


async def test_who_is_cancelled_by_somebody_else_too_is_cancelled() -> None:
    limits, started = Limits(), asyncio.Event()
    task = asyncio.create_task(bounded(limits, 3600, started))
    await started.wait()
    (limit,) = limits.open
    limit.expire()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_an_error_that_comes_with_the_end_of_the_time_is_the_error() -> None:
    limits = Limits()

    async def fails() -> None:
        with limits.within(0):
            try:
                await forever()
            except asyncio.CancelledError:
                raise ValueError("ours") from None

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ValueError, match="ours"):
            await fails()
    # And what is awaited afterwards is not cancelled for it.
    await asyncio.sleep(0)
    assert limits.open == set()


async def test_limits_within_limits() -> None:
    limits = Limits()
    with pytest.raises(TimeoutError), limits.within(0.002), limits.within(3600):
        await forever()
    task = asyncio.current_task()
    assert task is not None
    assert (task.cancelling(), limits.open) == (0, set())


async def test_the_timer_rests_while_nothing_is_bounded() -> None:
    limits = Limits()
    with pytest.raises(TimeoutError):
        await bounded(limits, 0)
    loop = asyncio.get_running_loop()
    if limits._sweeper is not None:
        limits._sweep(loop)
    assert limits._sweeper is None
    # And begins anew.
    with pytest.raises(TimeoutError):
        await bounded(limits, 0)
