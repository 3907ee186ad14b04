"""From a socket to the ack, beside the statement alone: messages that queue, so that no turn runs meanwhile."""

from __future__ import annotations

import pytest

from storage.pool import Database
from tests.benchmarks.children import Child
from tests.benchmarks.harness import REPEATS, Figure, Report, ratios, sized
from tests.benchmarks.scene import Run, Server, servers
from tests.benchmarks.statements import CALLERS, Rate, Statements

pytestmark = [pytest.mark.bench, pytest.mark.timeout(240)]

_MESSAGES = sized(6_400, 640)
_PROMISE = 0.6


class _Callers:
    """Callers of one server, each with a session of its own whose agent never comes to an end."""

    def __init__(self, product: Server, load: Child) -> None:
        self._product = product
        self._load = load
        self._runs = 0

    async def run(self, uplink: str) -> Run:
        self._runs += 1
        sessions = await self._product.child.ask("sessions", count=CALLERS, agent="waiter")
        group = f"{uplink} {self._runs}"
        await self._load.ask("post", port=self._product.port, sessions=sessions, count=CALLERS)
        before = await self._product.child.ask("events", sessions=sessions)
        if uplink == "POST":
            run, account = await self._product.measured(
                self._load, "post", port=self._product.port, sessions=sessions, count=_MESSAGES
            )
        else:
            await self._product.open(self._load, group, "ws", sessions, CALLERS)
            run, account = await self._product.measured(self._load, "say", group=group, count=_MESSAGES)
            await self._load.ask("close", group=group)
        # One event a queued message: nothing was refused, and nothing was acknowledged that is not there.
        assert await self._product.child.ask("events", sessions=sessions) - before == account["done"]
        return run


async def test_socket_to_ack(bench_url: str, bench_database: Database, report: Report) -> None:
    statements = Statements(bench_database)

    async def alone(messages: int = _MESSAGES) -> Rate:
        return await statements.full(await statements.sessions(CALLERS, busy=True) * (messages // CALLERS), busy=True)

    # Not pinned: PostgreSQL needs its share of both cores, here as in the statement's own run.
    async with servers(bench_url, pinned=False, bare=False) as (product, _), Child("load") as load:
        callers = _Callers(product, load)
        await alone(_MESSAGES // 4)
        floor: list[Rate] = []
        runs: dict[str, list[Run]] = {"POST": [], "WebSocket": []}
        for _ in range(REPEATS):
            floor.append(await alone())
            for uplink, found in runs.items():
                found.append(await callers.run(uplink))
    rates = [run.rate for run in floor]
    for uplink, found in runs.items():
        report.add(
            Figure(
                name=f"{uplink}, socket to ack, {CALLERS} callers: rate over that of the statement alone",
                series=ratios([run.rate for run in found], rates),
                promise=_PROMISE,
                detail=[
                    f"{uplink}: {Run.text(found, 'a second')}",
                    f"statement: {' '.join(f'{rate:,.0f}' for rate in rates)} a second",
                ],
            )
        )
