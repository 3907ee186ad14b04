"""What the payloads of events are made of: field types, the base of all payloads, and the objects inside them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct, field

Timestamp: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$",
        description="RFC 3339, UTC, milliseconds",
        examples=["2026-01-02T03:04:05.678Z"],
    ),
]
CursorText: TypeAlias = Annotated[str, Meta(description="Opaque; send it back as `after=`", examples=["1.42"])]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, description="Milliseconds")]

Role: TypeAlias = Literal["user", "assistant", "tool", "system"]
FinishReason: TypeAlias = Literal["stop", "tool_calls", "length", "cancelled", "error", "interrupted"]
TurnOutcome: TypeAlias = Literal["completed", "cancelled", "failed", "interrupted"]
Executor: TypeAlias = Literal["server", "client"]
Part: TypeAlias = Literal["content", "reasoning", "arguments"]
SessionRole: TypeAlias = Literal["owner", "controller", "observer"]
AgentActivity: TypeAlias = Literal["idle", "thinking", "streaming", "tools", "waiting"]


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all payloads, and the objects in them, share: optional fields are left out when they have no value."""


class ErrorInfo(Payload, frozen=True, kw_only=True):
    """Why something failed: a stable code and a sentence for people."""

    code: str
    message: str
    retryable: bool = False


class Usage(Payload, frozen=True, kw_only=True, omit_defaults=False):
    """Tokens spent, and what they cost in the currency of the configured prices; a null cost: no price is known."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count = 0
    cost: Annotated[float, Meta(ge=0)] | None = None


class ToolCallRequest(Payload, frozen=True, kw_only=True):
    """A tool call as the model wrote it; `arguments` is its text, normally JSON."""

    call_id: str
    name: str
    arguments: str


class SessionInfo(Payload, frozen=True, kw_only=True):
    """A session as its clients see it."""

    session_id: UUID
    current_agent: str
    is_active: bool
    message_count: Count
    created_at: Timestamp
    last_activity: Timestamp
    alias: str | None = None
    title: str | None = None
    description: str | None = None
    active_turn: UUID | None = None


class AgentInfo(Payload, frozen=True, kw_only=True):
    """The acting agent."""

    type: str
    agent_id: UUID
    name: str


class ClientInfo(Payload, frozen=True, kw_only=True):
    """A client that is on the session now, and the names of the tools that it offers."""

    client_id: str
    transport: str
    tools: list[str] = field(default_factory=list)
    role: SessionRole = "owner"


class Limits(Payload, frozen=True, kw_only=True):
    """What the server accepts in one command, in bytes and in levels of nesting."""

    max_command_bytes: Count
    max_nesting: Count


class QueuedMessage(Payload, frozen=True, kw_only=True):
    """A message that waits for its turn."""

    message_id: UUID
    content: str
    agent_type: str | None = None
    on_busy: Literal["interrupt", "steer"] | None = None
    client_id: str | None = None
