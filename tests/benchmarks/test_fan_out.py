"""One event to many: the product beside aiohttp alone writing bytes that were prepared beforehand."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.benchmarks.children import Child
from tests.benchmarks.harness import REPEATS, Figure, Report, ratios, sized
from tests.benchmarks.scene import LOAD_CORE, Downlink, Run, Server, servers

pytestmark = [pytest.mark.bench, pytest.mark.timeout(240)]

_STREAMS = sized(1_000, 100)
_NAMES = {"ws": "WebSocket", "sse": "SSE"}
_ALONE, _MANY = 1, 16
_ROUNDS = {_ALONE: sized(300, 30), _MANY: sized(800, 64)}
_BARE_ROUNDS = {_ALONE: sized(300, 30), _MANY: sized(320, 32)}
_PROMISES = {_ALONE: 0.9, _MANY: 6.0}


class _Crowd(NamedTuple):
    """A server with its subscribers and the port that makes it publish to them."""

    server: Server
    group: str
    control: int

    async def run(self, load: Child, in_flight: int, rounds: int, *, toil: bool = False) -> Run:
        run, _ = await self.server.measured(
            load, "fan_out", group=self.group, control=self.control, in_flight=in_flight, rounds=rounds, toil=toil
        )
        return run


async def _crowd(server: Server, load: Child, downlink: Downlink) -> _Crowd:
    session = ""
    if server.is_product:
        publisher = await server.child.ask("publisher")
        session, control = publisher["session"], publisher["control"]
    else:
        control = (await server.child.ask("where"))["control"][downlink]
    group = f"{server.name} {downlink}"
    await server.open(load, group, downlink, [session], _STREAMS)
    return _Crowd(server, group, control)


@pytest.mark.parametrize("downlink", ["ws", "sse"])
async def test_fan_out(downlink: Downlink, bench_url: str, report: Report) -> None:
    async with servers(bench_url, pinned=True) as (product, bare), Child("load", core=LOAD_CORE) as load:
        assert bare is not None
        ours, theirs = await _crowd(product, load, downlink), await _crowd(bare, load, downlink)
        for crowd in (ours, theirs):
            await crowd.run(load, _ALONE, _BARE_ROUNDS[_ALONE] // 4)
        runs: dict[tuple[str, int], list[Run]] = {}
        framings = []
        for _ in range(REPEATS):
            for in_flight in (_ALONE, _MANY):
                for crowd, rounds in ((theirs, _BARE_ROUNDS), (ours, _ROUNDS)):
                    before = await product.child.ask("framings")
                    run = await crowd.run(load, in_flight, rounds[in_flight])
                    runs.setdefault((crowd.server.name, in_flight), []).append(run)
                    if crowd is ours and in_flight == _MANY:
                        framings.append(_ROUNDS[_MANY] / (await product.child.ask("framings") - before))
        toils = {each: [await theirs.run(load, each, _BARE_ROUNDS[each], toil=True)] for each in (_ALONE, _MANY)}
        for in_flight in (_ALONE, _MANY):
            own, floor = runs["product", in_flight], runs["bare", in_flight]
            detail = [
                f"product: {Run.text(own, 'deliveries a second')}",
                f"bare: {Run.text(floor, 'deliveries a second')}",
                f"bare, each read of the load made twice as dear: {Run.text(toils[in_flight], 'deliveries a second')}",
            ]
            if in_flight == _MANY:
                detail.append(f"events in one write: {' '.join(f'{each:.1f}' for each in framings)}")
            report.add(
                Figure(
                    name=f"{_STREAMS:,} {_NAMES[downlink]} streams, {in_flight} in flight: rate over bare aiohttp's",
                    series=ratios([run.rate for run in own], [run.rate for run in floor]),
                    promise=_PROMISES[in_flight],
                    detail=detail,
                )
            )
