"""Sessions and messages as REST shows them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
from msgspec import Struct

from protocol.cursor import Cursor
from protocol.ids import format_timestamp
from protocol.parts import SessionRole
from storage.messages import StoredMessage
from storage.sessions import Match, Session

__all__ = [
    "AgentSpan",
    "FoundSessionList",
    "FoundSessionView",
    "HistoryView",
    "MatchView",
    "MessageView",
    "SessionDetails",
    "SessionList",
    "SessionView",
    "agent_history",
]


class SessionView(Struct, frozen=True, kw_only=True):
    """A session.

    `id` is the server's UUID, `alias` the caller's own name for it, `role` what he is in it. `cursor` is the place in
    its event log at which it was in this state: a stream that is opened with `after=` this cursor misses nothing that
    came later. Its first messages may have been copied from the session `forked_from`, up to that one's event
    `forked_at`.
    """

    id: UUID
    alias: str | None
    title: str | None
    message_count: int
    created_at: str
    last_activity: str
    is_active: bool
    owner: str
    role: SessionRole
    current_agent: str
    cursor: str
    project_id: UUID | None
    forked_from: UUID | None
    forked_at: int | None

    @classmethod
    def of(cls, session: Session) -> SessionView:
        """The session as it stands in a list."""
        return cls(
            id=session.session_id,
            alias=session.alias,
            title=session.title,
            message_count=session.message_count,
            created_at=format_timestamp(session.created_at),
            last_activity=format_timestamp(session.last_activity),
            is_active=session.is_active,
            owner=session.owner,
            role=session.role,
            current_agent=session.current_agent,
            cursor=str(Cursor(session.epoch, session.seq)),
            project_id=session.project_id,
            forked_from=session.forked_from,
            forked_at=session.forked_at,
        )


class MessageView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message; `cursor` is the place of the event that announced it."""

    message_id: UUID
    role: str
    content: str
    timestamp: str
    cursor: str
    name: str | None = None
    tool_call_id: UUID | None = None
    tool_calls: msgspec.Raw | None = None
    agent_type: str | None = None
    finish_reason: str | None = None
    reasoning: str | None = None
    turn_id: UUID | None = None

    @classmethod
    def of(cls, message: StoredMessage, epoch: str) -> MessageView:
        """A stored message of a session with this epoch."""
        return cls(
            message_id=message.message_id,
            role=message.role,
            content=message.content,
            timestamp=format_timestamp(message.created_at),
            cursor=str(Cursor(epoch, message.seq)),
            name=message.name,
            tool_call_id=message.call_id,
            tool_calls=None if message.tool_calls is None else msgspec.Raw(message.tool_calls),
            agent_type=message.agent_type,
            finish_reason=message.finish_reason,
            reasoning=message.reasoning,
            turn_id=message.turn_id,
        )


class SessionDetails(SessionView, frozen=True, kw_only=True, omit_defaults=True):
    """A session with everything about it; `messages` are its newest ones, and only there when asked for."""

    description: str | None
    duration_seconds: float
    active_turn: UUID | None
    queued: int
    messages: list[MessageView] | None = None

    @classmethod
    def detailed(cls, session: Session, messages: Sequence[StoredMessage] | None) -> SessionDetails:
        """The session as its owner sees it alone."""
        view = msgspec.structs.asdict(SessionView.of(session))
        return cls(
            **view,
            description=session.description,
            duration_seconds=(session.last_activity - session.created_at).total_seconds(),
            active_turn=session.active_turn,
            queued=session.queued,
            messages=None if messages is None else [MessageView.of(message, session.epoch) for message in messages],
        )


class SessionList(Struct, frozen=True, kw_only=True):
    """A page of sessions; `total` counts all that there are, not those on the page."""

    sessions: list[SessionView]
    total: int
    limit: int
    offset: int


class MatchView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a search found its text: `title`, `alias`, `id`, or a `message`, of which it shows a piece."""

    field: str
    message_id: UUID | None = None
    role: str | None = None
    excerpt: str | None = None


class FoundSessionView(SessionView, frozen=True, kw_only=True):
    """A session that a search found."""

    match: MatchView

    @classmethod
    def found(cls, session: Session, match: Match) -> FoundSessionView:
        """The session as its owner sees it in what was found."""
        view = msgspec.structs.asdict(SessionView.of(session))
        return cls(**view, match=MatchView(**msgspec.structs.asdict(match)))


class FoundSessionList(Struct, frozen=True, kw_only=True):
    """A page of what was found; `total` counts all. Not `complete`: there are more messages than one search reads."""

    sessions: list[FoundSessionView]
    total: int
    limit: int
    offset: int
    complete: bool


class AgentSpan(Struct, frozen=True, kw_only=True):
    """An agent that answered, and when it first did so before another took over."""

    agent_type: str
    since: str


class HistoryView(Struct, frozen=True, kw_only=True):
    """A page of a session's messages in order.

    `next` is what `after` takes for the following page, null on the last one. `cursor` is the session's head when the
    page was read: open a stream there once the pages are read. `agent_history` is about the messages of the page.
    """

    session_id: UUID
    messages: list[MessageView]
    message_count: int
    last_activity: str
    current_agent: str
    agent_history: list[AgentSpan]
    cursor: str
    next: str | None


def agent_history(messages: Sequence[StoredMessage]) -> list[AgentSpan]:
    """Which agents answered, one after the other."""
    spans: list[AgentSpan] = []
    for message in messages:
        agent = message.agent_type if message.role == "assistant" else None
        if agent is not None and (not spans or spans[-1].agent_type != agent):
            spans.append(AgentSpan(agent_type=agent, since=format_timestamp(message.created_at)))
    return spans
