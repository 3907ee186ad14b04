"""The durable events of turns, encoded: what each moment of a turn writes into the log."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from protocol.commands import Cancel, UserMessage
from protocol.envelope import payload_json
from protocol.events import (
    EVENT_NAMES,
    AgentSwitched,
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
    ToolResultEvent,
    TurnError,
    TurnOutcome,
    Usage,
)
from protocol.ids import format_timestamp
from server.agents.interface import AgentDefinition
from storage.log import NewEvent
from storage.turns import Call, Claim

__all__ = [
    "agent_switched",
    "assistant_message",
    "message_queued",
    "queue_changed",
    "step_limit",
    "task_cancelling",
    "task_completed",
    "title_of",
    "tool_call",
    "tool_result",
    "turn_begins",
    "turn_error",
    "user_message",
]

_TITLE_CHARS: Final = 80


def title_of(content: str) -> str:
    """What a session is called after its first message: the beginning of its first line."""
    first = content.strip().partition("\n")[0].strip()
    return first if len(first) <= _TITLE_CHARS else first[: _TITLE_CHARS - 1].rstrip() + "…"


def _event(payload: Payload) -> NewEvent:
    return NewEvent(EVENT_NAMES[type(payload)], payload_json(payload))


def user_message(
    message_id: UUID, content: str, now: datetime, turn_id: UUID, *, command_id: str, client_id: str | None
) -> NewEvent:
    """The user's message becomes part of the conversation."""
    return _event(
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
        return [_event(started)]
    call = DirectAgentCall(turn_id=turn_id, message_id=message_id, agent_type=agent.type, agent_id=agent.agent_id)
    return [_event(call), _event(started)]


def queue_changed(change: QueueChanged) -> NewEvent:
    """The queue of waiting messages changed."""
    return _event(change)


def message_queued(message_id: UUID, content: str, command: UserMessage, client_id: str | None) -> NewEvent:
    """The user's message waits for its turn."""
    return _event(
        QueueChanged(
            change="added",
            message_id=message_id,
            content=content,
            agent_type=command.agent_type,
            command_id=command.id,
            client_id=client_id,
        )
    )


def task_cancelling(turn_id: UUID, command: Cancel, client_id: str | None) -> NewEvent:
    """Somebody pressed stop."""
    return _event(TaskCancelling(turn_id=turn_id, command_id=command.id, client_id=client_id))


def agent_switched(from_agent: str, to_agent: str, reason: str | None, command_id: str) -> NewEvent:
    """The session has another agent."""
    return _event(AgentSwitched(from_agent=from_agent, to_agent=to_agent, reason=reason, command_id=command_id))


def assistant_message(
    claim: Claim, agent: AgentDefinition, reason: FinishReason, now: datetime, calls: list[ToolCallRequest]
) -> NewEvent:
    """The message that the claim's step wrote is complete."""
    return _event(
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
        )
    )


def turn_error(claim: Claim, error: ErrorInfo, *, with_message: bool) -> NewEvent:
    """The step failed; what the provider said goes here and never into a message."""
    return _event(
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
    return _event(
        TaskCompleted(
            turn_id=claim.turn_id,
            status=status,
            usage=usage,
            steps=claim.step,
            duration_ms=max(duration, 0),
            error=error,
        )
    )


def tool_call(claim: Claim, call: Call) -> NewEvent:
    """The agent calls a tool; arguments that are no JSON are shown as the text they are."""
    return _event(
        ToolCall(
            call_id=str(call.call_id),
            turn_id=claim.turn_id,
            message_id=claim.message_id,
            name=call.name,
            arguments=_value(call.arguments),
            executor=call.executor,
        )
    )


def tool_result(claim: Claim, call: Call, result: Any, error: str | None, duration_ms: int | None) -> NewEvent:
    """A call's one result."""
    return _event(
        ToolResultEvent(
            call_id=str(call.call_id),
            turn_id=claim.turn_id,
            name=call.name,
            executor=call.executor,
            result=result,
            error=error,
            duration_ms=duration_ms,
        )
    )


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
