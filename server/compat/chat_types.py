"""What the chat routes take and answer."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Meta, Struct

from protocol.commands import Text
from protocol.ids import ID_PATTERN, format_timestamp
from server.channel.routes import ClientQuery
from storage.sessions import Session

__all__ = [
    "TIME_OR_CURSOR",
    "ChatMessages",
    "ChatSession",
    "ChatSessions",
    "ChatStatistics",
    "EventsQuery",
    "MessageShape",
    "MessagesQuery",
    "NewChat",
    "PostedMessage",
    "SessionsQuery",
    "StreamCounts",
]

AgentName: TypeAlias = Annotated[str, Meta(pattern=ID_PATTERN, description="An agent's type, or its `agent_id`")]

#: What `since` is.
TIME_OR_CURSOR: Final = "a time (RFC 3339), after which events begin, or a cursor"


class NewChat(Struct, frozen=True, kw_only=True):
    """A session to make; `session_id` is your own name for it. Fields that are not known are passed over."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    title: Annotated[str, Meta(min_length=1, max_length=500)] | None = None
    target_agent: AgentName | None = None


class ChatSession(Struct, frozen=True, kw_only=True):
    """A session."""

    id: UUID
    alias: str | None
    title: str | None
    project_id: UUID | None
    current_agent: str
    message_count: int
    created_at: str
    last_activity: str

    @classmethod
    def of(cls, session: Session) -> ChatSession:
        """A session as it was read."""
        return cls(
            id=session.session_id,
            alias=session.alias,
            title=session.title,
            project_id=session.project_id,
            current_agent=session.current_agent,
            message_count=session.message_count,
            created_at=format_timestamp(session.created_at),
            last_activity=format_timestamp(session.last_activity),
        )


class ChatSessions(Struct, frozen=True, kw_only=True):
    """A page of sessions, the latest activity first; `total` counts all."""

    sessions: list[ChatSession]
    total: int
    limit: int
    offset: int


class SessionsQuery(Struct, frozen=True):
    """Which page of the sessions."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0


class MessagesQuery(Struct, frozen=True):
    """Which page of the messages, from the first on."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0


class PostedMessage(Struct, frozen=True, kw_only=True):
    """Something to say; `target_agent` answers in place of the acting one. Unknown fields are passed over."""

    content: Text
    target_agent: AgentName | None = None


class MessageShape(Struct, frozen=True, kw_only=True):
    """A message; `agent_id` is the agent that said it, or of a user's message the one that it is for."""

    id: UUID
    role: Literal["user", "assistant"]
    content: str
    agent_id: UUID | None
    timestamp: str


class ChatMessages(Struct, frozen=True, kw_only=True):
    """A page of messages in order; `total` counts all. A page may end early where it has several megabytes."""

    messages: list[MessageShape]
    total: int
    limit: int
    offset: int


class EventsQuery(ClientQuery, frozen=True):
    """Where the events begin; without it they begin now."""

    since: Annotated[str, Meta(description=f"{TIME_OR_CURSOR}; a cursor loses and repeats nothing")] | None = None


class StreamCounts(Struct, frozen=True, kw_only=True):
    """Streams of this process; `events_sent` since its start."""

    connections: int
    sessions_with_subscribers: int
    events_sent: int


class ChatStatistics(Struct, frozen=True, kw_only=True):
    """What you have in all, and the streams of the process that answers."""

    sessions: int
    messages: int
    running_turns: int
    waiting_messages: int
    last_activity: str | None
    streams: StreamCounts
