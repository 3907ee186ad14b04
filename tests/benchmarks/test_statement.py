"""What keeping the promises of a command costs the database, beside the least that storing a message can cost."""

from __future__ import annotations

from uuid import UUID

import pytest

from storage.pool import Database
from tests.benchmarks.harness import REPEATS, Figure, Report, ratios, sized
from tests.benchmarks.statements import CALLERS, Rate, Statements

pytestmark = [pytest.mark.bench, pytest.mark.timeout(240)]

_MESSAGES = sized(12_000, 600)
_PROMISE = 0.6


@pytest.mark.parametrize("case", ["idle", "queued"])
async def test_the_statement(case: str, bench_database: Database, report: Report) -> None:
    statements, busy = Statements(bench_database), case == "queued"

    async def sessions() -> list[UUID]:
        if not busy:  # each message begins the first turn of a new session
            return await statements.sessions(_MESSAGES)
        return await statements.sessions(CALLERS, busy=True) * (_MESSAGES // CALLERS)

    full: list[Rate] = []
    smallest: list[Rate] = []
    # Connections are made, statements prepared and pages filled before anything counts.
    await statements.full((await sessions())[: _MESSAGES // 4], busy=busy)
    await statements.smallest((await sessions())[: _MESSAGES // 4])
    for _ in range(REPEATS):
        smallest.append(await statements.smallest(await sessions()))
        full.append(await statements.full(await sessions(), busy=busy))
    report.add(
        Figure(
            name=f"user_message, {case}: rate over that of the smallest statement",
            series=ratios([run.rate for run in full], [run.rate for run in smallest]),
            promise=_PROMISE,
            detail=[_detail("full", full), _detail("smallest", smallest)],
        )
    )


def _detail(name: str, runs: list[Rate]) -> str:
    rates = " ".join(f"{run.rate:,.0f}" for run in runs)
    clients = " ".join(f"{run.client_us:.0f}" for run in runs)
    return f"{name}: {rates} a second, {CALLERS} callers; this process: {clients} us of processor time each"
