"""What was done and what it took, from the rows that tell of it: they outlive a restart, and are every process's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
from msgspec import Meta, Struct

from storage.pool import Database

__all__ = [
    "GroupBy",
    "Metrics",
    "RequestKey",
    "SessionMetrics",
    "Span",
    "StepRequest",
    "StoredTurn",
    "Tally",
    "Totals",
    "Usage",
    "UsageGroup",
]

GroupBy: TypeAlias = Literal["day", "model", "agent", "session"]


class Tally(Struct, frozen=True, kw_only=True):
    """How often something was done, how often it failed, and how long it took in all."""

    name: str
    count: int
    failed: int = 0
    duration_ms: int = 0


class Totals(Struct, frozen=True, kw_only=True):
    """What an owner's sessions did: steps of agents, their errors, calls of tools, decisions, switches of agents."""

    agents: Sequence[Tally]
    errors: Sequence[Tally]
    tools: Sequence[Tally]
    decisions: Sequence[Tally]
    switches: Sequence[Tally]


class SessionMetrics(Struct, frozen=True, kw_only=True):
    """What one session's steps took; a None `cost`: no price of any of them is known."""

    session_id: UUID
    requests: int
    failed: int
    duration_ms: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    with_tools: int


class StepRequest(Struct, frozen=True, kw_only=True):
    """What one step of an agent took."""

    turn_id: UUID
    step: int
    attempt: int
    agent_type: str
    model: str | None
    started_at: datetime
    duration_ms: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    tools: int
    finish_reason: str
    error_code: str | None


class RequestKey(NamedTuple):
    """Where a step stands among those of its session; in the bounds that the database keeps."""

    started_at: Annotated[datetime, Meta(tz=True)]
    turn_id: UUID
    step: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    attempt: Annotated[int, Meta(ge=0, le=2**31 - 1)]


class UsageGroup(Struct, frozen=True, kw_only=True):
    """What some steps used. `cost` adds up the priced ones; `unpriced` used tokens whose price is not known."""

    key: str | None
    requests: int
    turns: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    unpriced: int
    duration_ms: int


class Usage(NamedTuple):
    """What all steps used, and the same in groups; not `complete`: there are more groups."""

    total: UsageGroup
    groups: list[UsageGroup]
    complete: bool


class Span(NamedTuple):
    """A span of time: from `since` on, before `until`."""

    since: datetime
    until: datetime


class StoredTurn(Struct, frozen=True, kw_only=True):
    """A turn; `seq` is that of its user message's event, `step` how many steps it has begun."""

    seq: int
    turn_id: UUID
    user_message_id: UUID
    agent_type: str
    state: str
    created_at: datetime
    finished_at: datetime | None
    step: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    error_code: str | None
    error_message: str | None
    parent_call: UUID | None
    depth: int


class Metrics:
    """Reads what was done; of one owner or one session each, never of all."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def totals(self, owner: str, since: datetime) -> Totals:
        """What was done since a time."""
        agents, errors, tools, decisions, switches = [
            [Tally(**row) for row in await self._database.fetch(name, owner, since)]
            for name in ("agent_metrics", "error_metrics", "tool_metrics", "decision_metrics", "switch_metrics")
        ]
        return Totals(agents=agents, errors=errors, tools=tools, decisions=decisions, switches=switches)

    async def sessions(
        self, owner: str, since: datetime, *, limit: int, offset: int
    ) -> tuple[list[SessionMetrics], int | None]:
        """A page of the sessions that did something since a time, the latest first; and how many, None past the end."""
        rows = await self._database.fetch("metrics_by_session", owner, since, limit, offset)
        return [_session(row) for row in rows], rows[0]["total"] if rows else None

    async def session(self, session_id: UUID) -> SessionMetrics:
        """What one session's steps took."""
        row = await self._database.fetchrow("metrics_of_session", session_id)
        assert row is not None, "sums are one row"
        return _session(row)

    async def requests(self, session_id: UUID, *, limit: int, before: RequestKey | None = None) -> list[StepRequest]:
        """A session's steps, the latest first."""
        key = before or (None, None, None, None)
        return [
            StepRequest(**row) for row in await self._database.fetch("requests_of_session", session_id, limit, *key)
        ]

    async def usage(self, owner: str, span: Span, by: GroupBy, most: int) -> Usage:
        """What an owner used, in at most so many groups, the latest first."""
        return _usage(await self._database.fetch("usage_of_owner", owner, *span, by, most + 2), most)

    async def session_usage(self, session_id: UUID, span: Span, by: GroupBy, most: int) -> Usage:
        """The same of a session."""
        return _usage(await self._database.fetch("usage_of_session", session_id, *span, by, most + 2), most)

    async def turns(self, session_id: UUID, *, after: int, limit: int) -> list[StoredTurn]:
        """A session's turns in the order of their messages, whose numbers follow `after`."""
        return [StoredTurn(**row) for row in await self._database.fetch("turns_of_session", session_id, after, limit)]


def _session(row: asyncpg.Record) -> SessionMetrics:
    return SessionMetrics(**{name: row[name] for name in SessionMetrics.__struct_fields__})


def _usage(rows: Sequence[asyncpg.Record], most: int) -> Usage:
    # The totals, the groups, and one group more than were asked for, where there is one.
    total, *groups = [UsageGroup(**{name: row[name] for name in UsageGroup.__struct_fields__}) for row in rows]
    return Usage(total, groups[:most], len(groups) <= most)
