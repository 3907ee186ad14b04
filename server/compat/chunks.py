"""What `POST /agent/message/stream` takes and says: the four messages, and the flat chunks of the answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from protocol.commands import CallId, Decision, Prose, Text
from protocol.ids import ID_PATTERN

__all__ = [
    "Chunk",
    "ChunkMetadata",
    "HitlDecisionMessage",
    "Message",
    "Posted",
    "SwitchAgentMessage",
    "ToolResultMessage",
    "UserMessage_",
]

Agent: TypeAlias = Annotated[str, Meta(pattern=ID_PATTERN, description="An agent's type, or its `agent_id`")]


class _Message(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Fields that are not known are passed over: these clients were not written for this server."""


class UserMessage_(_Message, frozen=True, kw_only=True, tag="user_message"):  # noqa: N801 - the protocol has the name
    """Say something to the agent."""

    content: Text
    agent_type: Agent | None = None


class ToolResultMessage(_Message, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool that the client ran has returned: `result`, or `error`."""

    call_id: CallId
    result: Any = None
    error: Annotated[str, Meta(min_length=1, max_length=65_536)] | None = None


class SwitchAgentMessage(_Message, frozen=True, kw_only=True, tag="switch_agent"):
    """Let another agent answer from now on."""

    agent_type: Agent
    reason: Prose | None = None


class HitlDecisionMessage(_Message, frozen=True, kw_only=True, tag="hitl_decision"):
    """Decide about a tool call that waits for a person."""

    call_id: CallId
    decision: Decision
    modified_arguments: dict[str, Any] | None = None
    feedback: Prose | None = None


Message: TypeAlias = UserMessage_ | ToolResultMessage | SwitchAgentMessage | HitlDecisionMessage


class Posted(Struct, frozen=True, kw_only=True):
    """A message for a session, which is made if it does not exist."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN, description="The session's UUID, or your own name for it")]
    message: Message


class ChunkMetadata(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What else there is to say.

    Of `agent_switched` who, to whom, why and how sure; of `tool_call` who runs it; of `error` its code and when to come
    back; of `done` how the turn rests: `waiting` is for a decision or a result of the client.
    """

    from_agent: str | None = None
    to_agent: str | None = None
    reason: str | None = None
    confidence: float | None = None
    executor: Literal["server", "client"] | None = None
    code: str | None = None
    retry_after_ms: int | None = None
    status: Literal["completed", "cancelled", "failed", "interrupted", "waiting"] | None = None


class Chunk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One piece of the answer; `is_final` is false on pieces of a message alone.

    `assistant_message` has a `token`, and at its end once the whole `content`. A `tool_call` that `requires_approval`
    waits for a `hitl_decision`; it comes again without it when the client is to run it. `done` is the last one.
    """

    type: Literal["assistant_message", "tool_call", "agent_switched", "error", "done"]
    content: str | None = None
    token: str | None = None
    is_final: bool
    call_id: str | None = None
    tool_name: str | None = None
    arguments: Any = None
    requires_approval: bool | None = None
    error: str | None = None
    metadata: ChunkMetadata | None = None
