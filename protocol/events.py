"""What the server says: one payload type an event, and the table of them all.

Four kinds. *Durable* events are stored, numbered and replayed. *Delta* events stream a message that is being written;
they may be dropped, merged and repeated. *Transient* events are true only now. *Control* events are about the channel.
Clients ignore unknown event types and unknown fields: new ones never break old clients.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias
from uuid import UUID

from msgspec import field

from protocol.durable import (
    AgentSwitched,
    ApprovalRequired,
    ApprovalResolved,
    DirectAgentCall,
    MessageCreated,
    QueueChanged,
    SessionUpdated,
    TaskCancelling,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolDispatched,
    ToolResultEvent,
    TurnError,
)
from protocol.errors import ErrorCode, ParleyError
from protocol.parts import (
    AgentActivity,
    AgentInfo,
    ClientInfo,
    Count,
    CursorText,
    ErrorInfo,
    Executor,
    FinishReason,
    Limits,
    Milliseconds,
    Part,
    Payload,
    QueuedMessage,
    Role,
    SessionInfo,
    SessionRole,
    Timestamp,
    ToolCallRequest,
    TurnOutcome,
    Usage,
)

__all__ = [
    "EVENTS",
    "EVENT_NAMES",
    "Ack",
    "AgentActivity",
    "AgentInfo",
    "AgentStatusChanged",
    "AgentSwitched",
    "ApprovalRequired",
    "ApprovalResolved",
    "ApprovalTimeoutWarning",
    "ClientInfo",
    "CommandError",
    "Connected",
    "DirectAgentCall",
    "Disconnect",
    "ErrorInfo",
    "EventType",
    "Executor",
    "FinishReason",
    "Heartbeat",
    "Kind",
    "Limits",
    "MessageCreated",
    "MessageDelta",
    "Part",
    "Payload",
    "PresenceChanged",
    "QueueChanged",
    "QueuedMessage",
    "ResyncRequired",
    "Role",
    "SessionInfo",
    "SessionUpdated",
    "Snapshot",
    "Sync",
    "TaskCancelling",
    "TaskCompleted",
    "TaskStarted",
    "Timestamp",
    "ToolCall",
    "ToolCallRequest",
    "ToolDispatched",
    "ToolProgressEvent",
    "ToolResultEvent",
    "TurnError",
    "TurnOutcome",
    "Usage",
    "Warning_",
]

Kind: TypeAlias = Literal["durable", "delta", "transient", "control"]


# --- delta


class MessageDelta(Payload, frozen=True, kw_only=True):
    """A piece of a message that is being written. `offset` is in UTF-16 code units of this part of this attempt."""

    message_id: UUID
    attempt: Count
    part: Part
    offset: Count
    text: str
    call_id: str | None = None


# --- transient


class AgentStatusChanged(Payload, frozen=True, kw_only=True):
    """What the acting agent is doing."""

    agent_type: str
    status: AgentActivity
    turn_id: UUID | None = None


class PresenceChanged(Payload, frozen=True, kw_only=True):
    """A client came, left, or changed the tools that it offers; `clients` counts those that are here."""

    change: Literal["joined", "left", "updated"]
    client: ClientInfo
    clients: Count


class ApprovalTimeoutWarning(Payload, frozen=True, kw_only=True):
    """An approval will soon expire."""

    approval_id: UUID
    call_id: str
    expires_at: Timestamp
    remaining_ms: Milliseconds


class ToolProgressEvent(Payload, frozen=True, kw_only=True):
    """How far a running tool is; `fraction` is 0 to 1, `deadline` the renewed lease."""

    call_id: str
    message: str | None = None
    fraction: float | None = None
    client_id: str | None = None
    deadline: Timestamp | None = None


class Warning_(Payload, frozen=True, kw_only=True):  # noqa: N801 - `Warning` is a builtin
    """Something the client should know that stopped nothing."""

    code: str
    message: str


# --- control


class Connected(Payload, frozen=True, kw_only=True):
    """The first frame: who you are, in what role, where the stream begins, what is allowed, who else is here."""

    client_id: str
    cursor: CursorText
    session: SessionInfo
    limits: Limits
    heartbeat_interval_ms: Milliseconds
    agent: AgentInfo
    clients: list[ClientInfo]
    server_version: str
    role: SessionRole = "owner"


class Sync(Payload, frozen=True, kw_only=True):
    """The replay is over: everything after `from` up to and with `through` was sent; what follows is live."""

    from_: CursorText = field(name="from")
    through: CursorText


class Ack(Payload, frozen=True, kw_only=True):
    """A command took effect (`accepted`), or waits in the queue (`queued`); `seq` is its first event's."""

    id: str | None = None
    status: Literal["accepted", "queued"]
    seq: Count | None = None
    message_id: UUID | None = None
    turn_id: UUID | None = None


class CommandError(Payload, frozen=True, kw_only=True):
    """A command was refused and changed nothing; `path` names the field."""

    id: str | None = None
    code: str
    message: str
    path: str | None = None
    retry_after_ms: Milliseconds | None = None

    @classmethod
    def of(cls, error: ParleyError) -> CommandError:
        """The same refusal as an event."""
        return cls(
            id=error.id,
            code=error.code.code,
            message=error.message,
            path=error.path,
            retry_after_ms=_milliseconds(error.retry_after),
        )


class Snapshot(Payload, frozen=True, kw_only=True):
    """The session as it stands at a cursor: the newest messages, and what is open. `has_more`: there are older ones."""

    session: SessionInfo
    messages: list[MessageCreated]
    has_more: bool
    queue: list[QueuedMessage] = field(default_factory=list)
    approvals: list[ApprovalRequired] = field(default_factory=list)


class ResyncRequired(Payload, frozen=True, kw_only=True):
    """The cursor cannot be served. Forget what you know, take the snapshot (or read the history), go on at `cursor`."""

    reason: Literal["trimmed", "epoch_changed", "ahead"]
    cursor: CursorText
    snapshot: Snapshot | None = None


class Disconnect(Payload, frozen=True, kw_only=True):
    """The channel ends, and whether and when to come back."""

    code: str
    reason: str
    reconnect: bool
    retry_after_ms: Milliseconds | None = None

    @classmethod
    def of(cls, code: ErrorCode, reason: str | None = None, retry_after: float | None = None) -> Disconnect:
        """The advice that goes with a code; `reason` defaults to the code's title, `retry_after` is in seconds."""
        return cls(
            code=code.code,
            reason=code.title if reason is None else reason,
            reconnect=code.may_reconnect,
            retry_after_ms=_milliseconds(retry_after),
        )


class Heartbeat(Payload, frozen=True, kw_only=True):
    """The server lives."""


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else max(0, round(seconds * 1000))


class EventType(NamedTuple):
    """One row of the table: an event's name, its kind, its payload and what it tells."""

    name: str
    kind: Kind
    payload: type[Payload]
    description: str


def _event(name: str, kind: Kind, payload: type[Payload]) -> EventType:
    return EventType(name, kind, payload, " ".join((payload.__doc__ or "").split()))


_TABLE: Final = (
    _event("message_created", "durable", MessageCreated),
    _event("task_started", "durable", TaskStarted),
    _event("task_cancelling", "durable", TaskCancelling),
    _event("task_completed", "durable", TaskCompleted),
    _event("turn_error", "durable", TurnError),
    _event("direct_agent_call", "durable", DirectAgentCall),
    _event("agent_switched", "durable", AgentSwitched),
    _event("tool_call", "durable", ToolCall),
    _event("tool_dispatched", "durable", ToolDispatched),
    _event("tool_result", "durable", ToolResultEvent),
    _event("approval_required", "durable", ApprovalRequired),
    _event("approval_resolved", "durable", ApprovalResolved),
    _event("queue_changed", "durable", QueueChanged),
    _event("session_updated", "durable", SessionUpdated),
    _event("message_delta", "delta", MessageDelta),
    _event("agent_status_changed", "transient", AgentStatusChanged),
    _event("presence_changed", "transient", PresenceChanged),
    _event("approval_timeout_warning", "transient", ApprovalTimeoutWarning),
    _event("tool_progress", "transient", ToolProgressEvent),
    _event("warning", "transient", Warning_),
    _event("connected", "control", Connected),
    _event("sync", "control", Sync),
    _event("ack", "control", Ack),
    _event("command_error", "control", CommandError),
    _event("resync_required", "control", ResyncRequired),
    _event("disconnect", "control", Disconnect),
    _event("heartbeat", "control", Heartbeat),
)

#: Every event type, by its name on the wire, in the order of the documents.
EVENTS: Final[dict[str, EventType]] = {row.name: row for row in _TABLE}

#: The wire name of a payload type.
EVENT_NAMES: Final[dict[type[Payload], str]] = {row.payload: row.name for row in _TABLE}
