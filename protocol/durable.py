"""The payloads of durable events: those that are stored, numbered and replayed."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta

from protocol.commands import Decision
from protocol.parts import (
    Count,
    ErrorInfo,
    Executor,
    FinishReason,
    Milliseconds,
    Payload,
    Role,
    Timestamp,
    ToolCallRequest,
    TurnOutcome,
    Usage,
)


class MessageCreated(Payload, frozen=True, kw_only=True):
    """A message is complete: a person's, an agent's or a tool's. Closes the message that deltas opened, if any.

    With `parent_call_id` it was said in the turn of another agent, which that call asked: not between user and agent.
    """

    message_id: UUID
    role: Role
    content: str
    timestamp: Timestamp
    turn_id: UUID | None = None
    agent_id: UUID | None = None
    agent_name: str | None = None
    agent_type: str | None = None
    finish_reason: FinishReason | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallRequest] | None = None
    call_id: str | None = None
    name: str | None = None
    command_id: str | None = None
    client_id: str | None = None
    attempt: Count | None = None
    parent_call_id: str | None = None


class TaskStarted(Payload, frozen=True, kw_only=True):
    """A turn began to work on a message; with `parent_call_id` for another turn, whose call it answers."""

    turn_id: UUID
    message_id: UUID
    agent_type: str
    agent_id: UUID
    agent_name: str
    parent_call_id: str | None = None


class TaskCancelling(Payload, frozen=True, kw_only=True):
    """Somebody pressed stop, or interrupted; the turn ends at the next occasion."""

    turn_id: UUID
    command_id: str
    client_id: str | None = None


class TaskCompleted(Payload, frozen=True, kw_only=True):
    """A turn is over, whatever its end."""

    turn_id: UUID
    status: TurnOutcome
    usage: Usage
    steps: Count
    duration_ms: Milliseconds
    error: ErrorInfo | None = None
    parent_call_id: str | None = None


class TurnError(Payload, frozen=True, kw_only=True):
    """A step of a turn failed; never stored as a message. `retryable` says whether the engine may try again."""

    turn_id: UUID
    code: str
    message: str
    retryable: bool
    message_id: UUID | None = None


class DirectAgentCall(Payload, frozen=True, kw_only=True):
    """A message was addressed to one agent, past the acting one."""

    turn_id: UUID
    message_id: UUID
    agent_type: str
    agent_id: UUID


class AgentSwitched(Payload, frozen=True, kw_only=True):
    """Another agent acts from now on: a person said so (`client`), or the agent handed its turn over (`agent`)."""

    from_agent: str
    to_agent: str
    reason: str | None = None
    command_id: str | None = None
    cause: Literal["client", "agent"] = "client"
    turn_id: UUID | None = None
    confidence: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class ToolCall(Payload, frozen=True, kw_only=True):
    """The agent calls a tool; `arguments` is the decoded value."""

    call_id: str
    turn_id: UUID
    message_id: UUID
    name: str
    arguments: Any
    executor: Executor


class ToolDispatched(Payload, frozen=True, kw_only=True):
    """Who runs a call, and until when (null: without a deadline); no `client_id` means the server.

    `name` and `arguments` are what is to be run: after an edit, what a person made of it. Whoever is named runs it
    once, and answers from what he did when he is named for the same call again.
    """

    call_id: str
    turn_id: UUID
    deadline: Timestamp | None
    name: str
    arguments: Any
    client_id: str | None = None


class ToolResultEvent(Payload, frozen=True, kw_only=True):
    """A call's one result."""

    call_id: str
    turn_id: UUID
    name: str
    executor: Executor
    result: Any = None
    error: str | None = None
    duration_ms: Milliseconds | None = None
    client_id: str | None = None


class ApprovalRequired(Payload, frozen=True, kw_only=True):
    """A call waits for a person.

    `parameters` is the tool's JSON Schema, `rule` the policy that asked. A null `expires_at` means never; expiry means
    reject.
    """

    approval_id: UUID
    call_id: str
    turn_id: UUID
    message_id: UUID
    name: str
    arguments: Any
    arguments_hash: str
    allowed_decisions: list[Decision]
    expires_at: Timestamp | None
    agent_type: str | None = None
    parameters: dict[str, Any] | None = None
    rule: str | None = None
    reason: str | None = None


class ApprovalResolved(Payload, frozen=True, kw_only=True):
    """A call was decided, by a person, a rule, expiry or the end of its turn; `arguments` are those that will run."""

    approval_id: UUID
    call_id: str
    turn_id: UUID
    decision: Decision
    cause: Literal["person", "rule", "expiry", "cancel"]
    arguments: Any = None
    feedback: str | None = None
    rule: str | None = None
    user: str | None = None
    client_id: str | None = None
    command_id: str | None = None


class QueueChanged(Payload, frozen=True, kw_only=True):
    """The queue of waiting messages changed; `order` is all of it after a reordering.

    `on_busy` is said of a message that does not go to the end: one that interrupts comes first, one that steers goes to
    the running turn at its next step.
    """

    change: Literal["added", "removed", "reordered", "started"]
    message_id: UUID | None = None
    content: str | None = None
    agent_type: str | None = None
    order: list[UUID] | None = None
    on_busy: Literal["interrupt", "steer"] | None = None
    command_id: str | None = None
    client_id: str | None = None


class SessionUpdated(Payload, frozen=True, kw_only=True):
    """Fields of the session changed; those that did are here."""

    title: str | None = None
    description: str | None = None
    is_active: bool | None = None
