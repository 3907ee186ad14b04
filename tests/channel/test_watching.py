"""The keeper of clients' calls is told what concerns it: in order, again after an outage, and no error stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from protocol.errors import ErrorCode, ParleyError
from server.channel.watching import Watching
from tests.support.clock import settle

SESSION = uuid4()


class Keeper:
    """Notes what it is told, and fails as it is told to."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ...]] = []
        self.failing: list[Exception] = []

    async def client_joined(self, session_id: UUID, client_id: str) -> None:
        self._note("joined", client_id)

    async def client_left(self, session_id: UUID, client_id: str) -> None:
        self._note("left", client_id)

    async def tools_registered(self, session_id: UUID, client_id: str, names: Sequence[str]) -> None:
        self._note("registered", client_id, *names)

    def _note(self, *what: str) -> None:
        if self.failing:
            raise self.failing.pop(0)
        self.told.append(what)


@pytest.mark.feature("T09", "A02")
async def test_what_concerns_calls_is_told_in_order_also_over_an_outage() -> None:
    watching, keeper = Watching(), Keeper()
    watching.watcher = keeper
    running = asyncio.create_task(watching.run())
    watching.joined(SESSION, "a")
    watching.registered(SESSION, "a", ["read_file"])
    watching.left(SESSION, "a")
    await settle()
    assert keeper.told == [("joined", "a"), ("registered", "a", "read_file"), ("left", "a")]
    keeper.failing = [ParleyError(ErrorCode.UNAVAILABLE, "away")]
    watching.left(SESSION, "b")
    await settle()
    assert keeper.told[3:] == []
    # In order: what comes later does not overtake what could not be told.
    keeper.failing = [ParleyError(ErrorCode.UNAVAILABLE, "away")]
    watching.joined(SESSION, "b")
    await settle()
    watching.again()
    await settle()
    assert keeper.told[3:] == [("left", "b"), ("joined", "b")]
    running.cancel()
    await asyncio.wait({running})


async def test_a_mistake_or_a_refusal_stops_nothing() -> None:
    watching, keeper = Watching(), Keeper()
    watching.left(SESSION, "nobody is told")
    await watching.tell_all()
    watching.watcher = keeper
    keeper.failing = [RuntimeError("a mistake"), ParleyError(ErrorCode.NOT_FOUND, "gone")]
    for client_id in ("a", "b", "c"):
        watching.left(SESSION, client_id)
    await watching.tell_all()
    assert keeper.told == [("left", "c")]
    watching.again()
