"""The durable events of turns, encoded: what each moment of a turn writes into the log."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, cast
from uuid import UUID

import msgspec

from protocol.commands import Cancel, Decision, UserMessage
from protocol.envelope import payload_json
from protocol.events import (
    EVENT_NAMES,
    AgentSwitched,
    ApprovalRequired,
    ApprovalResolved,
    DirectAgentCall,
    ErrorInfo,
    FinishReason,
    MessageCreated,
    Payload,
    QueueChanged,
    TaskCancelling,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolCallRequest,
    ToolDispatched,
    TurnError,
    TurnOutcome,
    Usage,
)
from protocol.ids import format_timestamp
from server.agents.interface import AgentDefinition
from storage.claims import Claim
from storage.log import NewEvent
from storage.moves import Call, NewApproval

__all__ = [
    "agent_switched",
    "approval_required",
    "approval_resolved",
    "assistant_message",
    "child_begins",
    "event",
    "handed_over",
    "message_queued",
    "parent_call_of",
    "queue_changed",
    "step_limit",
    "task_cancelling",
    "task_completed",
    "title_of",
    "tool_call",
    "tool_dispatched",
    "turn_begins",
    "turn_error",
    "user_message",
    "value_of",
]

_TITLE_CHARS: Final = 80


def title_of(content: str) -> str:
    """What a session is called after its first message: the beginning of its first line."""
    first = content.strip().partition("\n")[0].strip()
    return first if len(first) <= _TITLE_CHARS else first[: _TITLE_CHARS - 1].rstrip() + "…"


def event(payload: Payload) -> NewEvent:
    """A durable event, encoded."""
    return NewEvent(EVENT_NAMES[type(payload)], payload_json(payload))


def user_message(
    message_id: UUID, content: str, now: datetime, turn_id: UUID, *, command_id: str | None, client_id: str | None
) -> NewEvent:
    """The user's message becomes part of the conversation."""
    return event(
        MessageCreated(
            message_id=message_id,
            role="user",
            content=content,
            timestamp=format_timestamp(now),
            turn_id=turn_id,
            command_id=command_id,
            client_id=client_id,
        )
    )


def turn_begins(turn_id: UUID, message_id: UUID, agent: AgentDefinition, *, direct: bool) -> list[NewEvent]:
    """An agent takes the message up; `direct`: the message named the agent."""
    started = TaskStarted(
        turn_id=turn_id, message_id=message_id, agent_type=agent.type, agent_id=agent.agent_id, agent_name=agent.name
    )
    if not direct:
        return [event(started)]
    call = DirectAgentCall(turn_id=turn_id, message_id=message_id, agent_type=agent.type, agent_id=agent.agent_id)
    return [event(call), event(started)]


def child_begins(
    turn_id: UUID, message_id: UUID, content: str, agent: AgentDefinition, now: datetime, parent_call: UUID
) -> list[NewEvent]:
    """An agent is asked by another: first what it is told, then that it begins."""
    told = MessageCreated(
        message_id=message_id,
        role="user",
        content=content,
        timestamp=format_timestamp(now),
        turn_id=turn_id,
        parent_call_id=str(parent_call),
    )
    started = TaskStarted(
        turn_id=turn_id,
        message_id=message_id,
        agent_type=agent.type,
        agent_id=agent.agent_id,
        agent_name=agent.name,
        parent_call_id=str(parent_call),
    )
    return [event(told), event(started)]


def queue_changed(change: QueueChanged) -> NewEvent:
    """The queue of waiting messages changed."""
    return event(change)


def message_queued(message_id: UUID, content: str, command: UserMessage, client_id: str | None) -> NewEvent:
    """The user's message waits for its turn."""
    return event(
        QueueChanged(
            change="added",
            message_id=message_id,
            content=content,
            agent_type=command.agent_type,
            on_busy=command.on_busy if command.on_busy in ("interrupt", "steer") else None,
            command_id=command.id,
            client_id=client_id,
        )
    )


def task_cancelling(turn_id: UUID, command: Cancel | UserMessage, client_id: str | None) -> NewEvent:
    """Somebody pressed stop."""
    return event(TaskCancelling(turn_id=turn_id, command_id=command.id, client_id=client_id))


def agent_switched(
    from_agent: str, to_agent: str, reason: str | None, command_id: str, confidence: float | None = None
) -> NewEvent:
    """A person gave the session another agent."""
    return event(
        AgentSwitched(
            from_agent=from_agent, to_agent=to_agent, reason=reason, command_id=command_id, confidence=confidence
        )
    )


def handed_over(claim: Claim, to_agent: str, reason: str | None) -> NewEvent:
    """An agent gave its turn to another."""
    return event(
        AgentSwitched(
            from_agent=claim.agent_type, to_agent=to_agent, reason=reason, cause="agent", turn_id=claim.turn_id
        )
    )


def assistant_message(
    claim: Claim, agent: AgentDefinition, reason: FinishReason, now: datetime, calls: list[ToolCallRequest]
) -> NewEvent:
    """The message that the claim's step wrote is complete."""
    return event(
        MessageCreated(
            message_id=claim.message_id,
            role="assistant",
            content=claim.content,
            timestamp=format_timestamp(now),
            turn_id=claim.turn_id,
            agent_id=agent.agent_id,
            agent_name=agent.name,
            agent_type=agent.type,
            finish_reason=reason,
            reasoning=claim.reasoning or None,
            tool_calls=calls or None,
            attempt=claim.attempt,
            parent_call_id=parent_call_of(claim),
        )
    )


def turn_error(claim: Claim, error: ErrorInfo, *, with_message: bool) -> NewEvent:
    """The step failed; what the provider said goes here and never into a message."""
    return event(
        TurnError(
            turn_id=claim.turn_id,
            message_id=claim.message_id if with_message else None,
            code=error.code,
            message=error.message,
            retryable=error.retryable,
        )
    )


def step_limit(steps: int) -> ErrorInfo:
    """Why a turn ended that would have gone on calling tools."""
    return ErrorInfo(code="step_limit", message=f"the turn took as many steps as it may ({steps})")


def task_completed(claim: Claim, status: TurnOutcome, now: datetime, usage: Usage, error: ErrorInfo | None) -> NewEvent:
    """The turn is over."""
    duration = round((now - claim.turn_created_at).total_seconds() * 1000)
    return event(
        TaskCompleted(
            turn_id=claim.turn_id,
            status=status,
            usage=usage,
            steps=claim.step,
            duration_ms=max(duration, 0),
            error=error,
            parent_call_id=parent_call_of(claim),
        )
    )


def tool_call(claim: Claim, call: Call) -> NewEvent:
    """The agent calls a tool."""
    return event(
        ToolCall(
            call_id=str(call.call_id),
            turn_id=claim.turn_id,
            message_id=claim.message_id,
            name=call.name,
            arguments=value_of(call.arguments),
            executor="client" if call.executor == "client" else "server",
        )
    )


def tool_dispatched(claim: Claim, call: Call, client_id: str | None, deadline: datetime | None) -> NewEvent:
    """Somebody has the call now, and is told all that he needs to run it."""
    return event(
        ToolDispatched(
            call_id=str(call.call_id),
            turn_id=claim.turn_id,
            deadline=None if deadline is None else format_timestamp(deadline),
            name=call.name,
            arguments=value_of(call.effective_arguments),
            client_id=client_id,
        )
    )


def approval_required(claim: Claim, call: Call, approval: NewApproval, parameters: dict[str, Any] | None) -> NewEvent:
    """A person has to decide about the call."""
    return event(
        ApprovalRequired(
            approval_id=approval.approval_id,
            call_id=str(call.call_id),
            turn_id=claim.turn_id,
            message_id=claim.message_id,
            name=call.name,
            arguments=value_of(call.arguments),
            arguments_hash=approval.arguments_hash.hex(),
            allowed_decisions=cast("list[Decision]", list(approval.allowed_decisions)),
            expires_at=None if approval.expires_at is None else format_timestamp(approval.expires_at),
            agent_type=approval.agent_type,
            parameters=parameters,
            rule=approval.rule,
            reason=approval.reason,
        )
    )


def approval_resolved(
    approval_id: UUID, call: Call, turn_id: UUID, decision: Decision, cause: Literal["expiry", "cancel"]
) -> NewEvent:
    """Nobody decided: the time was up, or the turn was stopped."""
    return event(
        ApprovalResolved(
            approval_id=approval_id, call_id=str(call.call_id), turn_id=turn_id, decision=decision, cause=cause
        )
    )


def parent_call_of(claim: Claim) -> str | None:
    """The call that the claim's turn answers, if another agent asked for it."""
    return None if claim.parent_call is None else str(claim.parent_call)


def value_of(text: str) -> Any:
    """Arguments as a value; those that are no JSON as the text they are."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
