"""From a user's message to the first piece of the answer, with an agent that answers at once."""

from __future__ import annotations

import pytest

from tests.benchmarks.children import Child
from tests.benchmarks.harness import REPEATS, Figure, Report, Series, percentile, sized
from tests.benchmarks.scene import Server, servers

pytestmark = [pytest.mark.bench, pytest.mark.timeout(240)]

_RATE = 100
_MESSAGES = sized(1_000, 100)
_SESSIONS = sized(200, 50)
#: In milliseconds, by per cent of the messages.
_PROMISES = {50: 3.0, 99: 15.0}


async def _delays(server: Server, load: Child, group: str, messages: int) -> tuple[list[float], float]:
    ends = '"task_completed"' if server.is_product else '"message_delta"'
    _, account = await server.measured(load, "paced", group=group, rate=_RATE, count=messages, ends=ends)
    return account["delays"], account["late"]


async def test_message_to_first_delta(bench_url: str, report: Report) -> None:
    delays: list[list[float]] = []
    floor: list[list[float]] = []
    lateness: list[float] = []
    async with servers(bench_url, pinned=False) as (product, bare), Child("load") as load:
        assert bare is not None
        sessions = await product.child.ask("sessions", count=_SESSIONS, agent="prompt")
        for server in (product, bare):
            await server.open(load, server.name, "ws", sessions, _SESSIONS)
            await _delays(server, load, server.name, _MESSAGES // 4)
        for _ in range(REPEATS):
            found, late = await _delays(product, load, "product", _MESSAGES)
            delays.append(found)
            lateness.append(late)
            floor.append((await _delays(bare, load, "bare", _MESSAGES // 4))[0])
    for percent, promise in _PROMISES.items():
        least = Series.of([percentile(run, percent) for run in floor])
        report.add(
            Figure(
                name=f"user_message to first delta, {_RATE} a second: p{percent}",
                series=Series.of([percentile(run, percent) for run in delays]),
                promise=promise,
                better="less",
                unit="ms",
                detail=[
                    f"bare aiohttp answering by itself: {least.text()} ms",
                    f"latest start of a message behind its time: {max(lateness):.2f} ms",
                ],
            )
        )
