"""Worker spaces: each user's turns in a space of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.turns.limits import LimitSettings
from server.turns.spaces import Spaces
from tests.support.clock import ManualClock


@dataclass(frozen=True)
class Turn:
    owner: str
    turn_id: UUID = field(default_factory=uuid4)


class Scene:
    """Spaces, and the turns that were begun in them, in order."""

    def __init__(self, **limits: Any) -> None:
        self.clock = ManualClock()
        self.spaces = Spaces(LimitSettings(**limits), self.clock)
        self.begun: list[Turn] = []

    def admit(self, *turns: Turn) -> None:
        for turn in turns:
            self.spaces.admit(turn, partial(self.begun.append, turn))


@pytest.mark.feature("S33")
def test_a_user_runs_so_many_turns_and_the_others_wait_in_their_order() -> None:
    scene = Scene(turns=2)
    turns = [Turn("ada") for _ in range(5)]
    scene.admit(*turns)
    assert scene.begun == turns[:2]
    scene.spaces.done(turns[1])
    assert scene.begun == turns[:3]
    scene.spaces.done(turns[0])
    scene.spaces.done(turns[2])
    assert scene.begun == turns
    stats = scene.spaces.stats("ada")
    assert (stats.running, stats.waiting, stats.begun, stats.waited, stats.ended) == (2, 0, 5, 3, 3)


@pytest.mark.feature("S33")
def test_one_users_turns_hold_up_nobody_elses() -> None:
    scene = Scene(turns=1)
    hers = [Turn("ada") for _ in range(3)]
    his = Turn("bob")
    scene.admit(*hers, his)
    assert scene.begun == [hers[0], his]
    scene.spaces.done(his)
    assert scene.begun == [hers[0], his]
    assert scene.spaces.stats("bob").ended == 1
    assert scene.spaces.stats("nobody") == Scene().spaces.stats("ada")


def test_a_turn_is_begun_once_however_often_it_is_admitted_or_done() -> None:
    scene = Scene(turns=1)
    first, second = Turn("ada"), Turn("ada")
    scene.admit(first, first, second, second, first)
    assert scene.begun == [first]
    assert scene.spaces.waits(second)
    assert not scene.spaces.waits(first)
    scene.spaces.done(first)
    scene.spaces.done(first)
    assert scene.begun == [first, second]
    assert scene.spaces.stats("ada").running == 1
    scene.spaces.done(Turn("stranger"))


def test_a_turn_that_waits_keeps_its_place_and_begins_from_its_newest_claim() -> None:
    scene = Scene(turns=1)
    first, second, third = (Turn("ada") for _ in range(3))
    scene.admit(first, second, third)
    newer: list[str] = []
    scene.spaces.admit(second, lambda: newer.append("newer"))
    scene.spaces.done(first)
    assert (newer, scene.begun) == (["newer"], [first])


def test_a_turn_that_is_given_up_while_it_waits_never_begins() -> None:
    scene = Scene(turns=1)
    first, second, third = (Turn("ada") for _ in range(3))
    scene.admit(first, second, third)
    scene.spaces.done(second)
    scene.spaces.done(first)
    assert scene.begun == [first, third]


def test_a_turn_that_ends_while_it_begins_makes_room_at_once() -> None:
    spaces = Scene(turns=1).spaces
    begun: list[int] = []
    turns = [Turn("ada") for _ in range(3)]

    def start(number: int) -> None:
        begun.append(number)
        spaces.done(turns[number])

    for number, turn in enumerate(turns):
        spaces.admit(turn, partial(start, number))
    assert begun == [0, 1, 2]
    assert spaces.stats("ada").running == 0


@pytest.mark.feature("S33")
async def test_a_space_is_made_on_demand_and_forgotten_when_idle() -> None:
    scene = Scene(turns=1, idle=60)
    quick, slow = Turn("ada"), Turn("bob")
    assert len(scene.spaces) == 0
    scene.admit(quick, slow)
    assert scene.spaces.stats("ada").since is not None
    scene.spaces.done(quick)
    await scene.clock.advance(59)
    scene.admit(Turn("eve"))
    assert len(scene.spaces) == 3
    await scene.clock.advance(2)
    assert scene.spaces.stats("ada").since is None
    # In use, however long.
    assert scene.spaces.stats("bob").running == 1
    assert len(scene.spaces) == 2


async def test_tools_of_a_user_run_so_many_at_once() -> None:
    scene = Scene(tools=2)
    release = asyncio.Event()
    running: list[int] = []

    async def run(number: int, owner: str) -> None:
        async with scene.spaces.tool(owner):
            running.append(number)
            await release.wait()

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(run(number, "ada"))
        group.create_task(run(4, "bob"))
        for _ in range(3):
            await asyncio.sleep(0)
        assert running == [0, 1, 4]
        assert scene.spaces.stats("ada").tools_running == 2
        release.set()
    assert sorted(running) == [0, 1, 2, 3, 4]
    assert scene.spaces.stats("ada").tools_running == 0


@given(st.lists(st.tuples(st.sampled_from("ad"), st.sampled_from("ab"), st.integers(0, 6)), max_size=60))
def test_whatever_happens_nobody_runs_more_than_he_may_nor_waits_in_vain(steps: list[tuple[str, str, int]]) -> None:
    scene = Scene(turns=2)
    turns = {(owner, number): Turn(owner) for owner in "ab" for number in range(7)}
    admitted: dict[str, list[Turn]] = {"a": [], "b": []}
    for step, owner, number in steps:
        turn = turns[owner, number]
        if step == "a":
            scene.admit(turn)
            if turn not in admitted[owner]:
                admitted[owner].append(turn)
        else:
            scene.spaces.done(turn)
            if turn in admitted[owner]:
                admitted[owner].remove(turn)
        for name in "ab":
            stats = scene.spaces.stats(name)
            assert stats.running == min(2, len(admitted[name]))
            assert stats.waiting == max(0, len(admitted[name]) - 2)
            assert all(not scene.spaces.waits(turn) for turn in admitted[name][:2])
