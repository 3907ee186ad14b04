"""Turns that answer other turns' calls, hand over, are steered and interrupted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import Reply, StaleError
from storage.ids import new_id
from storage.sessions import Session
from storage.turns import (
    Advance,
    AnsweredError,
    Call,
    Claim,
    LostClaimError,
    NewChild,
    NewMessage,
    ParentResult,
    RequestRow,
    SteerPlan,
    Switch,
)
from tests.storage.calling import Calling, asking, child_of, client_call, dispatch, ending, result_of
from tests.storage.scene import AGENT, NOW, Scene, event


def agent_call() -> Call:
    return Call(call_id=new_id(), name="ask_agent", arguments="{}", executor="agent")


def child_claim(parent: Claim, child: NewChild) -> Claim:
    """The first step of a turn that the parent's move has begun."""
    return Claim(
        session_id=parent.session_id,
        turn_id=child.turn_id,
        step=1,
        message_id=child.answer_id,
        state="running",
        worker_id=parent.worker_id,
        attempt=1,
        agent_type=child.agent_type,
        user_message_id=child.message_id,
        turn_created_at=NOW,
        owner=parent.owner,
        depth=parent.depth + 1,
        parent_call=child.call_id,
    )


async def begin_child(turn: Calling, call: Call, **more: Any) -> Claim:
    """The turn's call is asked of another agent."""
    child = child_of(call)
    await turn.move(
        Advance(step_state="tools", events=[event("message_created"), event("task_started")], children=[child], **more)
    )
    return child_claim(turn.claim, child)


def answer(child: Claim, parent: Claim, call: Call, **more: Any) -> Advance:
    """The child's last move: its own message, and the parent's result."""
    own = NewMessage(message_id=child.message_id, ordinal=1, role="assistant", content="so it is", thread=child.turn_id)
    thread = parent.turn_id if parent.depth else None
    result = result_of(call, "so it is", ordinal=2, turn_id=parent.turn_id, thread=thread)
    return Advance(
        **{
            "step_state": "done",
            "turn_state": "completed",
            "events": [event("message_created"), event("tool_result"), event("task_completed")],
            "messages": [own, result],
            "parent_result": ParentResult(call_id=call.call_id, state="completed"),
            **more,
        }
    )


async def test_an_agent_answers_another_ones_call_in_a_turn_of_its_own(any_scene: Scene) -> None:
    call = agent_call()
    turn = await Calling.begun(any_scene, call)
    child = await begin_child(turn, call, park=True, expected_news=0)
    assert await turn.state() == ("waiting", 0)
    row = await turn.row(call)
    assert (row["state"], row["child_turn"], row["started_at"] is not None) == ("running", child.turn_id, True)
    session = await any_scene.sessions.resolve("ada", str(turn.session.session_id))
    assert (session.active_turn, session.message_count) == (turn.claim.turn_id, 2)
    await any_scene.audit()
    # Its messages are its own: neither the conversation nor who reads it sees them.
    thread = await any_scene.messages.tail(turn.session.session_id, 10, thread=child.turn_id)
    assert [(message.role, message.content) for message in thread] == [("user", "the task")]
    assert len(await any_scene.messages.tail(turn.session.session_id, 10)) == 2
    assert len(await any_scene.messages.page(turn.session.session_id, 0, 10)) == 2

    # A crash hands it to another process, with its place.
    (taken,) = await any_scene.turns.claim(new_id(), [], 10)
    assert (taken.turn_id, taken.depth, taken.parent_call, taken.owner) == (child.turn_id, 1, call.call_id, "ada")
    advanced = await any_scene.turns.advance(taken, answer(taken, turn.claim, call), any_scene.now())
    assert advanced.parent is not None
    assert (advanced.parent.turn_id, advanced.parent.worker_id) == (turn.claim.turn_id, taken.worker_id)
    assert (advanced.parent.news, advanced.parent.state, advanced.parent.attempt) == (1, "tools", 2)
    assert (advanced.parked, advanced.commit is not None) == (False, True)
    await any_scene.audit()
    assert (await turn.row(call))["state"] == "completed"
    session = await any_scene.sessions.resolve("ada", str(turn.session.session_id))
    assert (session.active_turn, session.message_count) == (turn.claim.turn_id, 3)
    assert [m.content for m in await any_scene.messages.tail(turn.session.session_id, 10)][-1] == "so it is"
    assert len(await any_scene.messages.tail(turn.session.session_id, 10, thread=child.turn_id)) == 2
    # Its answer was lost: the move is not made twice, and the parent's new claim is found by the sweep.
    unanswered = msgspec.structs.replace(taken, revision=taken.revision - 1)
    again = await any_scene.turns.advance(unanswered, answer(taken, turn.claim, call), any_scene.now())
    assert (again.commit, again.parent) == (None, None)
    (parent,) = await any_scene.turns.claim(taken.worker_id, [], 10)
    assert parent.turn_id == turn.claim.turn_id
    await any_scene.turns.advance(
        parent, Advance(step_state="done", turn_state="completed", expected_news=1), any_scene.now()
    )
    await any_scene.audit()


async def test_a_parent_that_runs_is_told_and_not_claimed(any_scene: Scene) -> None:
    call, own = agent_call(), client_call()
    turn = await Calling.begun(any_scene, call, own)
    child = await begin_child(turn, call)
    advanced = await any_scene.turns.advance(child, answer(child, turn.claim, call), any_scene.now())
    assert advanced.parent is None
    assert await turn.state() == ("running", 1)
    await any_scene.audit()


async def test_a_call_that_has_its_result_is_answered_by_no_child(any_scene: Scene) -> None:
    call = agent_call()
    turn = await Calling.begun(any_scene, call)
    child = await begin_child(turn, call)
    # What no engine does: the audit would tell of it, as the child goes on.
    await turn.move(ending(turn.claim, call, state="failed"))
    with pytest.raises(AnsweredError):
        await any_scene.turns.advance(child, answer(child, turn.claim, call), any_scene.now())
    own = answer(child, turn.claim, call)
    await any_scene.turns.advance(
        child,
        msgspec.structs.replace(
            own, parent_result=None, messages=own.messages[:1], events=[own.events[0], own.events[2]]
        ),
        any_scene.now(),
    )
    await any_scene.audit()


async def test_a_childs_own_calls_wait_and_are_answered_in_its_thread(any_scene: Scene) -> None:
    call = agent_call()
    turn = await Calling.begun(any_scene, call)
    child = await begin_child(turn, call, park=True, expected_news=0)
    inner, deeper = client_call(), agent_call()
    await any_scene.turns.advance(child, asking(child, inner, deeper), any_scene.now())
    below = Calling(any_scene, turn.session, child)
    grandchild = await begin_child(below, deeper, dispatches=[dispatch(inner)], park=True, expected_news=0)
    assert grandchild.depth == 2
    found = await any_scene.calls.find(turn.session.session_id, inner.call_id)
    assert found is not None
    assert (found.thread, found.parent_call) == (child.turn_id, call.call_id)
    (claim,) = (await below.result(inner)).claims
    assert (claim.turn_id, claim.depth) == (child.turn_id, 1)
    session = await any_scene.sessions.resolve("ada", str(turn.session.session_id))
    assert session.message_count == 2
    advanced = await any_scene.turns.advance(grandchild, answer(grandchild, claim, deeper), any_scene.now())
    assert advanced.parent is None
    await any_scene.audit()
    history = await any_scene.messages.tail(turn.session.session_id, 10, thread=child.turn_id)
    assert [message.role for message in history] == ["user", "assistant", "tool", "tool"]


@pytest.mark.feature("A04")
async def test_a_cancellation_reaches_all_turns_below(any_scene: Scene) -> None:
    call, second = agent_call(), agent_call()
    turn = await Calling.begun(any_scene, call, second)
    child = await begin_child(turn, call)
    other = await begin_child(turn, second, park=True, expected_news=0)
    await any_scene.turns.advance(child, asking(child, client_call(), park=True), any_scene.now())
    reply = await turn.cancel()
    assert {claim.turn_id for claim in reply.claims} == {turn.claim.turn_id, child.turn_id}
    assert all(claim.cancel_requested for claim in reply.claims)
    found = await any_scene.turns.news_of([turn.claim.turn_id, child.turn_id, other.turn_id])
    assert [asked for _, asked in found.values()] == [True] * 3
    # Whoever ends a turn that answers a call leaves the session with the turn that asked.
    taken = next(claim for claim in reply.claims if claim.turn_id == child.turn_id)
    step = await any_scene.turns.calls(taken)
    last = ending(taken, *step.calls, state="cancelled")
    parent = next(claim for claim in reply.claims if claim.turn_id == turn.claim.turn_id)
    move = answer(taken, parent, call, turn_state="cancelled")
    result = msgspec.structs.replace(move.messages[1], ordinal=2)
    await any_scene.turns.advance(
        taken,
        msgspec.structs.replace(
            last,
            step_state="done",
            turn_state="cancelled",
            events=[*last.events, event("tool_result"), event("task_completed")],
            messages=[*last.messages, result],
            parent_result=ParentResult(call_id=call.call_id, state="cancelled"),
            expected_news=step.news,
        ),
        any_scene.now(),
    )
    session = await any_scene.sessions.resolve("ada", str(turn.session.session_id))
    assert session.active_turn == turn.claim.turn_id
    await any_scene.audit()


async def test_a_deleted_session_takes_turns_below_along(any_scene: Scene) -> None:
    call = agent_call()
    turn = await Calling.begun(any_scene, call)
    await begin_child(turn, call, park=True, expected_news=0)
    await any_scene.sessions.delete(turn.session, any_scene.now())
    await any_scene.audit()
    assert await any_scene.value("SELECT count(*) FROM turns") == 0


# --- handing over


@pytest.mark.feature("A05")
async def test_a_turn_is_handed_over_with_its_session(any_scene: Scene) -> None:
    call = Call(call_id=new_id(), name="handoff", arguments="{}", executor="server")
    turn = await Calling.begun(any_scene, call)
    answer_id = new_id()
    move = ending(
        turn.claim,
        call,
        events=[event("agent_switched"), event("tool_result")],
        messages=[result_of(call, ordinal=2)],
        switch=Switch(to_agent="coder", reason="code", confidence=0.5, ordinal=1),
        step_state="done",
        next_message_id=answer_id,
        expected_news=0,
    )
    advanced = await turn.move(move)
    assert advanced.commit is not None
    session = await any_scene.sessions.resolve("ada", str(turn.session.session_id))
    assert session.current_agent == "coder"
    (row,) = await any_scene.rows("SELECT agent_type, switches, step, step_state FROM turns")
    assert tuple(row) == ("coder", 1, 2, "running")
    (switch,) = await any_scene.rows("SELECT * FROM agent_switches")
    assert (switch["seq"], switch["from_agent"], switch["to_agent"]) == (
        advanced.commit.events[0].seq,
        AGENT,
        "coder",
    )
    assert (switch["reason"], switch["confidence"], switch["cause"], switch["turn_id"]) == (
        "code",
        0.5,
        "agent",
        turn.claim.turn_id,
    )
    (taken,) = await any_scene.turns.claim(new_id(), [], 10)
    assert (taken.agent_type, taken.switches, taken.step, taken.message_id) == ("coder", 1, 2, answer_id)
    await any_scene.audit()


async def test_a_turn_that_answers_a_call_hands_over_itself_alone(any_scene: Scene) -> None:
    call, hand = agent_call(), Call(call_id=new_id(), name="handoff", arguments="{}", executor="server")
    turn = await Calling.begun(any_scene, call)
    child = await begin_child(turn, call, park=True, expected_news=0)
    await any_scene.turns.advance(child, asking(child, hand), any_scene.now())
    move = ending(child, hand, switch=Switch(to_agent="debug", ordinal=1), step_state="done", next_message_id=new_id())
    await any_scene.turns.advance(child, move, any_scene.now())
    assert (await any_scene.sessions.resolve("ada", str(turn.session.session_id))).current_agent == AGENT
    assert await any_scene.value("SELECT agent_type FROM turns WHERE depth = 1") == "debug"
    await any_scene.audit()


@pytest.mark.feature("S26")
async def test_a_persons_switch_is_noted_with_its_reason(any_scene: Scene) -> None:
    session = await any_scene.session()
    reply = await any_scene.commands.switch_agent(
        any_scene.head(session, "a", "coder"), (AGENT, "coder"), [event("agent_switched")], "it is code", 0.9
    )
    (switch,) = await any_scene.rows("SELECT * FROM agent_switches")
    assert (switch["seq"], switch["to_agent"], switch["reason"], switch["confidence"], switch["cause"]) == (
        reply.seq,
        "coder",
        "it is code",
        0.9,
        "client",
    )
    assert (switch["user_id"], switch["turn_id"]) == ("ada", None)
    assert (await any_scene.switch(session, "a", (AGENT, "coder"))).commit is None
    assert await any_scene.value("SELECT count(*) FROM agent_switches") == 1


async def test_costs_add_up_where_a_price_is_known(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    row = RequestRow(model="m", started_at=NOW, duration_ms=1, finish_reason="stop", cost=Decimal("0.0000015"))
    await any_scene.turns.advance(claim, Advance(step_state="running", cost=None), any_scene.now())
    assert await any_scene.value("SELECT cost FROM turns") is None
    move = Advance(step_state="running", cost=row.cost, request=row)
    await any_scene.turns.advance(claim, move, any_scene.now())
    await any_scene.turns.advance(claim, Advance(step_state="running", cost=Decimal(2)), any_scene.now())
    (taken,) = await any_scene.turns.claim(new_id(), [], 10)
    assert taken.cost == Decimal("2.0000015")
    (request,) = await any_scene.rows("SELECT * FROM requests")
    assert (request["cost"], request["finish_reason"], request["error_code"]) == (row.cost, "stop", None)


# --- steering and interrupting


async def steer(scene: Scene, session: Session, command_id: str, *, busy: bool = True) -> UUID:
    reply = await scene.say(session, command_id, command_id, busy=busy, on_busy="steer")
    assert reply.status == "queued"
    assert reply.message_id is not None
    return reply.message_id


def steering(*messages: UUID) -> SteerPlan:
    events = [each for _ in messages for each in (event("queue_changed"), event("message_created"))]
    return SteerPlan(
        messages=[(message_id, 2 * number) for number, message_id in enumerate(messages, start=1)],
        events=events,
        now=NOW,
    )


@pytest.mark.feature("A04")
async def test_a_steering_message_joins_the_running_turn(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    waits = (await any_scene.say(session, "waits", busy=True)).message_id
    one, two = await steer(any_scene, session, "one"), await steer(any_scene, session, "two", busy=False)
    advanced = await any_scene.turns.advance(claim, Advance(step_state="running"), any_scene.now())
    assert (advanced.queued, advanced.steering) == (3, True)
    found = await any_scene.turns.steering(session.session_id)
    assert [(each.message_id, each.content, each.command_id) for each in found] == [
        (one, "one", "one"),
        (two, "two", "two"),
    ]
    unanswered = msgspec.structs.replace(claim)
    steered = await any_scene.turns.steer(claim, steering(one, two))
    assert steered is not None
    assert steered.commit is not None
    assert (steered.queued, steered.steering, claim.revision) == (1, False, 2)
    assert list(steered.commit.events) == await any_scene.log.read(session.session_id, steered.commit.events[0].seq - 1)
    await any_scene.audit()
    again = await any_scene.turns.steer(unanswered, steering(one, two))
    assert again is not None
    assert (again.commit, unanswered.revision) == (None, 2)
    assert await any_scene.turns.steer(claim, steering(one)) is None
    with pytest.raises(LostClaimError):
        await any_scene.turns.steer(msgspec.structs.replace(claim, attempt=7), steering(one))
    history = await any_scene.messages.tail(session.session_id, 10)
    assert [(message.content, message.turn_id) for message in history] == [
        ("hello", claim.turn_id),
        ("one", claim.turn_id),
        ("two", claim.turn_id),
    ]
    await any_scene.end(claim)
    assert (await any_scene.waiting(session)).message_id == waits
    await any_scene.audit()


async def test_a_steering_message_that_comes_too_late_is_the_next_turns(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    late = await steer(any_scene, session, "late")
    await any_scene.end(claim)
    waiting = await any_scene.waiting(session)
    assert waiting.message_id == late
    assert await any_scene.turns.start_waiting(any_scene.start(session, waiting)) is not None
    # In an idle session it is a message as any other.
    idle = await any_scene.session()
    assert (await any_scene.say(idle, "steer", on_busy="steer")).status == "accepted"
    await any_scene.audit()


async def test_a_steering_message_taken_back_is_not_taken(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    one, two = await steer(any_scene, session, "one"), await steer(any_scene, session, "two")
    await any_scene.remove(session, "remove", one)
    assert await any_scene.turns.steer(claim, steering(one, two)) is None
    assert claim.revision == 0
    assert await any_scene.turns.steer(claim, steering(two)) is not None
    await any_scene.audit()


async def interrupt(
    scene: Scene, session: Session, command_id: str, turn_id: UUID | None, *, most: int = 100, **head: Any
) -> Reply:
    plan = scene.plan(command_id)
    events = [event("queue_changed", command_id), *([event("task_cancelling")] if turn_id is not None else [])]
    return await scene.commands.interrupt(
        scene.head(session, command_id, command_id, **head), plan, turn_id, events, most
    )


@pytest.mark.feature("A04")
async def test_an_interruption_comes_first_and_stops_what_runs(any_scene: Scene) -> None:
    turn = await Calling.begun(any_scene, client_call(), park=True)
    session, turn_id = turn.session, turn.claim.turn_id
    first = (await any_scene.say(session, "waits", busy=True)).message_id
    with pytest.raises(StaleError) as stale:
        await any_scene.say(session, "now", busy=True, on_busy="interrupt")
    assert stale.value.active_turn == turn_id
    with pytest.raises(StaleError):
        await interrupt(any_scene, session, "now", None)
    with pytest.raises(StaleError):
        await interrupt(any_scene, session, "now", new_id())
    with pytest.raises(ParleyError) as full:
        await interrupt(any_scene, session, "now", turn_id, most=1)
    assert full.value.code is ErrorCode.QUEUE_FULL
    reply = await interrupt(any_scene, session, "now", turn_id, n=1)
    (claim,) = reply.claims
    assert (claim.turn_id, claim.cancel_requested) == (turn_id, True)
    assert reply.commit is not None
    assert [each.event_type for each in reply.commit.events] == ["queue_changed", "task_cancelling"]
    again = await interrupt(any_scene, session, "now", turn_id, n=1)
    assert (again.commit, again.seq, again.message_id) == (None, reply.seq, reply.message_id)
    later = await interrupt(any_scene, session, "again", turn_id)
    await any_scene.audit()
    await turn.end_all(claim)
    begun = []
    for _ in range(3):
        waiting = await any_scene.waiting(session)
        begun.append(waiting.message_id)
        start = any_scene.start(session, waiting)
        assert await any_scene.turns.start_waiting(start) is not None
        await any_scene.end(any_scene.claim(session, start))
    assert begun == [later.message_id, reply.message_id, first]
    with pytest.raises(StaleError):
        await interrupt(any_scene, session, "idle", None)
    assert (await any_scene.say(session, "idle", on_busy="interrupt")).status == "accepted"
    await any_scene.audit()


async def test_an_interruption_between_two_turns_comes_first_too(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    await any_scene.say(session, "waits", busy=True)
    await any_scene.end(claim)
    with pytest.raises(StaleError) as stale:
        await any_scene.say(session, "now", on_busy="interrupt")
    assert stale.value.active_turn is None
    reply = await interrupt(any_scene, session, "now", None)
    assert (reply.status, reply.claims) == ("queued", [])
    assert (await any_scene.waiting(session)).message_id == reply.message_id
    await any_scene.audit()
