from __future__ import annotations

from enum import StrEnum
from itertools import product
from typing import get_args

import pytest

from protocol.commands import Decision
from protocol.lifecycles import (
    APPROVAL,
    LIFECYCLES,
    STEP,
    SUBSCRIBER,
    TOOL_CALL,
    TURN,
    ApprovalInput,
    ApprovalState,
    LifecycleError,
    StepInput,
    StepState,
    SubscriberInput,
    SubscriberState,
    ToolCallInput,
    ToolCallState,
    TurnInput,
    TurnState,
    advance,
)
from protocol.parts import TurnOutcome

# The tables once more, written as people talk about them: a change of behaviour has to be made twice.
EXPECTED = {
    "turn": """
        queued start running | queued cancel cancelled
        running wait waiting | waiting resume running
        running complete completed | running cancel cancelled | running fail failed | running interrupt interrupted
        waiting cancel cancelled | waiting fail failed | waiting interrupt interrupted
    """,
    "step": """
        ready claim running | running lose ready | running call tools
        running finish done | tools finish done
        ready abandon done | running abandon done | tools abandon done
    """,
    "tool_call": """
        requested ask awaiting_approval | requested allow ready | requested fail failed | requested cancel cancelled
        awaiting_approval allow ready | awaiting_approval reject rejected | awaiting_approval respond completed
        awaiting_approval cancel cancelled
        ready dispatch running | ready succeed completed | ready fail failed | ready cancel cancelled
        running release ready | running succeed completed | running fail failed | running cancel cancelled
    """,
    "approval": """
        pending approve approved | pending edit edited | pending reject rejected | pending respond responded
        pending expire rejected | pending withdraw withdrawn
    """,
    "subscriber": """
        opening open catching_up | catching_up catch_up live | live fall_behind catching_up
        opening close closing | catching_up close closing | live close closing | closing close closing
        closing flush closed
        opening lose closed | catching_up lose closed | live lose closed | closing lose closed
        closed close closed | closed lose closed
    """,
}

KINDS: dict[str, tuple[type[StrEnum], type[StrEnum]]] = {
    "turn": (TurnState, TurnInput),
    "step": (StepState, StepInput),
    "tool_call": (ToolCallState, ToolCallInput),
    "approval": (ApprovalState, ApprovalInput),
    "subscriber": (SubscriberState, SubscriberInput),
}

CASES = [
    pytest.param(name, state, input_, id=f"{name}: {state} x {input_}")
    for name, (states, inputs) in KINDS.items()
    for state, input_ in product(states, inputs)
]


def entries(name: str) -> dict[tuple[str, str], str]:
    triples = [entry.split() for line in EXPECTED[name].splitlines() for entry in line.split("|") if entry.strip()]
    return {(state, input_): follower for state, input_, follower in triples}


def test_every_lifecycle_is_here() -> None:
    assert set(LIFECYCLES) == set(KINDS) == set(EXPECTED)


@pytest.mark.parametrize(("name", "state", "input_"), CASES)
def test_every_state_with_every_input(name: str, state: StrEnum, input_: StrEnum) -> None:
    lifecycle = LIFECYCLES[name]
    follower = entries(name).get((state, input_))
    assert lifecycle.allows(state, input_) == (follower is not None)
    if follower is not None:
        assert advance(lifecycle, state, input_) == follower
        return
    with pytest.raises(LifecycleError) as caught:
        advance(lifecycle, state, input_)
    error = caught.value
    assert (error.lifecycle, error.state, error.input) == (name, state, input_)
    assert str(error) == f"{name}: `{input_}` cannot happen in state `{state}`"


@pytest.mark.parametrize("name", LIFECYCLES)
def test_every_state_has_a_row_and_can_be_reached(name: str) -> None:
    lifecycle = LIFECYCLES[name]
    states, inputs = KINDS[name]
    assert set(lifecycle.table) == set(states)
    reached, fresh = {lifecycle.initial}, [lifecycle.initial]
    while fresh:
        for follower in lifecycle.table[fresh.pop()].values():
            if follower not in reached:
                reached.add(follower)
                fresh.append(follower)
    assert reached == set(states)
    assert {input_ for row in lifecycle.table.values() for input_ in row} == set(inputs)


@pytest.mark.parametrize("name", LIFECYCLES)
def test_every_lifecycle_can_end(name: str) -> None:
    lifecycle = LIFECYCLES[name]
    ends = {state for state in lifecycle.table if lifecycle.is_final(state)}
    assert ends
    for start in lifecycle.table:
        seen, fresh = {start}, [start]
        while fresh:
            for follower in lifecycle.table[fresh.pop()].values():
                if follower not in seen:
                    seen.add(follower)
                    fresh.append(follower)
        assert seen & ends


def test_a_turn_ends_as_the_wire_says() -> None:
    assert {state for state in TurnState if TURN.is_final(state)} == set(get_args(TurnOutcome))


def test_regression_30_what_is_decided_stays_decided() -> None:
    assert [state for state in ApprovalState if not APPROVAL.is_final(state)] == [ApprovalState.PENDING]
    assert set(get_args(Decision)) < set(ApprovalInput)


def test_nothing_runs_because_a_timer_ran_out() -> None:
    assert advance(APPROVAL, ApprovalState.PENDING, ApprovalInput.EXPIRE) is ApprovalState.REJECTED


def test_regression_12_a_call_with_a_result_takes_no_other() -> None:
    for state in ("completed", "failed", "rejected", "cancelled"):
        assert TOOL_CALL.is_final(ToolCallState(state))


def test_a_lost_step_is_run_again_and_a_finished_one_never() -> None:
    assert advance(STEP, StepState.RUNNING, StepInput.LOSE) is StepState.READY
    assert STEP.is_final(StepState.DONE)


def test_stopping_a_subscriber_twice_is_harmless() -> None:
    once = advance(SUBSCRIBER, SubscriberState.LIVE, SubscriberInput.CLOSE)
    assert advance(SUBSCRIBER, once, SubscriberInput.CLOSE) is once
    assert SUBSCRIBER.is_final(SubscriberState.CLOSED)
