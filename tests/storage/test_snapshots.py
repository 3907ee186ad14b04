"""A statement's snapshot may be older than its wait for the session: what others committed meanwhile must count.

Each test lets another process (`rival_scene`) do something in a transaction that stays open until our statement is seen
to wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import StaleError
from storage.turns import Claim, LostClaimError
from tests.storage.conftest import Open
from tests.storage.scene import AGENT, InTransaction, Rival, Scene, rival_scene

T = TypeVar("T")


async def waiting(rival: Rival, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Begin something, and return when it waits for the rival."""
    task = asyncio.create_task(work)
    await rival.until_waiting()
    return task


async def test_a_repeat_that_waited_for_the_first_delivery_is_told_the_same(any_scene: Scene) -> None:
    session = await any_scene.session()
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        first = await elsewhere.say(session, "once", "hello")
        repeat = await waiting(rival, any_scene.say(session, "once", "hello"))
        conflict = asyncio.create_task(any_scene.say(session, "once", "something else"))
        await rival.until_waiting(2)
    told = await repeat
    assert (told.status, told.seq, told.turn_id, told.commit) == ("accepted", first.seq, first.turn_id, None)
    with pytest.raises(ParleyError) as refused:
        await conflict
    assert refused.value.code is ErrorCode.CONFLICT
    await any_scene.audit()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_repeat_that_waited_finds_all_as_its_sender_believes(any_scene: Scene, busy: bool) -> None:
    """Only the command itself says that it was here: the session is again what the statement was made for."""
    session = await any_scene.session()
    running = await any_scene.begun(session, "before")
    if not busy:
        await any_scene.end(running)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        plan = elsewhere.plan("hello")
        first = await elsewhere.say(session, "once", "hello", busy=busy, plan=plan)
        if not busy:
            await elsewhere.end(elsewhere.claim(session, plan))
        repeat = await waiting(rival, any_scene.say(session, "once", "hello", busy=busy))
        conflict = asyncio.create_task(any_scene.say(session, "once", "something else", busy=busy))
        await rival.until_waiting(2)
    told = await repeat
    assert (told.status, told.seq, told.turn_id, told.commit) == (first.status, first.seq, first.turn_id, None)
    with pytest.raises(ParleyError) as refused:
        await conflict
    assert refused.value.code is ErrorCode.CONFLICT
    await any_scene.audit()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
async def test_a_command_that_waited_goes_on_from_the_new_head(any_scene: Scene, busy: bool) -> None:
    session = await any_scene.session()
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        first = await elsewhere.say(session, "first")
        second = await waiting(rival, any_scene.say(session, "second", busy=busy))
    assert ((await second).status, (await second).seq) == ("queued", first.seq + 2)
    await any_scene.audit()


async def test_what_is_rolled_back_was_never_there(any_scene: Scene) -> None:
    session = await any_scene.session()
    async with any_scene.database.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        lost = await Scene(InTransaction(connection)).say(session, "once", "hello")
        repeat = await waiting(Rival(connection), any_scene.say(session, "once", "hello"))
        await transaction.rollback()
    told = await repeat
    assert told.commit is not None
    assert (told.seq, told.turn_id == lost.turn_id) == (1, False)
    await any_scene.audit()


async def test_numbers_are_counted_on_from_what_was_committed_meanwhile(any_scene: Scene) -> None:
    session = await any_scene.session()
    await any_scene.say(session, "one", n=1)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        await elsewhere.say(session, "two", n=2)
        three = await waiting(rival, any_scene.say(session, "three", n=3))
        two = asyncio.create_task(any_scene.say(session, "another two", n=2))
        await rival.until_waiting(2)
    assert (await three).status == "queued"
    with pytest.raises(ParleyError) as refused:
        await two
    assert refused.value.code is ErrorCode.OUT_OF_ORDER
    await any_scene.audit()


async def test_an_agent_switched_meanwhile_makes_the_plan_stale(any_scene: Scene) -> None:
    session = await any_scene.session()
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        await elsewhere.switch(session, "switch", (AGENT, "coder"))
        said = await waiting(rival, any_scene.say(session, "said"))
    with pytest.raises(StaleError) as stale:
        await said
    assert (stale.value.current_agent, stale.value.active_turn) == ("coder", None)
    await any_scene.audit()


async def test_a_turn_begun_meanwhile_is_not_the_one_to_cancel(any_scene: Scene) -> None:
    session = await any_scene.session()
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        turn = (await elsewhere.say(session, "said")).turn_id
        cancel = await waiting(rival, any_scene.cancel(session, "cancel", any_scene.worker))
    with pytest.raises(StaleError) as stale:
        await cancel
    assert stale.value.active_turn == turn
    await any_scene.audit()


async def test_what_was_removed_meanwhile_is_neither_removed_nor_reordered(any_scene: Scene) -> None:
    session = await any_scene.session()
    await any_scene.begun(session)
    one, two = [(await any_scene.say(session, name)).message_id for name in ("one", "two")]
    assert one is not None
    assert two is not None
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        await elsewhere.remove(session, "take two back", two)
        # As many wait as before, but not the same.
        await elsewhere.say(session, "three")
        remove = await waiting(rival, any_scene.remove(session, "remove two", two))
        reorder = asyncio.create_task(any_scene.reorder(session, "reorder", [two, one]))
        await rival.until_waiting(2)
    with pytest.raises(ParleyError) as refused:
        await remove
    assert refused.value.code is ErrorCode.NOT_FOUND
    with pytest.raises(ParleyError) as refused:
        await reorder
    assert (refused.value.code, refused.value.path) == (ErrorCode.CONFLICT, "$.order")
    await any_scene.audit()


@pytest.mark.parametrize("change", ["reordered", "removed", "started", "switched"])
async def test_a_waiting_message_begins_only_while_it_is_the_first(any_scene: Scene, change: str) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    one, two = [(await any_scene.say(session, name)).message_id for name in ("one", "two")]
    assert one is not None
    assert two is not None
    await any_scene.end(claim)
    start = any_scene.start(session, await any_scene.waiting(session))
    assert start.message_id == one
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        match change:
            case "reordered":
                await elsewhere.reorder(session, "reorder", [two, one])
            case "removed":
                await elsewhere.remove(session, "remove", one)
            case "started":
                assert await elsewhere.turns.start_waiting(elsewhere.start(session, await elsewhere.waiting(session)))
            case _:
                await elsewhere.switch(session, "switch", (AGENT, "coder"))
        begun = await waiting(rival, any_scene.turns.start_waiting(start))
    assert await begun is None
    await any_scene.audit()
    if change != "started":
        again = any_scene.start(session, await any_scene.waiting(session))
        assert again.message_id == (one if change == "switched" else two)
        assert await any_scene.turns.start_waiting(again) is not None
        await any_scene.audit()


async def test_a_session_deleted_meanwhile_takes_nothing_more(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        assert await elsewhere.sessions.delete(session, elsewhere.now())
        said = await waiting(rival, any_scene.say(session, "said"))
        ended = asyncio.create_task(any_scene.end(claim))
        deleted = asyncio.create_task(any_scene.sessions.delete(session, any_scene.now()))
        await rival.until_waiting(3)
    with pytest.raises(ParleyError) as refused:
        await said
    assert refused.value.code is ErrorCode.SESSION_GONE
    with pytest.raises(LostClaimError):
        await ended
    assert not await deleted
    await any_scene.audit()


async def test_a_deletion_takes_along_what_was_committed_meanwhile(any_scene: Scene) -> None:
    session = await any_scene.session()
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        await elsewhere.begun(session)
        await elsewhere.say(session, "waits", n=1)
        deleted = await waiting(rival, any_scene.sessions.delete(session, any_scene.now()))
    assert await deleted
    await any_scene.audit()
    assert await any_scene.turns.claim(any_scene.worker, [], 10) == []


async def test_claimers_at_once_never_claim_a_step_twice(any_opener: Open) -> None:
    """Not by steps: what a claimer found may have been claimed, committed and unlocked before it asks for the lock."""
    scene, claimers = await any_opener(), [await any_opener(max_size=1) for _ in range(8)]
    await scene.rows(
        """INSERT INTO turns (turn_id, session_id, user_message_id, message_id, agent_type, worker_id, created_at)
           SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'coder', $1, now()
             FROM generate_series(1, 2000)""",
        scene.worker,
    )
    await asyncio.gather(*(claimer.alive(claimer.worker) for claimer in claimers))

    async def take_all(claimer: Scene) -> list[Claim]:
        mine: list[Claim] = []
        while more := await claimer.turns.claim(claimer.worker, [claim.turn_id for claim in mine], 50):
            mine += more
        return mine

    claims = [claim for taken in await asyncio.gather(*map(take_all, claimers)) for claim in taken]
    assert {claim.attempt for claim in claims} == {2}
    assert len(claims) == len({claim.turn_id for claim in claims})
    # Whoever found all that was left locked by others went home early; of those others each took what it had locked.
    assert len(claims) == 2000
