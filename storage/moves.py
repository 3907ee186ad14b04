"""What transactions of turns write, and what is read of their calls: the words that storage and the engine share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from storage.log import NewEvent

__all__ = [
    "Advance",
    "Call",
    "CallState",
    "Dispatch",
    "EndedCall",
    "Executor",
    "NewApproval",
    "NewAudit",
    "NewChild",
    "NewMessage",
    "OpenApproval",
    "ParentResult",
    "RequestRow",
    "Started",
    "SteerPlan",
    "Switch",
    "Waiting",
]

#: The states of the lifecycle `tool_call` that are stored; a call that was only requested is not.
CallState: TypeAlias = Literal["awaiting_approval", "ready", "running", "completed", "failed", "rejected", "cancelled"]
Executor: TypeAlias = Literal["server", "client", "agent"]

_OPEN: Final = frozenset({"awaiting_approval", "ready", "running"})


class NewMessage(Struct, frozen=True, kw_only=True):
    """A message to be stored; `ordinal` counts from 1 and says which of the transaction's events announces it.

    `thread` is the turn to which alone it belongs, where that turn answers a call; `turn_id` None: the writing turn's.
    """

    message_id: UUID
    ordinal: int
    role: Literal["assistant", "tool"]
    content: str
    reasoning: str | None = None
    name: str | None = None
    call_id: UUID | None = None
    tool_calls: bytes | None = None
    agent_type: str | None = None
    finish_reason: str | None = None
    thread: UUID | None = None
    turn_id: UUID | None = None


class OpenApproval(Struct, frozen=True):
    """The approval for which a call waits; without `expires_at` it waits for ever."""

    approval_id: UUID
    expires_at: datetime | None


class Call(Struct, frozen=True, kw_only=True):
    """A tool call. `arguments` is the JSON text that the agent wrote, `final_arguments` what a person made of it.

    `client_id` has the call now, `executors` had it at some time. It fails at its `deadline`, and is taken from a
    client that has left at `release_at`.
    """

    call_id: UUID
    name: str
    arguments: str
    executor: Executor
    state: CallState = "ready"
    final_arguments: str | None = None
    read_only: bool = False
    independent: bool = False
    client_id: str | None = None
    executors: Sequence[str] = ()
    child_turn: UUID | None = None
    deadline: datetime | None = None
    release_at: datetime | None = None
    ordinal: int = 0
    started_at: datetime | None = None
    approval: OpenApproval | None = None

    @property
    def open(self) -> bool:
        """Whether it has no result yet."""
        return self.state in _OPEN

    @property
    def effective_arguments(self) -> str:
        """What is run: the agent's arguments, or what a person made of them."""
        return self.arguments if self.final_arguments is None else self.final_arguments

    @property
    def due_at(self) -> datetime | None:
        """When something happens to it by itself: the first of its deadline, its release and its approval's expiry."""
        expires_at = None if self.approval is None else self.approval.expires_at
        moments = (self.deadline, self.release_at, expires_at)
        return min((moment for moment in moments if moment is not None), default=None)


class Dispatch(Struct, frozen=True, kw_only=True):
    """A call goes to a client; or, with `client_id` None, waits until some client offers its tool."""

    call_id: UUID
    client_id: str | None
    deadline: datetime | None
    release_at: datetime | None = None


class EndedCall(Struct, frozen=True, kw_only=True):
    """A call has its result, which is among the messages of the same move."""

    call_id: UUID
    state: CallState


class NewApproval(Struct, frozen=True, kw_only=True):
    """A person is asked about a call, which waits in the state `awaiting_approval`.

    `due_at` is when to warn, at the latest `expires_at`. `parameters` is the tool's JSON Schema, encoded.
    """

    approval_id: UUID
    call_id: UUID
    agent_type: str
    name: str
    arguments_hash: bytes
    allowed_decisions: Sequence[str]
    rule: str | None = None
    reason: str | None = None
    parameters: bytes | None = None
    expires_at: datetime | None = None
    due_at: datetime | None = None


class NewAudit(Struct, frozen=True, kw_only=True):
    """Who did what. Session, owner and time are the transaction's; `arguments` were asked for, `executed` ran."""

    event_type: str
    user_id: str | None = None
    client_id: str | None = None
    transport: str | None = None
    turn_id: UUID | None = None
    call_id: UUID | None = None
    tool: str | None = None
    decision: str | None = None
    cause: str | None = None
    arguments: str | None = None
    executed: str | None = None
    feedback: str | None = None
    rule: str | None = None


class Switch(Struct, frozen=True, kw_only=True):
    """The agent hands its turn over; `ordinal` says which of the move's events tells so.

    The session has that agent from then on too, unless the turn answers another one's call.
    """

    to_agent: str
    ordinal: int
    reason: str | None = None
    confidence: float | None = None


class NewChild(Struct, frozen=True, kw_only=True):
    """A turn that answers a call of the writing one: `content` is its task, `answer_id` its first message's id.

    `ordinal` says which of the move's events announces the task as a message of the new turn's own thread.
    """

    turn_id: UUID
    call_id: UUID
    agent_type: str
    message_id: UUID
    answer_id: UUID
    content: str
    ordinal: int


class ParentResult(Struct, frozen=True, kw_only=True):
    """What the writing turn came to is the result of another turn's call."""

    call_id: UUID
    state: CallState


class RequestRow(Struct, frozen=True, kw_only=True):
    """What one step of an agent took."""

    model: str | None
    started_at: datetime
    duration_ms: int
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal | None = None
    tools: int = 0
    error_code: str | None = None


class Advance(Struct, frozen=True, kw_only=True):
    """One move of a turn: all that its transaction writes.

    `expected_news`: write nothing if other news came (NewsError); None: write in any case. `park`: let the turn wait,
    with no worker, if there is no news but that (or, with None, but the claim's).
    """

    step_state: Literal["running", "tools", "done"]
    events: Sequence[NewEvent] = ()
    messages: Sequence[NewMessage] = ()
    calls: Sequence[Call] = ()
    started_calls: Sequence[UUID] = ()
    dispatches: Sequence[Dispatch] = ()
    ended_calls: Sequence[EndedCall] = ()
    approvals: Sequence[NewApproval] = ()
    expired: Sequence[UUID] = ()
    withdrawn: Sequence[UUID] = ()
    audits: Sequence[NewAudit] = ()
    switch: Switch | None = None
    children: Sequence[NewChild] = ()
    parent_result: ParentResult | None = None
    request: RequestRow | None = None
    turn_state: Literal["completed", "cancelled", "failed", "interrupted"] | None = None
    error: tuple[str, str] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal | None = None
    next_message_id: UUID | None = None
    expected_news: int | None = None
    park: bool = False


class Waiting(Struct, frozen=True, kw_only=True):
    """A message in a session's queue, and the session's agent and owner."""

    message_id: UUID
    content: str
    agent_type: str | None
    command_id: str
    client_id: str | None
    current_agent: str
    owner: str


class Started(Struct, frozen=True, kw_only=True):
    """A waiting message that becomes a turn: ids made beforehand, events encoded beforehand."""

    session_id: UUID
    message_id: UUID
    agent_type: str
    agent_is_default: bool
    turn_id: UUID
    answer_id: UUID
    worker_id: UUID
    now: datetime
    events: Sequence[NewEvent]
    message_ordinal: int


class SteerPlan(Struct, frozen=True, kw_only=True):
    """Waiting messages that become part of the running turn: their ids, each with the ordinal of its event."""

    messages: Sequence[tuple[UUID, int]]
    events: Sequence[NewEvent]
    now: datetime
