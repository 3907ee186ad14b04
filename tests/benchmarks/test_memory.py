"""What an idle stream costs in memory, beside aiohttp alone."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks.children import Child
from tests.benchmarks.harness import REPEATS, Figure, Report, ratios, sized
from tests.benchmarks.scene import Downlink, Server, servers

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc"),
]

_STREAMS = sized(2_000, 200)
#: As in use: a session's user has it open twice.
_SESSIONS = _STREAMS // 2
_WARM_UP = 100
_DOWNLINKS: tuple[Downlink, ...] = ("ws", "sse")
_NAMES = {"ws": "WebSocket", "sse": "SSE"}
_PROMISE = 1.25


async def test_idle_memory(bench_url: str, report: Report) -> None:
    found: dict[tuple[str, Downlink], list[float]] = {}
    for repeat in range(REPEATS):
        # Fresh processes each time: what was freed before would be used again and not be seen. The second kind of
        # stream comes beside the first for the same reason; which one that is changes.
        downlinks = _DOWNLINKS if repeat % 2 == 0 else _DOWNLINKS[::-1]
        async with servers(bench_url, pinned=False) as (product, bare), Child("load") as load:
            assert bare is not None
            for server in (product, bare):
                for downlink in downlinks:
                    found.setdefault((server.name, downlink), []).append(await _bytes_each(server, load, downlink))
    for downlink in _DOWNLINKS:
        ours, theirs = found["product", downlink], found["bare", downlink]
        report.add(
            Figure(
                name=f"memory of an idle {_NAMES[downlink]} stream, {_STREAMS:,} of them: over bare aiohttp's",
                series=ratios(ours, theirs),
                promise=_PROMISE,
                better="less",
                detail=[f"product: {_kib(ours)}", f"bare: {_kib(theirs)}"],
            )
        )


async def _bytes_each(server: Server, load: Child, downlink: Downlink) -> float:
    sessions: list[str] = []
    if server.is_product:
        sessions = await server.child.ask("sessions", count=_SESSIONS, agent="waiter")
    group = f"{server.name} {downlink}"
    await server.open(load, f"{group} first", downlink, sessions[:1], _WARM_UP)
    before: int = await server.child.ask("memory")
    await server.open(load, group, downlink, sessions, _STREAMS)
    after: int = await server.child.ask("memory")
    return (after - before) / _STREAMS


def _kib(values: list[float]) -> str:
    return f"{' '.join(f'{value / 1024:.1f}' for value in values)} KiB each"
