"""Ids: unique and in order, also within a millisecond and while the clock goes backwards."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from protocol.ids import RANDOM_BITS
from storage.ids import IdSource, new_epoch, new_id
from tests.storage.scene import Scene

ROOT = Path(__file__).parents[2]


def _set_clock(monkeypatch: pytest.MonkeyPatch, milliseconds: Iterator[int]) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: next(milliseconds) * 1_000_000)


def test_a_burst_is_unique_and_in_order() -> None:
    made = [new_id() for _ in range(100_000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}


def test_regression_35_ids_of_one_millisecond_do_not_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_clock(monkeypatch, iter([5_000] * 20_000))
    source = IdSource()
    made = [source() for _ in range(20_000)]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert {one.int >> 80 for one in made} == {5_000}


def test_a_clock_that_goes_backwards_changes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_clock(monkeypatch, iter([5_000, 4_000, 1, 5_000, 5_001]))
    source = IdSource()
    made = [source() for _ in range(5)]
    assert made == sorted(set(made))
    assert [one.int >> 80 for one in made] == [5_000, 5_000, 5_000, 5_000, 5_001]


def test_a_millisecond_that_is_used_up_borrows_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    _set_clock(monkeypatch, iter([5_000] * 3))
    source = IdSource()
    first = source()
    source._random = (1 << RANDOM_BITS) - 1
    second, third = source(), source()
    assert first < second < third
    assert (second.int >> 80, third.int >> 80) == (5_001, 5_001)


def test_processes_do_not_make_each_others_ids() -> None:
    one, two = IdSource(), IdSource()
    assert {one() for _ in range(5_000)}.isdisjoint(two() for _ in range(5_000))
    assert len({new_epoch() for _ in range(100)}) == 100


_FORK = """
import os
from storage.ids import new_id
new_id()
child = os.fork()
made = [new_id().hex for _ in range(100)]
if child:
    os.waitpid(child, 0)
print(*made, flush=True)
"""


def test_a_forked_process_makes_ids_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", _FORK], capture_output=True, text=True, check=True, cwd=ROOT)
    assert len(set(done.stdout.split())) == 200


async def test_regression_35_numbers_are_the_sessions_own_not_a_connections(scene: Scene) -> None:
    """Two sessions count each for itself, whichever connection their commands come over."""
    one, two = await scene.session(), await scene.session()
    for number in range(6):
        await scene.say(one, f"c{number}", client=f"client-{number % 2}")
        if number % 3 == 0:
            await scene.say(two, f"c{number}", client="client-0")
    assert [stored.seq for stored in await scene.log.read(one.session_id, 0)] == list(range(1, 8))
    assert [stored.seq for stored in await scene.log.read(two.session_id, 0)] == [1, 2, 3]
    await scene.audit()
