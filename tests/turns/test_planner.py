"""What is done about the calls of a step, decided without doing any of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.turns.planner import Dispatched, Plan, Scene, may_overlap, plan
from storage.moves import Call, CallState, Executor, OpenApproval

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE, AFTER = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
OPEN = ("awaiting_approval", "ready", "running")


def call(number: int = 0, executor: Executor = "client", state: CallState = "ready", **more: Any) -> Call:
    return Call(
        call_id=UUID(int=number),
        name=f"tool{number}",
        arguments="{}",
        executor=executor,
        state=state,
        ordinal=number,
        **more,
    )


def scene(**more: Any) -> Scene:
    offered: dict[str, str] = more.pop("offered", {})
    idempotent: set[str] = more.pop("idempotent", set())
    given_: dict[str, Any] = {
        "now": NOW,
        "cancelling": False,
        "here": (),
        "results": (),
        "executor": offered.get,
        "offers": lambda client, name: offered.get(name) == client,
        "idempotent": idempotent.__contains__,
        "deadline": 300.0,
        "wait": 60.0,
        **more,
    }
    return Scene(**given_)


def causes(made: Plan) -> list[tuple[int, str]]:
    return [(ending.call.ordinal, ending.cause) for ending in made.endings]


def numbers(calls: list[Call]) -> list[int]:
    return [each.ordinal for each in calls]


# --- one call in every state


@pytest.mark.feature("A02", "A03")
@pytest.mark.parametrize(
    ("one", "more", "expected"),
    [
        # A tool of the server.
        (call(executor="server"), {}, "start"),
        (call(executor="server", state="running"), {"here": {UUID(int=0)}}, "wait"),
        (call(executor="server", state="running"), {}, "lost"),
        (call(executor="server", state="running"), {"idempotent": {"tool0"}}, "start"),
        (call(executor="server", state="running"), {"results": {UUID(int=0)}}, "result"),
        (call(executor="server"), {"cancelling": True}, "cancelled"),
        (call(executor="server", state="running"), {"cancelling": True}, "cancelled"),
        (call(executor="server", state="running"), {"cancelling": True, "here": {UUID(int=0)}}, "wait"),
        # Another agent.
        (call(executor="agent"), {}, "child"),
        (call(executor="agent", state="running"), {}, "wait"),
        (call(executor="agent", state="running"), {"cancelling": True}, "wait"),
        (call(executor="agent"), {"cancelling": True}, "cancelled"),
        # A person.
        (call(state="awaiting_approval", approval=OpenApproval(UUID(int=9), None)), {}, "wait"),
        (call(state="awaiting_approval", approval=OpenApproval(UUID(int=9), AFTER)), {}, "wait"),
        (call(state="awaiting_approval", approval=OpenApproval(UUID(int=9), NOW)), {}, "expired"),
        (call(state="awaiting_approval", approval=OpenApproval(UUID(int=9), None)), {"cancelling": True}, "cancelled"),
        # A client.
        (call(), {"offered": {"tool0": "ide"}}, "ide"),
        (call(), {}, "wait for a client"),
        (call(deadline=AFTER), {}, "wait"),
        (call(deadline=AFTER), {"offered": {"tool0": "ide"}}, "ide"),
        (call(deadline=NOW), {"offered": {"tool0": "ide"}}, "nobody"),
        (call(state="running", client_id="ide", deadline=AFTER), {}, "wait"),
        (call(state="running", client_id="ide", deadline=NOW), {"offered": {"tool0": "ide"}}, "deadline"),
        (
            call(state="running", client_id="ide", deadline=AFTER, release_at=AFTER),
            {"offered": {"tool0": "two"}},
            "wait",
        ),
        (call(state="running", client_id="ide", deadline=AFTER, release_at=NOW), {"offered": {"tool0": "two"}}, "two"),
        (call(state="running", client_id="ide", deadline=AFTER, release_at=NOW), {"offered": {"tool0": "ide"}}, "ide"),
        (call(state="running", client_id="ide", deadline=AFTER, release_at=BEFORE), {}, "wait for a client"),
        (call(state="running", client_id="ide", deadline=AFTER), {"cancelling": True}, "cancelled"),
        (call(), {"cancelling": True}, "cancelled"),
    ],
)
def test_what_is_done_about_a_call(one: Call, more: dict[str, Any], expected: str) -> None:
    made = plan([one], scene(**more))
    done: list[str] = [ending.cause for ending in made.endings]
    done += ["start" for _ in made.starts] + ["child" for _ in made.children]
    done += [dispatched.client_id or "wait for a client" for dispatched in made.dispatches]
    assert done == ([] if expected == "wait" else [expected])
    assert bool(made.rest) == (not made.endings)


def test_a_finished_call_is_left_alone_whatever_happens() -> None:
    for state in set(get_args(CallState)) - set(OPEN):
        for executor in get_args(Executor):
            for cancelling in (False, True):
                assert plan([call(executor=executor, state=state)], scene(cancelling=cancelling)).empty


# --- who gets a call, and until when


def test_a_client_has_the_deadline_of_the_settings_from_when_it_gets_the_call() -> None:
    made = plan([call(deadline=AFTER)], scene(offered={"tool0": "ide"}))
    assert made.dispatches == [Dispatched(call(deadline=AFTER), "ide", NOW + timedelta(seconds=300))]


def test_a_call_waits_for_a_client_once() -> None:
    made = plan([call()], scene())
    assert [(each.client_id, each.deadline) for each in made.dispatches] == [(None, NOW + timedelta(seconds=60))]
    assert plan([call(deadline=made.dispatches[0].deadline)], scene()).empty


def test_a_client_that_came_back_unnoticed_keeps_its_deadline() -> None:
    kept = call(state="running", client_id="ide", deadline=AFTER, release_at=NOW)
    assert plan([kept], scene(offered={"tool0": "ide"})).dispatches == [Dispatched(kept, "ide", AFTER)]


def test_a_released_call_waits_no_longer_than_it_would_have() -> None:
    released = call(state="running", client_id="ide", deadline=AFTER, release_at=NOW)
    assert plan([released], scene()).dispatches == [Dispatched(released, None, AFTER)]


# --- order


@pytest.mark.feature("A02")
def test_regression_25_a_read_waits_for_the_write_before_it() -> None:
    write, read = call(1, "server"), call(2, "server", read_only=True)
    assert numbers(plan([write, read], scene()).starts) == [1]
    running = call(1, "server", "running")
    assert plan([running, read], scene(here={UUID(int=1)})).empty
    done = call(1, "server", "completed")
    assert numbers(plan([done, read], scene()).starts) == [2]


def test_a_write_waits_for_the_reads_before_it_and_reads_run_together() -> None:
    calls = [call(1, "server", read_only=True), call(2, "server", read_only=True), call(3, "server")]
    assert numbers(plan(calls, scene()).starts) == [1, 2]


def test_an_independent_call_waits_for_nobody_and_nobody_waits_for_it() -> None:
    calls = [call(1, "server"), call(2, "server", independent=True), call(3, "server")]
    assert numbers(plan(calls, scene()).starts) == [1, 2]
    assert numbers(plan([call(2, "server", independent=True), call(3, "server")], scene()).starts) == [2, 3]


def test_a_call_waits_for_the_approval_of_the_one_before_it() -> None:
    waiting = call(1, state="awaiting_approval", approval=OpenApproval(UUID(int=9), None))
    assert plan([waiting, call(2, "server")], scene()).empty
    assert plan([waiting, call(2)], scene(offered={"tool2": "ide"})).empty


def test_a_call_that_ends_now_lets_the_next_one_begin_at_once() -> None:
    expired = call(1, state="awaiting_approval", approval=OpenApproval(UUID(int=9), NOW))
    made = plan([expired, call(2, "server")], scene())
    assert causes(made) == [(1, "expired")]
    assert numbers(made.starts) == [2]


calls_ = st.builds(
    call,
    number=st.just(0),
    executor=st.sampled_from(get_args(Executor)),
    state=st.sampled_from(get_args(CallState)),
    read_only=st.booleans(),
    independent=st.booleans(),
    deadline=st.sampled_from([None, BEFORE, NOW, AFTER]),
    approval=st.sampled_from([None, OpenApproval(UUID(int=99), NOW), OpenApproval(UUID(int=99), AFTER)]),
)


@given(st.lists(calls_, max_size=6), st.booleans(), st.booleans(), st.booleans())
def test_whatever_the_calls_are(drawn: list[Call], cancelling: bool, offered: bool, here: bool) -> None:
    calls = [
        Call(**{name: getattr(each, name) for name in each.__struct_fields__} | {"call_id": UUID(int=n), "ordinal": n})
        for n, each in enumerate(drawn)
    ]
    offers = {each.name: "ide" for each in calls} if offered else {}
    made = plan(calls, scene(cancelling=cancelling, offered=offers, here={c.call_id for c in calls} if here else ()))
    ended = numbers([ending.call for ending in made.endings])
    # Every open call is over or stays open, none twice; nothing is done about any other.
    assert sorted(ended + numbers(made.rest)) == [each.ordinal for each in calls if each.open]
    begun = [*made.starts, *made.children, *(each.call for each in made.dispatches if each.client_id)]
    assert set(numbers(begun)) <= set(numbers(made.rest))
    for new in begun:
        if new.state == "ready":
            earlier = [each for each in made.rest if each.ordinal < new.ordinal]
            assert all(may_overlap(new, each) for each in earlier)
    if cancelling:
        assert not begun
    assert all(each.state != "awaiting_approval" for each in begun)
