"""Turns: every move is one fenced transaction, and may be sent again when its answer was lost."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec
import pytest

from storage.ids import new_id
from storage.turns import Advance, Call, Claim, EndedCall, LostClaimError, NewMessage
from tests.storage.scene import Scene, event


def calling(claim: Claim, *calls: Call) -> Advance:
    """The step ends in calls of tools."""
    message = NewMessage(
        message_id=claim.message_id,
        ordinal=1,
        role="assistant",
        content="let me see",
        reasoning="hm",
        tool_calls=b'[{"call_id":"x"}]',
        agent_type="universal",
        finish_reason="tool_calls",
    )
    return Advance(
        step_state="tools",
        events=[event("message_created"), *(event("tool_call") for _ in calls)],
        messages=[message],
        calls=calls,
        prompt_tokens=10,
        completion_tokens=5,
    )


def answering(call: Call, *, failed: bool = False, **more: Any) -> Advance:
    """A call has its result, and the next step begins if `next_message_id` is given."""
    result = NewMessage(message_id=new_id(), ordinal=1, role="tool", content="42", name="t", call_id=call.call_id)
    return Advance(
        **{
            "step_state": "tools",
            "events": [event("tool_result")],
            "messages": [result],
            "ended_calls": [EndedCall(call_id=call.call_id, state="failed" if failed else "completed")],
            **more,
        }
    )


async def states(scene: Scene, claim: Claim) -> list[str]:
    """How the calls of the step stand."""
    return [found.state for found in (await scene.turns.calls(claim)).calls]


def call(name: str = "t") -> Call:
    return Call(call_id=new_id(), name=name, arguments='{"a": 1}', executor="server")


@pytest.mark.feature("S13", "S16", "S17")
async def test_a_turn_through_all_its_moves(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    one, two = call("one"), call("two")
    advanced = await any_scene.turns.advance(claim, calling(claim, one, two), any_scene.now())
    assert (advanced.cancel_requested, advanced.queued, claim.revision) == (False, 0, 1)
    assert advanced.commit is not None
    assert [stored.seq for stored in advanced.commit.events] == [3, 4, 5]
    found = await any_scene.turns.calls(claim)
    assert [msgspec.structs.replace(each, ordinal=0) for each in found.calls] == [one, two]
    assert ([each.ordinal for each in found.calls], found.news, found.cancel_requested) == ([1, 2], 0, False)
    start = Advance(step_state="tools", started_calls=[one.call_id])
    await any_scene.turns.advance(claim, start, any_scene.now())
    assert await states(any_scene, claim) == ["running", "ready"]
    await any_scene.audit()

    await any_scene.turns.advance(claim, answering(one, failed=True), any_scene.now())
    assert await states(any_scene, claim) == ["failed", "ready"]
    await any_scene.say(session, "waits")
    stop = await any_scene.cancel(session, "stop", claim.turn_id)
    assert stop.turn_id == claim.turn_id
    answer_id = new_id()
    last = answering(two, step_state="done", next_message_id=answer_id)
    advanced = await any_scene.turns.advance(claim, last, any_scene.now())
    assert (advanced.cancel_requested, advanced.queued) == (True, 1)
    claim.begin_next(answer_id)
    await any_scene.audit()

    await any_scene.turns.advance(
        claim,
        any_scene.ending(claim, "so it is", error=("code", "why"), turn_state="failed", prompt_tokens=1),
        any_scene.now(),
    )
    await any_scene.audit()
    (turn,) = await any_scene.rows("SELECT * FROM turns WHERE turn_id = $1", claim.turn_id)
    assert (turn["state"], turn["error_code"], turn["error_message"]) == ("failed", "code", "why")
    assert (turn["prompt_tokens"], turn["completion_tokens"]) == (11, 5)
    assert turn["finished_at"] is not None
    calls = await any_scene.rows("SELECT * FROM tool_calls ORDER BY ordinal")
    assert [(row["state"], row["started_at"] is not None) for row in calls] == [("failed", True), ("completed", False)]
    history = await any_scene.messages.page(session.session_id, 0, 100)
    assert [(message.role, message.content) for message in history] == [
        ("user", "hello"),
        ("assistant", "let me see"),
        ("tool", "42"),
        ("tool", "42"),
        ("assistant", "so it is"),
    ]
    assert (history[1].tool_calls, history[1].reasoning, history[1].finish_reason) == (
        b'[{"call_id":"x"}]',
        "hm",
        "tool_calls",
    )
    assert history[2].call_id == one.call_id
    assert {message.turn_id for message in history} == {claim.turn_id}


async def test_a_move_whose_answer_was_lost_is_not_made_twice(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    unanswered = msgspec.structs.replace(claim)
    asked = call()
    move = calling(claim, asked)
    await any_scene.turns.advance(claim, move, any_scene.now())
    again = await any_scene.turns.advance(unanswered, move, any_scene.now())
    assert (again.commit, again.cancel_requested, again.queued) == (None, False, 0)
    assert unanswered.revision == claim.revision == 1
    await any_scene.audit()
    # Also the last one, after which the step is done.
    ending = answering(asked, step_state="done", turn_state="completed")
    await any_scene.turns.advance(claim, ending, any_scene.now())
    assert (await any_scene.turns.advance(unanswered, ending, any_scene.now())).commit is None
    await any_scene.audit()
    with pytest.raises(LostClaimError):
        await any_scene.turns.advance(claim, ending, any_scene.now())
    await any_scene.audit()


async def test_of_two_moves_at_once_one_happens(any_scene: Scene) -> None:
    """Two writers with one claim at one revision: the second takes the first one's write for its own."""
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    other = msgspec.structs.replace(claim)
    move = any_scene.ending(claim)
    first = await any_scene.turns.advance(claim, move, any_scene.now())
    second = await any_scene.turns.advance(other, move, any_scene.now())
    assert [first.commit is None, second.commit is None] == [False, True]
    await any_scene.audit()


@pytest.mark.parametrize("what", ["worker_id", "attempt", "revision", "step", "turn_id", "session_id"])
async def test_only_the_claimant_writes(any_scene: Scene, what: str) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    seq = (await any_scene.sessions.resolve("ada", str(session.session_id))).seq
    changed: Any = new_id() if what.endswith("_id") else 7
    with pytest.raises(LostClaimError):
        await any_scene.turns.advance(
            msgspec.structs.replace(claim, **{what: changed}), any_scene.ending(claim), any_scene.now()
        )
    assert await any_scene.turns.checkpoint(
        claim.worker_id if what != "worker_id" else changed, [msgspec.structs.replace(claim, **{what: changed})]
    ) == ({claim.turn_id} if what in {"revision", "session_id"} else set())
    assert (await any_scene.sessions.resolve("ada", str(session.session_id))).seq == seq
    await any_scene.audit()


async def test_a_failed_move_changes_nothing_and_can_be_put_right(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    clash = NewMessage(message_id=claim.user_message_id, ordinal=1, role="assistant", content="x")
    with pytest.raises(asyncpg.UniqueViolationError):
        await any_scene.turns.advance(claim, any_scene.ending(claim, messages=[clash]), any_scene.now())
    assert claim.revision == 0
    await any_scene.audit()
    await any_scene.end(claim)
    await any_scene.audit()


async def test_checkpoints_keep_texts_of_own_running_steps(any_scene: Scene) -> None:
    claims = [await any_scene.begun(await any_scene.session()) for _ in range(4)]
    for number, claim in enumerate(claims):
        claim.content, claim.reasoning = f"text {number} \U0001f600", f"thought {number}"
    await any_scene.end(claims[1])
    await any_scene.turns.advance(claims[2], calling(claims[2], call()), any_scene.now())
    claims[3].attempt = 2
    assert await any_scene.turns.checkpoint(any_scene.worker, claims) == {claims[0].turn_id}
    assert await any_scene.turns.checkpoint(new_id(), claims) == set()
    assert await any_scene.turns.checkpoint(any_scene.worker, []) == set()
    kept = await any_scene.rows("SELECT content, reasoning FROM turns WHERE content <> ''")
    assert [tuple(row) for row in kept] == [("text 0 \U0001f600", "thought 0")]
    # A move of the same step keeps its text, its end drops it: the message has it then.
    more = Advance(step_state="running", events=[event("x")])
    await any_scene.turns.advance(claims[0], more, any_scene.now())
    assert await any_scene.value("SELECT content FROM turns WHERE turn_id = $1", claims[0].turn_id) != ""
    await any_scene.end(claims[0])
    assert await any_scene.value("SELECT content || reasoning FROM turns WHERE turn_id = $1", claims[0].turn_id) == ""


async def test_a_call_is_started_by_its_claimant_and_ended_within_its_step(any_scene: Scene) -> None:
    claim, other = [await any_scene.begun(await any_scene.session()) for _ in range(2)]
    mine, theirs = call(), call()
    await any_scene.turns.advance(claim, calling(claim, mine), any_scene.now())
    await any_scene.turns.advance(other, calling(other, theirs), any_scene.now())
    start = Advance(step_state="tools", started_calls=[mine.call_id, theirs.call_id, new_id()])
    for stranger in (
        msgspec.structs.replace(claim, attempt=2),
        msgspec.structs.replace(claim, worker_id=new_id()),
        msgspec.structs.replace(claim, step=2),
    ):
        with pytest.raises(LostClaimError):
            await any_scene.turns.advance(stranger, start, any_scene.now())
    # It may begin again: a tool that can be repeated is, after a crash.
    for _ in range(2):
        await any_scene.turns.advance(claim, start, any_scene.now())
        assert (await states(any_scene, claim), await states(any_scene, other)) == (["running"], ["ready"])
    end = [EndedCall(call_id=each.call_id, state="completed") for each in (mine, theirs)]
    await any_scene.turns.advance(claim, answering(mine, ended_calls=end), any_scene.now())
    assert (await states(any_scene, claim), await states(any_scene, other)) == (["completed"], ["ready"])
    # What has its result keeps it.
    await any_scene.turns.advance(claim, start, any_scene.now())
    assert await states(any_scene, claim) == ["completed"]
    await any_scene.audit()


async def test_waiting_messages_begin_in_their_order_one_turn_at_a_time(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    texts = ["one", "two", "three"]
    for text in texts:
        await any_scene.say(session, text, text, client=f"client of {text}")
    assert await any_scene.turns.next_waiting(session.session_id) is None
    assert await any_scene.turns.waiting_sessions(10) == []
    begun = []
    while True:
        await any_scene.end(claim)
        waiting = await any_scene.turns.next_waiting(session.session_id)
        if waiting is None:
            break
        assert await any_scene.turns.waiting_sessions(10) == [session.session_id]
        assert (waiting.command_id, waiting.client_id) == (waiting.content, f"client of {waiting.content}")
        start = any_scene.start(session, waiting)
        # While a message waits, another one waits behind it, although no turn runs.
        assert (await any_scene.say(session, waiting.content, waiting.content)).status == "queued"
        commit = await any_scene.turns.start_waiting(start)
        assert commit is not None
        assert await any_scene.turns.start_waiting(start) is None
        assert await any_scene.turns.next_waiting(session.session_id) is None
        begun.append(waiting.content)
        claim = any_scene.claim(session, start)
        assert list(commit.events) == await any_scene.log.read(session.session_id, commit.events[0].seq - 1)
        await any_scene.audit()
    assert begun == texts
    stored = await any_scene.messages.page(session.session_id, 0, 100)
    assert [message.content for message in stored if message.role == "user"] == ["hello", *texts]


async def test_a_message_waits_before_the_next_turn_even_if_none_runs(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    await any_scene.say(session, "one")
    await any_scene.end(claim)
    assert (await any_scene.say(session, "two")).status == "queued"
    await any_scene.audit()


@pytest.mark.parametrize("direct", [False, True])
async def test_a_waiting_message_goes_to_the_agent_it_chose_or_to_the_sessions(any_scene: Scene, direct: bool) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    await any_scene.say(session, "waits", plan=any_scene.plan("x", agent="debug", direct=direct))
    await any_scene.end(claim)
    start = any_scene.start(session, await any_scene.waiting(session))
    assert start.agent_type == ("debug" if direct else "universal")
    await any_scene.switch(session, "switch", ("universal", "coder"))
    begun = await any_scene.turns.start_waiting(start)
    assert (begun is not None) == direct
    if not direct:
        start = any_scene.start(session, await any_scene.waiting(session))
        assert start.agent_type == "coder"
        assert await any_scene.turns.start_waiting(start) is not None
    await any_scene.audit()
