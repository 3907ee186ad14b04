"""Whatever is killed, whenever: nothing acknowledged is lost, nothing happens twice, everybody sees the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.chaos.chapters import Kind, run
from tests.chaos.conftest import Report
from tests.chaos.scene import CONFIG
from tests.support.process import serving

KINDS = ("server", "database", "tree")


async def _kill(kind: Kind, rounds: int, seed: str, data_dir: Path, report: Report) -> None:
    began = time.monotonic()
    try:
        async with serving(data_dir, CONFIG) as server:
            tally = await run(server, kind, rounds, seed)
    except BaseException as error:
        error.add_note(f"replay with PARLEY_CHAOS_SEED={seed} PARLEY_CHAOS_ROUNDS={rounds} and -k {kind}")
        raise
    report(kind, seed, time.monotonic() - began, tally)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("R03", "S06", "S16", "S17", "T02")
@pytest.mark.parametrize("kind", KINDS)
async def test_killed_again_and_again(kind: Kind, rounds: int, seed: str, data_dir: Path, report: Report) -> None:
    await _kill(kind, rounds, seed, data_dir, report)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("S06", "S16", "S17", "T02")
@pytest.mark.parametrize(("kind", "dose"), [("server", 3), ("database", 2), ("tree", 1)])
async def test_killed_now_and_then(kind: Kind, dose: int, same_seed: str, data_dir: Path, report: Report) -> None:
    await _kill(kind, dose, same_seed, data_dir, report)
