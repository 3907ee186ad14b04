"""The payloads of durable events: those that are stored, numbered and replayed."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

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
    """A message is complete: a person's, an agent's or a tool's. Closes the message that deltas opened, if any."""

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


class TaskStarted(Payload, frozen=True, kw_only=True):
    """A turn began to work on a message."""

    turn_id: UUID
    message_id: UUID
    agent_type: str
    agent_id: UUID
    agent_name: str


class TaskCancelling(Payload, frozen=True, kw_only=True):
    """Somebody pressed stop; the turn ends at the next occasion."""

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
    """Another agent acts from now on."""

    from_agent: str
    to_agent: str
    reason: str | None = None
    command_id: str | None = None


class ToolCall(Payload, frozen=True, kw_only=True):
    """The agent calls a tool; `arguments` is the decoded value."""

    call_id: str
    turn_id: UUID
    message_id: UUID
    name: str
    arguments: Any
    executor: Executor


class ToolDispatched(Payload, frozen=True, kw_only=True):
    """Who runs a call, and until when (null: without a deadline); no `client_id` means the server."""

    call_id: str
    turn_id: UUID
    deadline: Timestamp | None
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
    """The queue of waiting messages changed; `order` is all of it after a reordering."""

    change: Literal["added", "removed", "reordered", "started"]
    message_id: UUID | None = None
    content: str | None = None
    agent_type: str | None = None
    order: list[UUID] | None = None
    command_id: str | None = None
    client_id: str | None = None


class SessionUpdated(Payload, frozen=True, kw_only=True):
    """Fields of the session changed; those that did are here."""

    title: str | None = None
    description: str | None = None
    is_active: bool | None = None
