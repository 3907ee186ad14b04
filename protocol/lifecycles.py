"""What may happen when: the lifecycles of the system as tables, and the one function that reads them.

A table names, for each state, the inputs that are possible in it and the state that follows. What is not there must
not happen: `advance` raises, so a forgotten case is an error at the first occasion and not a silent wrong state. The
words are those that the database and the wire use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

__all__ = [
    "APPROVAL",
    "LIFECYCLES",
    "STEP",
    "SUBSCRIBER",
    "TOOL_CALL",
    "TURN",
    "ApprovalInput",
    "ApprovalState",
    "Lifecycle",
    "LifecycleError",
    "StepInput",
    "StepState",
    "SubscriberInput",
    "SubscriberState",
    "ToolCallInput",
    "ToolCallState",
    "TurnInput",
    "TurnState",
    "advance",
]

S = TypeVar("S", bound=StrEnum)
I = TypeVar("I", bound=StrEnum)  # noqa: E741 - states and inputs


class LifecycleError(RuntimeError):
    """Something happened in a state in which it cannot: a bug in the caller, or a race that it failed to decide."""

    def __init__(self, lifecycle: str, state: str, input_: str) -> None:
        super().__init__(f"{lifecycle}: `{input_}` cannot happen in state `{state}`")
        self.lifecycle = lifecycle
        self.state = state
        self.input = input_


@dataclass(frozen=True, slots=True)
class Lifecycle(Generic[S, I]):
    """A named table. Every state has a row; a state whose row leads nowhere else is final."""

    name: str
    initial: S
    table: Mapping[S, Mapping[I, S]]

    def allows(self, state: S, input_: I) -> bool:
        """Whether the input is possible in the state."""
        return input_ in self.table[state]

    def is_final(self, state: S) -> bool:
        """Whether nothing leads out of the state."""
        return all(follower is state for follower in self.table[state].values())


def advance(lifecycle: Lifecycle[S, I], state: S, input_: I) -> S:
    """The state after the input; raises LifecycleError if the table has no such entry."""
    follower = lifecycle.table[state].get(input_)
    if follower is None:
        raise LifecycleError(lifecycle.name, state, input_)
    return follower


class TurnState(StrEnum):
    """Where a turn is; the last four are also the `status` of `task_completed`."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class TurnInput(StrEnum):
    """What happens to a turn; `wait` is for tools and approvals, `resume` when the last of them is there."""

    START = "start"
    WAIT = "wait"
    RESUME = "resume"
    COMPLETE = "complete"
    CANCEL = "cancel"
    FAIL = "fail"
    INTERRUPT = "interrupt"


TURN: Final = Lifecycle(
    "turn",
    TurnState.QUEUED,
    {
        TurnState.QUEUED: {
            TurnInput.START: TurnState.RUNNING,
            TurnInput.CANCEL: TurnState.CANCELLED,
        },
        TurnState.RUNNING: {
            TurnInput.WAIT: TurnState.WAITING,
            TurnInput.COMPLETE: TurnState.COMPLETED,
            TurnInput.CANCEL: TurnState.CANCELLED,
            TurnInput.FAIL: TurnState.FAILED,
            TurnInput.INTERRUPT: TurnState.INTERRUPTED,
        },
        TurnState.WAITING: {
            TurnInput.RESUME: TurnState.RUNNING,
            TurnInput.CANCEL: TurnState.CANCELLED,
            TurnInput.FAIL: TurnState.FAILED,
            TurnInput.INTERRUPT: TurnState.INTERRUPTED,
        },
        TurnState.COMPLETED: {},
        TurnState.CANCELLED: {},
        TurnState.FAILED: {},
        TurnState.INTERRUPTED: {},
    },
)


class StepState(StrEnum):
    """Where a step of a turn is: one call of the agent and the tools that it asked for."""

    READY = "ready"
    RUNNING = "running"
    TOOLS = "tools"
    DONE = "done"


class StepInput(StrEnum):
    """What happens to a step; `lose` is the end of its owner's lease, after which another attempt may claim it."""

    CLAIM = "claim"
    LOSE = "lose"
    CALL = "call"
    FINISH = "finish"
    ABANDON = "abandon"


STEP: Final = Lifecycle(
    "step",
    StepState.READY,
    {
        StepState.READY: {StepInput.CLAIM: StepState.RUNNING, StepInput.ABANDON: StepState.DONE},
        StepState.RUNNING: {
            StepInput.LOSE: StepState.READY,
            StepInput.CALL: StepState.TOOLS,
            StepInput.FINISH: StepState.DONE,
            StepInput.ABANDON: StepState.DONE,
        },
        StepState.TOOLS: {StepInput.FINISH: StepState.DONE, StepInput.ABANDON: StepState.DONE},
        StepState.DONE: {},
    },
)


class ToolCallState(StrEnum):
    """Where a tool call is. It has exactly one result, and has it when it is in one of the last four."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    READY = "ready"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class ToolCallInput(StrEnum):
    """What happens to a tool call; `release` is its executor leaving, `respond` a person's answer in its place."""

    ASK = "ask"
    ALLOW = "allow"
    REJECT = "reject"
    RESPOND = "respond"
    DISPATCH = "dispatch"
    RELEASE = "release"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"


TOOL_CALL: Final = Lifecycle(
    "tool_call",
    ToolCallState.REQUESTED,
    {
        # A call that the policy forbids, or that names no tool, fails before anyone is asked about it.
        ToolCallState.REQUESTED: {
            ToolCallInput.ASK: ToolCallState.AWAITING_APPROVAL,
            ToolCallInput.ALLOW: ToolCallState.READY,
            ToolCallInput.FAIL: ToolCallState.FAILED,
            ToolCallInput.CANCEL: ToolCallState.CANCELLED,
        },
        ToolCallState.AWAITING_APPROVAL: {
            ToolCallInput.ALLOW: ToolCallState.READY,
            ToolCallInput.REJECT: ToolCallState.REJECTED,
            ToolCallInput.RESPOND: ToolCallState.COMPLETED,
            ToolCallInput.CANCEL: ToolCallState.CANCELLED,
        },
        # A former executor's result is taken while the call waits for a new one, if it is the first.
        ToolCallState.READY: {
            ToolCallInput.DISPATCH: ToolCallState.RUNNING,
            ToolCallInput.SUCCEED: ToolCallState.COMPLETED,
            ToolCallInput.FAIL: ToolCallState.FAILED,
            ToolCallInput.CANCEL: ToolCallState.CANCELLED,
        },
        ToolCallState.RUNNING: {
            ToolCallInput.RELEASE: ToolCallState.READY,
            ToolCallInput.SUCCEED: ToolCallState.COMPLETED,
            ToolCallInput.FAIL: ToolCallState.FAILED,
            ToolCallInput.CANCEL: ToolCallState.CANCELLED,
        },
        ToolCallState.COMPLETED: {},
        ToolCallState.FAILED: {},
        ToolCallState.REJECTED: {},
        ToolCallState.CANCELLED: {},
    },
)


class ApprovalState(StrEnum):
    """Where an approval is; `withdrawn` when its turn ended before anyone decided."""

    PENDING = "pending"
    APPROVED = "approved"
    EDITED = "edited"
    REJECTED = "rejected"
    RESPONDED = "responded"
    WITHDRAWN = "withdrawn"


class ApprovalInput(StrEnum):
    """What happens to an approval; the first four are the decisions of `hitl_decision`."""

    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"
    RESPOND = "respond"
    EXPIRE = "expire"
    WITHDRAW = "withdraw"


APPROVAL: Final = Lifecycle(
    "approval",
    ApprovalState.PENDING,
    {
        ApprovalState.PENDING: {
            ApprovalInput.APPROVE: ApprovalState.APPROVED,
            ApprovalInput.EDIT: ApprovalState.EDITED,
            ApprovalInput.REJECT: ApprovalState.REJECTED,
            ApprovalInput.RESPOND: ApprovalState.RESPONDED,
            # Nothing ever runs because a timer ran out.
            ApprovalInput.EXPIRE: ApprovalState.REJECTED,
            ApprovalInput.WITHDRAW: ApprovalState.WITHDRAWN,
        },
        ApprovalState.APPROVED: {},
        ApprovalState.EDITED: {},
        ApprovalState.REJECTED: {},
        ApprovalState.RESPONDED: {},
        ApprovalState.WITHDRAWN: {},
    },
)


class SubscriberState(StrEnum):
    """Where a subscriber of a session's stream is."""

    OPENING = "opening"
    CATCHING_UP = "catching_up"
    LIVE = "live"
    CLOSING = "closing"
    CLOSED = "closed"


class SubscriberInput(StrEnum):
    """What happens to a subscriber; `close` is our decision, `lose` the connection's end, `flush` the last byte out."""

    OPEN = "open"
    CATCH_UP = "catch_up"
    FALL_BEHIND = "fall_behind"
    CLOSE = "close"
    FLUSH = "flush"
    LOSE = "lose"


SUBSCRIBER: Final = Lifecycle(
    "subscriber",
    SubscriberState.OPENING,
    {
        SubscriberState.OPENING: {
            SubscriberInput.OPEN: SubscriberState.CATCHING_UP,
            SubscriberInput.CLOSE: SubscriberState.CLOSING,
            SubscriberInput.LOSE: SubscriberState.CLOSED,
        },
        SubscriberState.CATCHING_UP: {
            SubscriberInput.CATCH_UP: SubscriberState.LIVE,
            SubscriberInput.CLOSE: SubscriberState.CLOSING,
            SubscriberInput.LOSE: SubscriberState.CLOSED,
        },
        SubscriberState.LIVE: {
            SubscriberInput.FALL_BEHIND: SubscriberState.CATCHING_UP,
            SubscriberInput.CLOSE: SubscriberState.CLOSING,
            SubscriberInput.LOSE: SubscriberState.CLOSED,
        },
        # Closing twice is harmless, and a connection may be lost at any time: also after it was closed.
        SubscriberState.CLOSING: {
            SubscriberInput.FLUSH: SubscriberState.CLOSED,
            SubscriberInput.CLOSE: SubscriberState.CLOSING,
            SubscriberInput.LOSE: SubscriberState.CLOSED,
        },
        SubscriberState.CLOSED: {
            SubscriberInput.CLOSE: SubscriberState.CLOSED,
            SubscriberInput.LOSE: SubscriberState.CLOSED,
        },
    },
)

#: All lifecycles, by name.
LIFECYCLES: Final[Mapping[str, Lifecycle[Any, Any]]] = {
    TURN.name: TURN,
    STEP.name: STEP,
    TOOL_CALL.name: TOOL_CALL,
    APPROVAL.name: APPROVAL,
    SUBSCRIBER.name: SUBSCRIBER,
}
