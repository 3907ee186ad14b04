"""What REST answers, as types. Fields that this version does not know are passed over."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from protocol.parts import ToolCallRequest

__all__ = [
    "AgentInfo",
    "AgentSpan",
    "CreatedSession",
    "Health",
    "HistoryMessage",
    "HistoryPage",
    "Match",
    "SessionInfo",
    "SessionPage",
]


class CreatedSession(Struct, frozen=True, kw_only=True):
    """What `create_session` made: the server's `id`, the caller's own `alias`, and where its log begins."""

    id: UUID
    alias: str | None
    current_agent: str
    cursor: str
    title: str | None = None


class Match(Struct, frozen=True, kw_only=True):
    """Where a search found its text: `title`, `alias`, `id`, or a `message`, of which it shows a piece."""

    field: str
    message_id: UUID | None = None
    role: str | None = None
    excerpt: str | None = None


class SessionInfo(Struct, frozen=True, kw_only=True):
    """A session; times are RFC 3339 in UTC.

    `cursor` is the place in its log at which it was in this state: connect with `after=` this cursor and nothing that
    came later is missed. The fields from `description` on are known only of a session that was asked for by itself,
    `match` only of one that was searched for.
    """

    id: UUID
    alias: str | None
    title: str | None
    message_count: int
    created_at: str
    last_activity: str
    is_active: bool
    current_agent: str
    cursor: str
    description: str | None = None
    duration_seconds: float | None = None
    active_turn: UUID | None = None
    queued: int | None = None
    match: Match | None = None


class SessionPage(Struct, frozen=True, kw_only=True):
    """A page of sessions; `total` counts all that match, not those on the page."""

    sessions: list[SessionInfo]
    total: int
    limit: int
    offset: int


class HistoryMessage(Struct, frozen=True, kw_only=True):
    """A stored message; `cursor` is the place of the event that announced it."""

    message_id: UUID
    role: str
    content: str
    timestamp: str
    cursor: str
    name: str | None = None
    tool_call_id: UUID | None = None
    tool_calls: list[ToolCallRequest] | None = None
    agent_type: str | None = None
    finish_reason: str | None = None
    reasoning: str | None = None
    turn_id: UUID | None = None


class AgentSpan(Struct, frozen=True, kw_only=True):
    """An agent that answered, and since when it did."""

    agent_type: str
    since: str


class HistoryPage(Struct, frozen=True, kw_only=True):
    """A page of a session's messages in order.

    `next` is what `after` takes for the following page, None on the last one. `cursor` is the session's head when the
    page was read: connect there once the pages are read. `agent_history` is about the messages of the page.
    """

    session_id: UUID
    messages: list[HistoryMessage]
    message_count: int
    last_activity: str
    current_agent: str
    cursor: str
    next: str | None = None
    agent_history: list[AgentSpan] = []


class AgentInfo(Struct, frozen=True, kw_only=True):
    """An agent that can be talked to."""

    type: str
    agent_id: UUID
    name: str
    description: str = ""
    allowed_tools: list[str] = []
    has_file_restrictions: bool = False
    is_default: bool = False


class Health(Struct, frozen=True, kw_only=True):
    """The server answers. `service` is `parley` if it is one."""

    status: str
    service: str
    version: str
