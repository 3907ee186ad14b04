"""Calls and turns that change while a statement waits for them: what others committed meanwhile decides.

As in `test_snapshots.py`, another process does something in a transaction that stays open until ours is seen to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar
from uuid import UUID

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import Reply
from storage.ids import new_id
from storage.turns import Advance, Call, Claim, LostClaimError, NewsError
from tests.storage.calling import Calling, asked_call, asking, child_of, client_call, dispatch, ending
from tests.storage.scene import NOW, Rival, Scene, event, rival_scene
from tests.storage.test_threads import answer, child_claim, interrupt, steer, steering

T = TypeVar("T")


async def waiting(rival: Rival, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Begin something, and return when it waits for the rival."""
    task = asyncio.create_task(work)
    await rival.until_waiting()
    return task


def at(scene: Scene, turn: Calling) -> Calling:
    """The same turn, acted on by another process."""
    return Calling(scene, turn.session, msgspec.structs.replace(turn.claim))


def agent_call() -> Call:
    return Call(call_id=new_id(), name="ask_agent", arguments="{}", executor="agent")


def begins(child_of_call: Call) -> tuple[Advance, UUID]:
    child = child_of(child_of_call)
    events = [event("message_created"), event("task_started")]
    return Advance(step_state="tools", events=events, children=[child]), child.turn_id


@pytest.mark.parametrize("what", ["result", "decision", "cancel", "progress", "tools"])
async def test_a_turn_does_not_wait_when_there_was_news_meanwhile(any_scene: Scene, what: str) -> None:
    call, asked = client_call(), asked_call()
    turn = await Calling.begun(any_scene, call, asked)
    await turn.move(Advance(step_state="tools", dispatches=[dispatch(call)]))
    session_id = turn.session.session_id
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        there = at(elsewhere, turn)
        match what:
            case "result":
                assert (await there.result(call)).claims == []
            case "decision":
                assert (await there.decide(asked)).claims == []
            case "cancel":
                assert (await there.cancel()).claims == []
            case "progress":
                await elsewhere.calls.progress(session_id, call.call_id, "c1", NOW)
            case _:
                assert await elsewhere.calls.claim_for_tools(elsewhere.worker, session_id, ["look"]) == []
        park = await waiting(rival, turn.park())
    with pytest.raises(NewsError) as news:
        await park
    assert news.value.news == 1
    assert (await turn.state())[0] == "running"
    await any_scene.audit()


@pytest.mark.parametrize("what", ["result", "decision", "cancel", "interrupt"])
async def test_a_turn_that_was_parked_meanwhile_is_claimed(any_scene: Scene, what: str) -> None:
    call, asked = client_call(), asked_call()
    turn = await Calling.begun(any_scene, call, asked)
    await turn.move(Advance(step_state="tools", dispatches=[dispatch(call)]))
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        assert (await at(elsewhere, turn).park()).parked
        work: dict[str, Callable[[], Coroutine[object, object, Reply]]] = {
            "result": lambda: turn.result(call),
            "decision": lambda: turn.decide(asked),
            "cancel": turn.cancel,
            "interrupt": lambda: interrupt(any_scene, turn.session, "now", turn.claim.turn_id),
        }
        reply = await waiting(rival, work[what]())
    (claim,) = (await reply).claims
    assert (claim.turn_id, claim.attempt, claim.news, claim.revision) == (turn.claim.turn_id, 2, 1, 4)
    assert await turn.state() == ("running", 1)
    await any_scene.audit()


async def test_the_first_decision_stands(any_scene: Scene) -> None:
    call = asked_call()
    turn = await Calling.begun(any_scene, call, park=True)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        assert len((await at(elsewhere, turn).decide(call, "approve", "one")).claims) == 1
        second = await waiting(rival, turn.decide(call, "reject", "second"))
        repeat = asyncio.create_task(turn.decide(call, "approve", "one"))
        await rival.until_waiting(2)
    with pytest.raises(ParleyError) as refused:
        await second
    assert (refused.value.code, refused.value.message) == (
        ErrorCode.ALREADY_RESOLVED,
        "the call is approved already, by ada",
    )
    assert ((await repeat).commit, (await repeat).claims) == (None, [])
    assert (await turn.row(call))["state"] == "ready"
    assert await any_scene.value("SELECT count(*) FROM audit") == 1
    await any_scene.audit()


@pytest.mark.parametrize("what", ["result", "expiry", "cancel"])
async def test_one_end_of_a_call_is_stored(any_scene: Scene, what: str) -> None:
    call = asked_call() if what == "expiry" else client_call()
    turn = await Calling.begun(any_scene, call)
    if what != "expiry":
        await turn.move(Advance(step_state="tools", dispatches=[dispatch(call)]))
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        there = at(elsewhere, turn)
        if what == "result":
            await there.result(call, "one")
        elif what == "expiry":
            assert call.approval is not None
            move = ending(turn.claim, call, state="rejected", expired=[call.approval.approval_id], expected_news=0)
            await there.move(move)
        else:
            await there.move(ending(turn.claim, call, state="cancelled", expected_news=0))
        late = turn.decide(call) if what == "expiry" else turn.result(call, "second")
        result = await waiting(rival, late)
        own = asyncio.create_task(turn.move(ending(turn.claim, call, state="failed", expected_news=0)))
        await rival.until_waiting(2)
    with pytest.raises(ParleyError) as refused:
        await result
    assert refused.value.code is ErrorCode.ALREADY_RESOLVED
    if what == "result":
        with pytest.raises(NewsError):
            await own
    else:
        # The same claim at the same revision: taken for its own write, of which there is one.
        assert (await own).commit is None
    await any_scene.audit()


@pytest.mark.parametrize("what", ["cancel", "interrupt"])
async def test_a_turn_below_that_began_meanwhile_is_stopped_too(any_scene: Scene, what: str) -> None:
    call = agent_call()
    turn = await Calling.begun(any_scene, call)
    move, child_id = begins(call)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        await at(elsewhere, turn).move(msgspec.structs.replace(move, park=True, expected_news=0))
        work = turn.cancel() if what == "cancel" else interrupt(any_scene, turn.session, "now", turn.claim.turn_id)
        stop = await waiting(rival, work)
    reply = await stop
    assert [claim.turn_id for claim in reply.claims] == [turn.claim.turn_id]
    assert reply.commit is not None
    found = await any_scene.turns.news_of([turn.claim.turn_id, child_id])
    assert found == {turn.claim.turn_id: (1, True), child_id: (1, True)}
    # As often as it is sent again, it had one effect.
    again = turn.cancel() if what == "cancel" else interrupt(any_scene, turn.session, "now", turn.claim.turn_id)
    assert (await again).commit is None
    assert (await turn.state())[1] == 1
    await any_scene.audit()


async def test_a_turn_begins_none_below_after_it_was_cancelled(any_scene: Scene) -> None:
    call = agent_call()
    turn = await Calling.begun(any_scene, call)
    move, _ = begins(call)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        await at(elsewhere, turn).cancel()
        begin = await waiting(rival, turn.move(msgspec.structs.replace(move, expected_news=0)))
    with pytest.raises(NewsError):
        await begin
    assert await any_scene.value("SELECT count(*) FROM turns") == 1
    await any_scene.audit()


async def test_calls_that_were_stored_meanwhile_are_found_by_tools(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        assert (await elsewhere.turns.advance(claim, asking(claim, client_call("look"), park=True), NOW)).parked
        offer = any_scene.calls.claim_for_tools(any_scene.worker, session.session_id, ["look"])
        claims = await waiting(rival, offer)
    assert [taken.turn_id for taken in await claims] == [claim.turn_id]
    await any_scene.audit()


async def asked_another(scene: Scene) -> tuple[Calling, Claim, Advance]:
    """A turn, the one below that answers its call, and that one's last move."""
    call = agent_call()
    turn = await Calling.begun(scene, call)
    child = child_of(call)
    events = [event("message_created"), event("task_started")]
    await turn.move(Advance(step_state="tools", events=events, children=[child]))
    below = child_claim(turn.claim, child)
    return turn, below, answer(below, turn.claim, call)


async def test_a_parent_that_was_parked_meanwhile_is_claimed_for_its_answer(any_scene: Scene) -> None:
    turn, below, last = await asked_another(any_scene)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        assert (await at(elsewhere, turn).park()).parked
        ended = await waiting(rival, any_scene.turns.advance(below, last, any_scene.now()))
    parent = (await ended).parent
    assert parent is not None
    assert (parent.turn_id, parent.news) == (turn.claim.turn_id, 1)
    await any_scene.audit()


async def test_a_parent_does_not_wait_for_an_answer_that_came_meanwhile(any_scene: Scene) -> None:
    turn, below, last = await asked_another(any_scene)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        assert (await elsewhere.turns.advance(below, last, elsewhere.now())).parent is None
        parked = await waiting(rival, turn.park())
    with pytest.raises(NewsError):
        await parked
    await any_scene.audit()


async def test_a_claim_that_was_made_meanwhile_is_the_only_one(any_scene: Scene) -> None:
    call = client_call()
    turn = await Calling.begun(any_scene, call)
    await turn.park(dispatches=[dispatch(call, deadline=NOW)])
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        (due,) = await elsewhere.turns.claim_due(new_id(), elsewhere.now(), 10)
        # Who only looks goes past what somebody is writing to; who has something to say waits for it.
        assert await any_scene.turns.claim_due(any_scene.worker, any_scene.now(), 10) == []
        result = await waiting(rival, turn.result(call))
    assert (await result).claims == []
    assert await turn.state() == ("running", 1)
    move = ending(due, call, state="failed", expected_news=due.news)
    with pytest.raises(NewsError):
        await any_scene.turns.advance(due, move, any_scene.now())
    await any_scene.audit()


async def test_a_former_claim_writes_nothing_after_the_wait(any_scene: Scene) -> None:
    call = client_call()
    turn = await Calling.begun(any_scene, call)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        (heir,) = await elsewhere.turns.claim(new_id(), [], 10)
        moves = [await waiting(rival, turn.move(ending(turn.claim, call, expected_news=0)))]
        moves.append(asyncio.create_task(turn.park()))
        await rival.until_waiting(2)
    for move in moves:
        with pytest.raises(LostClaimError):
            await move
    assert heir.attempt == 2
    await any_scene.audit()


async def test_a_steering_message_that_was_taken_back_meanwhile_stays_away(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim: Claim = await any_scene.begun(session)
    one, two = await steer(any_scene, session, "one"), await steer(any_scene, session, "two")
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        await elsewhere.remove(session, "remove", one)
        steered = await waiting(rival, any_scene.turns.steer(claim, steering(one, two)))
    assert await steered is None
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        three = await steer(elsewhere, session, "three")
        move = await waiting(rival, any_scene.turns.advance(claim, Advance(step_state="running"), any_scene.now()))
    # Its row is not in the statement's snapshot, and yet it is told that there may be some.
    assert (await move).steering
    assert [each.message_id for each in await any_scene.turns.steering(session.session_id)] == [two, three]
    await any_scene.audit()


async def test_a_client_that_came_back_meanwhile_has_its_calls(any_scene: Scene) -> None:
    call = client_call()
    turn = await Calling.begun(any_scene, call)
    await turn.move(Advance(step_state="tools", dispatches=[dispatch(call)]))
    session_id = turn.session.session_id
    await any_scene.calls.release(session_id, "c1", NOW)
    async with rival_scene(any_scene.database) as (elsewhere, rival):
        assert await elsewhere.calls.keep(session_id, "c1") == [turn.claim.turn_id]
        away = Advance(step_state="tools", dispatches=[dispatch(call, "c2")], expected_news=1)
        move = await waiting(rival, turn.move(away))
    with pytest.raises(NewsError):
        await move
    assert (await turn.row(call))["client_id"] == "c1"
