"""Claims: a step has one worker; it changes hands when that one is gone, and the former one writes nothing more."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from storage.ids import new_id
from storage.turns import Advance, Call, Claim, LostClaimError, NewMessage
from tests.storage.conftest import Open
from tests.storage.scene import Scene, event, rival_scene


async def test_a_live_workers_steps_are_left_alone(any_scene: Scene) -> None:
    await any_scene.alive(any_scene.worker)
    await any_scene.begun(await any_scene.session())
    assert await any_scene.turns.claim(new_id(), [], 10) == []


@pytest.mark.feature("S16")
@pytest.mark.parametrize("end", ["lease", "forgotten"])
async def test_a_gone_workers_step_is_taken_over_as_it_stood(any_scene: Scene, end: str) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    await any_scene.alive(any_scene.worker)
    await any_scene.turns.advance(claim, Advance(step_state="running", prompt_tokens=3), any_scene.now())
    claim.content, claim.reasoning = "half a sen", "thinking"
    await any_scene.turns.checkpoint(any_scene.worker, [claim])
    await any_scene.cancel(session, "stop", claim.turn_id)
    if end == "lease":
        await any_scene.alive(any_scene.worker, -1)
    else:
        await any_scene.workers.forget([any_scene.worker])

    heir = new_id()
    (taken,) = await any_scene.turns.claim(heir, [], 10)
    assert (taken.turn_id, taken.step, taken.message_id) == (claim.turn_id, 1, claim.message_id)
    assert (taken.worker_id, taken.attempt, taken.revision, taken.state) == (heir, 2, 2, "running")
    assert (taken.content, taken.reasoning) == ("half a sen", "thinking")
    assert (taken.cancel_requested, taken.prompt_tokens, taken.agent_type) == (True, 3, "universal")
    assert (taken.session_id, taken.user_message_id) == (session.session_id, claim.user_message_id)

    # The former owner comes back: nothing it does counts any more.
    with pytest.raises(LostClaimError):
        await any_scene.end(claim, "written too late")
    assert await any_scene.turns.checkpoint(any_scene.worker, [claim]) == set()
    await any_scene.end(taken, "half a sentence")
    await any_scene.audit()
    contents = [message.content for message in await any_scene.messages.tail(session.session_id, 10)]
    assert contents == ["hello", "half a sentence"]


async def test_a_step_of_tools_is_taken_over_with_its_calls(any_scene: Scene) -> None:
    claim = await any_scene.begun(await any_scene.session())
    calls = [Call(call_id=new_id(), name=name, arguments="{}", executor="server") for name in ("one", "two")]
    message = NewMessage(message_id=claim.message_id, ordinal=1, role="assistant", content="")
    move = Advance(step_state="tools", events=[event("message_created")], messages=[message], calls=calls)
    await any_scene.turns.advance(claim, move, any_scene.now())
    start = Advance(step_state="tools", started_calls=[calls[0].call_id])
    await any_scene.turns.advance(claim, start, any_scene.now())
    (taken,) = await any_scene.turns.claim(new_id(), [], 10)
    assert taken.state == "tools"
    # What was begun may have had its effect: the new owner sees that it was.
    assert [call.state for call in (await any_scene.turns.calls(taken)).calls] == ["running", "ready"]
    with pytest.raises(LostClaimError):
        await any_scene.turns.calls(claim)
    start = Advance(step_state="tools", started_calls=[calls[1].call_id])
    with pytest.raises(LostClaimError):
        await any_scene.turns.advance(claim, start, any_scene.now())
    await any_scene.turns.advance(taken, start, any_scene.now())
    assert [call.state for call in (await any_scene.turns.calls(taken)).calls] == ["running", "running"]
    await any_scene.audit()


async def test_a_worker_claims_those_of_its_own_that_it_does_not_know_of(any_scene: Scene) -> None:
    """Created by a statement whose answer was lost. Those it runs, or has just asked for, are known."""
    await any_scene.alive(any_scene.worker)
    known, expected, lost = [await any_scene.begun(await any_scene.session()) for _ in range(3)]
    knows = [known.turn_id, expected.turn_id, new_id()]
    (taken,) = await any_scene.turns.claim(any_scene.worker, knows, 10)
    assert (taken.turn_id, taken.attempt, taken.worker_id) == (lost.turn_id, 2, any_scene.worker)
    assert await any_scene.turns.claim(any_scene.worker, [*knows, lost.turn_id], 10) == []
    with pytest.raises(LostClaimError):
        await any_scene.end(lost)
    for claim in (known, expected, taken):
        await any_scene.end(claim)
    assert await any_scene.turns.claim(any_scene.worker, [], 10) == []
    await any_scene.audit()


async def test_what_is_done_or_deleted_is_claimed_by_nobody(any_scene: Scene) -> None:
    done, session = await any_scene.begun(await any_scene.session()), await any_scene.session()
    gone = await any_scene.begun(session)
    await any_scene.end(done)
    await any_scene.sessions.delete(session, any_scene.now())
    assert await any_scene.turns.claim(new_id(), [], 10) == []
    with pytest.raises(LostClaimError):
        await any_scene.end(gone)
    assert await any_scene.turns.checkpoint(any_scene.worker, [gone]) == set()


async def test_the_oldest_are_claimed_first_and_no_more_than_asked_for(any_scene: Scene) -> None:
    begun = [await any_scene.begun(await any_scene.session()) for _ in range(5)]
    heir = new_id()
    await any_scene.alive(heir)
    taken: list[Claim] = []
    for _ in range(3):
        taken += await any_scene.turns.claim(heir, [claim.turn_id for claim in taken], 2)
    assert [claim.turn_id for claim in taken] == [claim.turn_id for claim in begun]


async def test_claiming_waits_for_nobody(any_scene: Scene) -> None:
    """A step that somebody is just writing to is not lost; the next sweep will see."""
    busy, free = [await any_scene.begun(await any_scene.session()) for _ in range(2)]
    async with rival_scene(any_scene.database) as (elsewhere, _):
        await elsewhere.end(busy)
        taken = await any_scene.turns.claim(new_id(), [], 10)
    assert [claim.turn_id for claim in taken] == [free.turn_id]
    await any_scene.audit()


async def test_one_of_two_owners_ends_the_turn(any_opener: Open) -> None:
    """Both write at once, over connections of their own; the fence lets one through, whichever comes first."""
    scene, heir = await any_opener(), await any_opener()
    for _ in range(10):
        claim = await scene.begun(await scene.session())
        (taken,) = await heir.turns.claim(heir.worker, [], 10)
        ended = await asyncio.gather(scene.end(claim, "old"), heir.end(taken, "new"), return_exceptions=True)
        assert [type(outcome) for outcome in ended] == [LostClaimError, type(None)]
    await scene.audit()


async def test_takeovers_in_a_row_count_attempts(any_opener: Open) -> None:
    scenes = [await any_opener(max_size=2) for _ in range(4)]
    begun = [await scenes[0].begun(await scenes[0].session()) for _ in range(12)]
    # Nobody has a lease: everybody takes everything from everybody.
    claims = [
        claim for _ in range(5) for taken in await asyncio.gather(*(_claim(s) for s in scenes)) for claim in taken
    ]
    newest = {claim.turn_id: claim for claim in sorted(claims, key=lambda claim: claim.attempt)}
    assert set(newest) == {claim.turn_id for claim in begun}
    assert max(Counter((claim.turn_id, claim.attempt) for claim in claims).values()) == 1
    for claim in claims:
        ending = scenes[0].end(msgspec.structs.replace(claim))
        if claim is newest[claim.turn_id]:
            await ending
        elif claim.attempt < newest[claim.turn_id].attempt:
            with pytest.raises(LostClaimError):
                await ending
    await scenes[0].audit()


async def _claim(scene: Scene) -> list[Claim]:
    return await scene.turns.claim(scene.worker, [], 100)
