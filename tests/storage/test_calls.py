"""Calls that wait: asked, parked, dispatched, answered, decided, given back; one statement each."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from storage.commands import NewRule
from storage.ids import new_id
from storage.turns import (
    Advance,
    Call,
    LostClaimError,
    NewAudit,
    NewsError,
    OpenApproval,
    RequestRow,
)
from tests.storage.calling import (
    BEFORE,
    LATER,
    Calling,
    approval_of,
    asked_call,
    asking,
    client_call,
    dispatch,
    ending,
)
from tests.storage.scene import NOW, Scene, event


async def refusal(work: Awaitable[object]) -> ParleyError:
    with pytest.raises(ParleyError) as refused:
        await work
    return refused.value


# --- stored and parked


@pytest.mark.feature("A03")
async def test_a_step_ends_in_calls_approvals_and_a_parked_turn_in_one_move(any_scene: Scene) -> None:
    free = client_call("look", read_only=True, independent=True, deadline=LATER)
    asked = asked_call(expires_at=LATER)
    denied = client_call("never", state="failed")
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    move = asking(
        claim,
        free,
        asked,
        denied,
        park=True,
        audits=[NewAudit(event_type="tool_policy", call_id=denied.call_id, decision="reject", cause="rule")],
        request=RequestRow(
            model="m", started_at=NOW, duration_ms=7, finish_reason="tool_calls", prompt_tokens=3, tools=3
        ),
    )
    refused = msgspec.structs.replace(ending(claim, denied).messages[0], ordinal=len(move.events) + 1)
    move = msgspec.structs.replace(
        move, events=[*move.events, event("tool_result")], messages=[*move.messages, refused]
    )
    advanced = await any_scene.turns.advance(claim, move, any_scene.now())
    assert (advanced.parked, advanced.news, advanced.steering, advanced.parent) == (True, 0, False, None)
    await any_scene.audit()

    (turn,) = await any_scene.rows("SELECT * FROM turns")
    assert (turn["state"], turn["step_state"], turn["revision"]) == ("waiting", "tools", 1)
    one, two, three = await any_scene.rows("SELECT * FROM tool_calls ORDER BY ordinal")
    assert (one["name"], one["state"], one["read_only"], one["independent"], one["deadline"]) == (
        "look",
        "ready",
        True,
        True,
        LATER,
    )
    assert (two["state"], two["finished_at"]) == ("awaiting_approval", None)
    assert (three["state"], three["finished_at"] is not None) == ("failed", True)
    (audit,) = await any_scene.rows("SELECT * FROM audit")
    assert (audit["owner"], audit["session_id"], audit["turn_id"]) == ("ada", session.session_id, claim.turn_id)
    (request,) = await any_scene.rows("SELECT * FROM requests")
    assert (request["owner"], request["agent_type"], request["step"], request["attempt"]) == ("ada", "universal", 1, 1)
    assert (request["duration_ms"], request["prompt_tokens"], request["tools"], request["model"]) == (7, 3, 3, "m")

    (open_,) = await any_scene.approvals.open(session.session_id)
    assert (open_.call_id, open_.message_id, open_.arguments) == (asked.call_id, claim.message_id, '{"a": 1}')
    assert (open_.arguments_hash, open_.parameters) == (b"\x00\xffhash", b'{"type":"object"}')
    assert open_.allowed_decisions == ("approve", "edit", "reject")
    assert (open_.rule, open_.reason, open_.expires_at) == ("policies[0]", "it removes", LATER)
    assert await any_scene.approvals.open_of_owner("ada", 10) == [open_]
    assert await any_scene.approvals.open_of_owner("ada", 10, open_.approval_id) == []
    assert await any_scene.approvals.open_of_owner("eve", 10) == []


async def test_a_waiting_turn_belongs_to_nobody(any_scene: Scene) -> None:
    turn = await Calling.begun(any_scene, client_call(), park=True)
    # No worker has a lease, and yet no sweep takes it; the former owner writes nothing more.
    assert await any_scene.turns.claim(new_id(), [], 10) == []
    assert await any_scene.turns.claim(any_scene.worker, [], 10) == []
    stale = msgspec.structs.replace(turn.claim, revision=0)
    with pytest.raises(LostClaimError):
        await any_scene.turns.advance(
            msgspec.structs.replace(turn.claim, revision=5), Advance(step_state="tools"), any_scene.now()
        )
    # Sent again because its answer was lost, the move that parked it is what it was.
    again = await any_scene.turns.advance(
        stale, Advance(step_state="tools", park=True, expected_news=0), any_scene.now()
    )
    assert (again.commit, again.parked) == (None, True)
    await any_scene.audit()


async def test_news_keep_a_turn_from_waiting_and_a_move_from_being_written(any_scene: Scene) -> None:
    call = client_call()
    turn = await Calling.begun(any_scene, call)
    await turn.move(Advance(step_state="tools", dispatches=[dispatch(call)]))
    assert (await turn.result(call)).claims == []
    assert await turn.state() == ("running", 1)
    with pytest.raises(NewsError) as news:
        await turn.park()
    assert news.value.news == 1
    with pytest.raises(NewsError):
        await turn.move(ending(turn.claim, call, expected_news=0))
    assert turn.claim.revision == 2
    step = await any_scene.turns.calls(turn.claim)
    assert (step.news, step.calls[0].state, step.calls[0].open) == (1, "completed", False)
    await any_scene.audit()
    # Where the move is to be written in any case, it only does not park.
    other = await any_scene.begun(await any_scene.session())
    await any_scene.rows("UPDATE turns SET news = 1 WHERE turn_id = $1", other.turn_id)
    advanced = await any_scene.turns.advance(other, asking(other, client_call(), park=True), any_scene.now())
    assert (advanced.commit is not None, advanced.parked, advanced.news) == (True, False, 1)
    await any_scene.audit()


# --- results of clients


@pytest.mark.feature("S13", "S25", "A02")
async def test_a_result_wakes_the_turn_that_waits_for_it(any_scene: Scene) -> None:
    call, other = client_call(), client_call()
    turn = await Calling.begun(any_scene, call, other)
    await turn.park(dispatches=[dispatch(call), dispatch(other)], events=[event("tool_dispatched")])
    dispatched = await turn.row(call)
    assert (dispatched["state"], dispatched["client_id"], dispatched["executors"]) == ("running", "c1", ["c1"])
    assert (dispatched["deadline"], dispatched["started_at"] is not None) == (LATER, True)
    found = await any_scene.calls.find(turn.session.session_id, call.call_id)
    assert found is not None
    assert (found.turn_id, found.agent_type, found.message_id) == (
        turn.claim.turn_id,
        "universal",
        turn.claim.message_id,
    )
    assert (found.thread, found.approval, found.owner) == (None, None, "ada")

    reply = await turn.result(call)
    assert (reply.status, reply.turn_id) == ("accepted", turn.claim.turn_id)
    assert reply.commit is not None
    (claim,) = reply.claims
    assert (claim.turn_id, claim.worker_id, claim.attempt) == (turn.claim.turn_id, any_scene.worker, 2)
    assert (claim.state, claim.revision, claim.news, claim.owner) == ("tools", 3, 1, "ada")
    assert (claim.step, claim.message_id, claim.depth, claim.parent_call) == (1, turn.claim.message_id, 0, None)
    assert (claim.session_id, claim.user_message_id, claim.cost) == (
        turn.session.session_id,
        turn.claim.user_message_id,
        None,
    )
    assert await turn.state() == ("running", 1)
    # The second result finds somebody at work.
    assert (await turn.result(other, "second")).claims == []
    step = await any_scene.turns.calls(claim)
    assert ([each.state for each in step.calls], step.news) == (["completed", "completed"], 2)
    await any_scene.audit()
    answer = new_id()
    await any_scene.turns.advance(
        claim, Advance(step_state="done", next_message_id=answer, expected_news=2), any_scene.now()
    )
    claim.begin_next(answer)
    await any_scene.end(claim)
    await any_scene.audit()
    history = await any_scene.messages.tail(turn.session.session_id, 10)
    assert [message.role for message in history] == ["user", "assistant", "tool", "tool", "assistant"]


@pytest.mark.feature("S25")
async def test_a_result_is_stored_once_and_its_repeat_is_told_the_same(any_scene: Scene) -> None:
    call = client_call()
    turn = await Calling.begun(any_scene, call)
    await turn.park(dispatches=[dispatch(call)])
    first = await turn.result(call, n=1)
    again = await turn.result(call, n=1)
    assert (again.commit, again.claims, again.seq, again.turn_id) == (None, [], first.seq, first.turn_id)
    conflict = await refusal(turn.result(call, body="another"))
    assert (conflict.code, conflict.path) == (ErrorCode.CONFLICT, "$.id")
    late = await refusal(turn.result(call, "late", n=2))
    assert (late.code, late.path, late.message) == (
        ErrorCode.ALREADY_RESOLVED,
        "$.call_id",
        "the call is completed already, by c1",
    )
    await any_scene.audit()


@pytest.mark.feature("A02")
async def test_only_who_has_or_had_a_call_answers_it(any_scene: Scene) -> None:
    call, asked, mine = client_call(), asked_call(), Call(call_id=new_id(), name="s", arguments="{}", executor="server")
    turn = await Calling.begun(any_scene, call, asked, mine)
    other = await Calling.begun(any_scene, client_call())
    await turn.move(Advance(step_state="tools", dispatches=[dispatch(call, "c1")]))
    await turn.park(dispatches=[dispatch(call, "c2")])
    assert (await turn.row(call))["executors"] == ["c1", "c2"]
    for who, what, code in (
        ("c3", call, ErrorCode.FORBIDDEN),
        (None, call, ErrorCode.FORBIDDEN),
        ("c1", asked, ErrorCode.FORBIDDEN),
        ("c1", mine, ErrorCode.FORBIDDEN),
        ("c1", client_call(), ErrorCode.NOT_FOUND),
    ):
        assert (await refusal(turn.result(what, client=who))).code is code
    # A call of another session is none of this one.
    assert (await refusal(other.result(call))).code is ErrorCode.NOT_FOUND
    # The former executor is first.
    assert len((await turn.result(call, client="c1")).claims) == 1
    assert (await refusal(turn.result(call, "too late", client="c2"))).code is ErrorCode.ALREADY_RESOLVED
    await any_scene.audit()


@pytest.mark.parametrize("client", ["c9", None])
async def test_where_nobody_has_a_call_anybody_answers_it(any_scene: Scene, client: str | None) -> None:
    call = client_call()
    turn = await Calling.begun(any_scene, call)
    await turn.park(dispatches=[dispatch(call, None)])
    assert (await turn.row(call))["state"] == "ready"
    assert len((await turn.result(call, client=client)).claims) == 1
    row = await turn.row(call)
    assert (row["client_id"], row["executors"]) == (client, [client] if client is not None else [])
    await any_scene.audit()


# --- decisions


@pytest.mark.feature("S27", "A03", "R02")
@pytest.mark.parametrize("decision", ["approve", "edit", "reject", "respond"])
async def test_a_decision_moves_its_call_and_leaves_a_trace(any_scene: Scene, decision: str) -> None:
    call, other = asked_call(), asked_call()
    turn = await Calling.begun(any_scene, call, other, park=True)
    reply = await turn.decide(call, decision)
    (claim,) = reply.claims
    assert (claim.turn_id, claim.news, reply.turn_id) == (turn.claim.turn_id, 1, turn.claim.turn_id)
    row = await turn.row(call)
    settled = decision in ("reject", "respond")
    expected = {"approve": "ready", "edit": "ready", "reject": "rejected", "respond": "completed"}
    assert (row["state"], row["finished_at"] is not None) == (expected[decision], settled)
    assert row["final_arguments"] == ('{"a": 2}' if decision == "edit" else None)
    found = await any_scene.calls.find(turn.session.session_id, call.call_id)
    assert found is not None
    assert found.approval is not None
    assert (found.approval.state, found.approval.decided_by) == (
        {"approve": "approved", "edit": "edited", "reject": "rejected", "respond": "responded"}[decision],
        "ada",
    )
    assert found.approval.allowed_decisions == ("approve", "edit", "reject")
    assert found.effective_arguments == ('{"a": 2}' if decision == "edit" else '{"a": 1}')
    step = await any_scene.turns.calls(claim)
    assert [each.approval is not None for each in step.calls] == [False, True]
    assert step.calls[0].effective_arguments == found.effective_arguments
    (audit,) = await any_scene.rows("SELECT * FROM audit")
    assert (audit["decision"], audit["arguments"], audit["executed"], audit["user_id"]) == (
        decision,
        '{"a": 1}',
        None if settled else found.effective_arguments,
        "ada",
    )
    assert (audit["owner"], audit["call_id"], audit["turn_id"], audit["feedback"], audit["transport"]) == (
        "ada",
        call.call_id,
        claim.turn_id,
        "because",
        "websocket",
    )
    # Others of the step are decided by themselves; the first decision stands.
    assert [each.call_id for each in await any_scene.approvals.open(turn.session.session_id)] == [other.call_id]
    again = await turn.decide(call, decision)
    assert (again.commit, again.claims, again.seq) == (None, [], reply.seq)
    late = await refusal(turn.decide(call, "reject", "late"))
    assert late.code is ErrorCode.ALREADY_RESOLVED
    assert "already, by ada" in late.message
    await any_scene.audit()


async def test_there_is_nothing_to_decide_about_other_calls(any_scene: Scene) -> None:
    call, asked = client_call(), asked_call()
    turn = await Calling.begun(any_scene, call, asked)
    other = await Calling.begun(any_scene, client_call())
    assert (await refusal(turn.decide(call))).code is ErrorCode.NOT_FOUND
    assert (await refusal(turn.decide(asked_call()))).code is ErrorCode.NOT_FOUND
    assert (await refusal(other.decide(asked))).code is ErrorCode.NOT_FOUND
    assert await any_scene.value("SELECT count(*) FROM audit") == 0
    await any_scene.audit()


@pytest.mark.feature("A03")
async def test_after_its_time_an_approval_is_decided_by_nobody(any_scene: Scene) -> None:
    """Expiry is a fact of the data: no approval can be given once it is there, whoever looked or did not."""
    call = asked_call(expires_at=NOW)
    turn = await Calling.begun(any_scene, call, park=True)
    late = await refusal(turn.decide(call))
    assert (late.code, "over" in late.message) == (ErrorCode.ALREADY_RESOLVED, True)
    assert call.approval is not None
    await any_scene.rows("UPDATE approvals SET due_at = expires_at")
    (claim,) = await any_scene.turns.claim_due(any_scene.worker, any_scene.now(), 10)
    step = await any_scene.turns.calls(claim)
    assert step.calls[0].approval == OpenApproval(call.approval.approval_id, NOW)
    move = ending(claim, call, state="rejected", expired=[call.approval.approval_id], expected_news=step.news)
    await any_scene.turns.advance(claim, move, any_scene.now())
    assert await any_scene.value("SELECT state FROM approvals") == "rejected"
    assert (await refusal(turn.decide(call))).message == "the call is rejected already"
    await any_scene.audit()


@pytest.mark.feature("A03")
async def test_a_decision_is_remembered_as_a_rule_until_it_is_revoked(any_scene: Scene) -> None:
    one, two = asked_call(), asked_call()
    turn = await Calling.begun(any_scene, one, two)
    mine = NewRule(rule_id=new_id(), scope="session", tool="remove", effect="allow", arguments=b'{"path":"/tmp/*"}')
    ours = NewRule(rule_id=new_id(), scope="user", tool="remove", effect="deny")
    await turn.decide(one, rule=mine)
    await turn.decide(two, "reject", "second", rule=ours)
    session_id, elsewhere = turn.session.session_id, await any_scene.session()
    found = await any_scene.rules.in_force("ada", session_id)
    assert [(rule.rule_id, rule.effect, rule.session_id, rule.arguments) for rule in found] == [
        (mine.rule_id, "allow", session_id, b'{"path":"/tmp/*"}'),
        (ours.rule_id, "deny", None, None),
    ]
    assert (found[0].created_by, found[0].call_id) == ("ada", one.call_id)
    assert [rule.rule_id for rule in await any_scene.rules.in_force("ada", elsewhere.session_id)] == [ours.rule_id]
    assert await any_scene.rules.in_force("eve", session_id) == []
    assert await any_scene.rules.list("ada") == found
    assert await any_scene.rules.list("ada", session_id) == found[:1]
    assert not await any_scene.rules.revoke("eve", mine.rule_id, "eve", any_scene.now())
    assert await any_scene.rules.revoke("ada", mine.rule_id, "ada", any_scene.now())
    assert not await any_scene.rules.revoke("ada", mine.rule_id, "ada", any_scene.now())
    assert await any_scene.rules.list("ada") == found[1:]
    (audit,) = await any_scene.rows("SELECT * FROM audit WHERE event_type = 'rule_revoked'")
    assert (audit["user_id"], audit["tool"], audit["rule"]) == ("ada", "remove", str(mine.rule_id))
    await any_scene.audit()


# --- time


@pytest.mark.feature("A03")
async def test_what_is_due_is_claimed_by_who_looks_first(any_scene: Scene) -> None:
    due, soon, never = client_call(), client_call(), client_call()
    turns = [
        await Calling.begun(any_scene, call, park=True, calls=[msgspec.structs.replace(call, deadline=deadline)])
        for call, deadline in ((due, NOW), (soon, LATER), (never, None))
    ]
    asked = asked_call(expires_at=NOW)
    expired = await Calling.begun(
        any_scene, asked, park=True, approvals=[approval_of(asked, due_at=BEFORE, expires_at=NOW)]
    )
    running = await Calling.begun(any_scene, due_too := client_call(deadline=BEFORE))
    now = any_scene.now()
    claims = await any_scene.turns.claim_due(any_scene.worker, now, 10)
    assert {claim.turn_id for claim in claims} == {turns[0].claim.turn_id, expired.claim.turn_id}
    assert {(claim.attempt, claim.news, claim.owner, claim.state) for claim in claims} == {(2, 0, "ada", "tools")}
    assert await any_scene.turns.claim_due(new_id(), now, 10) == []
    assert await running.state() == ("running", 0)
    assert (await running.row(due_too))["state"] == "ready"
    later = await any_scene.turns.claim_due(new_id(), LATER + timedelta(seconds=1), 1)
    assert [claim.turn_id for claim in later] == [turns[1].claim.turn_id]
    await any_scene.audit()


async def test_people_are_warned_once_before_an_approval_expires(any_scene: Scene) -> None:
    call, quiet = asked_call(expires_at=LATER), asked_call()
    turn = await Calling.begun(
        any_scene, call, quiet, park=True, approvals=[approval_of(call, due_at=NOW), approval_of(quiet)]
    )
    assert await any_scene.turns.warn_due(BEFORE, 10) == []
    (warning,) = await any_scene.turns.warn_due(any_scene.now(), 10)
    assert (warning.session_id, warning.call_id, warning.expires_at) == (turn.session.session_id, call.call_id, LATER)
    assert await any_scene.turns.warn_due(any_scene.now(), 10) == []
    assert await any_scene.turns.claim_due(new_id(), any_scene.now(), 10) == []
    (claim,) = await any_scene.turns.claim_due(new_id(), LATER, 10)
    assert claim.turn_id == turn.claim.turn_id


@pytest.mark.feature("A02")
async def test_progress_moves_the_deadline_of_who_has_the_call(any_scene: Scene) -> None:
    call, idle = client_call(), client_call()
    turn = await Calling.begun(any_scene, call, idle)
    await turn.park(dispatches=[dispatch(call, "c1", NOW), dispatch(idle, None)])
    session_id = turn.session.session_id
    row = await any_scene.calls.progress(session_id, call.call_id, "c1", LATER)
    assert (row.deadline, row.client_id, row.state) == (LATER, "c1", "running")
    # It is news, but no reason to do anything.
    assert await turn.state() == ("waiting", 1)
    assert await any_scene.turns.claim_due(new_id(), any_scene.now(), 10) == []
    for who, what, code in (
        ("c2", call.call_id, ErrorCode.FORBIDDEN),
        ("c1", idle.call_id, ErrorCode.FORBIDDEN),
        ("c1", new_id(), ErrorCode.NOT_FOUND),
    ):
        assert (await refusal(any_scene.calls.progress(session_id, what, who, LATER))).code is code
    await turn.result(call)
    late = await refusal(any_scene.calls.progress(session_id, call.call_id, "c1", LATER))
    assert late.code is ErrorCode.ALREADY_RESOLVED
    await any_scene.audit()


# --- clients that leave, come back, and offer tools


@pytest.mark.feature("A02")
async def test_a_client_that_leaves_gives_its_calls_back_unless_it_returns(any_scene: Scene) -> None:
    call, other = client_call(), client_call()
    turn = await Calling.begun(any_scene, call, other)
    await turn.park(dispatches=[dispatch(call, "c1"), dispatch(other, "c2")])
    session_id, turn_id = turn.session.session_id, turn.claim.turn_id
    assert [row.call_id for row in await any_scene.calls.of_client(session_id, "c1")] == [call.call_id]
    assert [row.call_id for row in await any_scene.calls.of_session(session_id)] == [call.call_id, other.call_id]
    assert await any_scene.calls.release(session_id, "c3", NOW) == []
    assert await any_scene.calls.keep(session_id, "c1") == []
    assert await any_scene.calls.release(session_id, "c1", NOW) == [turn_id]
    assert await any_scene.calls.release(session_id, "c1", LATER) == []
    assert (await turn.row(call))["release_at"] == NOW
    assert await turn.state() == ("waiting", 1)
    assert await any_scene.calls.keep(session_id, "c1") == [turn_id]
    assert await any_scene.turns.claim_due(any_scene.worker, any_scene.now(), 10) == []
    await any_scene.calls.release(session_id, "c1", NOW)
    (claim,) = await any_scene.turns.claim_due(any_scene.worker, any_scene.now(), 10)
    again = Advance(step_state="tools", dispatches=[dispatch(call, "c2")], park=True, expected_news=claim.news)
    assert (await any_scene.turns.advance(claim, again, any_scene.now())).parked
    row = await turn.row(call)
    assert (row["client_id"], row["executors"], row["release_at"]) == ("c2", ["c1", "c2"], None)
    await any_scene.audit()


@pytest.mark.feature("A02")
async def test_calls_at_clients_of_dead_processes_are_given_back(any_scene: Scene) -> None:
    here, gone, never = [client_call() for _ in range(3)]
    turn = await Calling.begun(any_scene, here, gone, never)
    dead = new_id()
    await any_scene.alive(any_scene.worker)
    await any_scene.alive(dead, -1)
    present = [("here", any_scene.worker, None), ("gone", dead, None), ("left", any_scene.worker, NOW)]
    for client, worker, left_at in present:
        await any_scene.rows(
            "INSERT INTO presence (session_id, client_id, worker_id, user_id, role, transport, joined_at, left_at)"
            " VALUES ($1, $2, $3, 'ada', 'owner', 'websocket', now(), $4)",
            turn.session.session_id,
            client,
            worker,
            left_at,
        )
    await turn.park(dispatches=[dispatch(here, "here"), dispatch(gone, "gone"), dispatch(never, "left")])
    assert await any_scene.calls.release_of_dead(LATER) == [turn.claim.turn_id]
    assert await any_scene.calls.release_of_dead(LATER) == []
    assert [(await turn.row(call))["release_at"] for call in (here, gone, never)] == [None, LATER, LATER]
    assert await turn.state() == ("waiting", 1)


@pytest.mark.feature("A02")
async def test_new_tools_wake_the_turns_that_wait_for_them(any_scene: Scene) -> None:
    call, other = client_call("look"), client_call("jump")
    turn = await Calling.begun(any_scene, call, other)
    elsewhere = await Calling.begun(any_scene, client_call("look"), park=True)
    await turn.park(dispatches=[dispatch(call, None), dispatch(other, "c1")])
    claim_for_tools, session_id = any_scene.calls.claim_for_tools, turn.session.session_id
    # Who has its executor already waits for nobody else.
    assert await claim_for_tools(any_scene.worker, session_id, ["jump", "run"]) == []
    assert await turn.state() == ("waiting", 0)
    (claim,) = await claim_for_tools(any_scene.worker, session_id, ["look"])
    assert (claim.turn_id, claim.news, claim.owner) == (turn.claim.turn_id, 1, "ada")
    assert await elsewhere.state() == ("waiting", 0)
    # A turn that runs is told: it may have looked who offers what just before.
    assert await claim_for_tools(any_scene.worker, session_id, ["look"]) == []
    assert await turn.state() == ("running", 2)
    with pytest.raises(NewsError):
        await any_scene.turns.advance(
            claim, Advance(step_state="tools", park=True, expected_news=claim.news), any_scene.now()
        )
    idle = await any_scene.session()
    assert await claim_for_tools(any_scene.worker, idle.session_id, ["look"]) == []
    assert await claim_for_tools(any_scene.worker, new_id(), ["look"]) == []
    await any_scene.audit()


async def test_tools_that_are_offered_while_the_agent_speaks_keep_its_turn_from_waiting(any_scene: Scene) -> None:
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    await any_scene.calls.claim_for_tools(any_scene.worker, session.session_id, ["look"])
    advanced = await any_scene.turns.advance(claim, asking(claim, client_call(), park=True), any_scene.now())
    assert (advanced.parked, advanced.news) == (False, 1)


# --- stopping


@pytest.mark.feature("A04", "S14")
async def test_a_cancellation_wakes_a_waiting_turn(any_scene: Scene) -> None:
    turn = await Calling.begun(any_scene, asked_call(), client_call(), park=True)
    reply = await turn.cancel()
    (claim,) = reply.claims
    assert (claim.turn_id, claim.cancel_requested, claim.news) == (turn.claim.turn_id, True, 1)
    assert await any_scene.turns.news_of([claim.turn_id, new_id()]) == {claim.turn_id: (1, True)}
    assert (await turn.cancel("again")).claims == []
    await turn.end_all(claim)
    assert await any_scene.value("SELECT state FROM approvals") == "withdrawn"
    await any_scene.audit()


async def test_a_deleted_session_takes_its_calls_along_and_leaves_the_trail(any_scene: Scene) -> None:
    call = asked_call()
    turn = await Calling.begun(
        any_scene,
        call,
        request=RequestRow(model=None, started_at=NOW, duration_ms=1, finish_reason="tool_calls"),
    )
    rule = NewRule(rule_id=new_id(), scope="session", tool="remove", effect="allow")
    await turn.decide(call, rule=rule)
    await any_scene.switch(turn.session, "switch", ("universal", "coder"))
    await any_scene.sessions.delete(turn.session, any_scene.now())
    for table in ("approvals", "approval_rules", "agent_switches", "tool_calls", "turns", "messages"):
        assert await any_scene.value(f"SELECT count(*) FROM {table}") == 0
    assert await any_scene.value("SELECT count(*) FROM audit WHERE event_type = 'approval_resolved'") == 1
    assert await any_scene.value("SELECT count(*) FROM requests") == 1
    with pytest.raises(LostClaimError):
        await any_scene.turns.calls(turn.claim)
    for work in (turn.decide(call, "reject", "late"), turn.result(call, "late")):
        assert (await refusal(work)).code is ErrorCode.SESSION_GONE
    assert await any_scene.calls.find(turn.session.session_id, call.call_id) is None


def lists() -> list[dict[str, Any]]:
    """Moves that only calls have."""
    return [
        {"started_calls": [new_id()]},
        {"dispatches": [dispatch(client_call())]},
        {"expired": [new_id()]},
        {"withdrawn": [new_id()]},
        {"expected_news": 0},
        {"park": True},
    ]


@pytest.mark.parametrize("which", range(len(lists())))
async def test_what_is_named_and_not_there_is_passed_over(scene: Scene, which: int) -> None:
    turn = await Calling.begun(scene, client_call())
    await turn.move(Advance(step_state="tools", **lists()[which]))
    assert turn.claim.revision == 2
    await scene.audit()
