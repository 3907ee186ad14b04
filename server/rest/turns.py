"""Turns of a session, and what was used: by turn, by session, by user."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from protocol.cursor import Cursor
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import format_timestamp, parse_timestamp
from protocol.parts import ErrorInfo, Usage
from server.auth import principal_of
from server.rest.inputs import query_of
from server.rest.openapi import Routes
from server.rest.responses import json_response
from server.rest.sessions import HistoryQuery, after_of
from server.services import SERVICES
from storage.metrics import Span, StoredTurn, UsageGroup
from storage.metrics import Usage as StoredUsage

__all__ = ["add_routes", "span_of"]

ROUTES: Final = Routes("Usage", "What was done, and what it took: tokens, money, time.")

#: Groups that one answer has at most.
_MOST_GROUPS: Final = 1000
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = datetime(9999, 1, 1, tzinfo=UTC)

Time: TypeAlias = Annotated[
    str,
    Meta(
        description="RFC 3339, with a time zone",
        examples=["2026-01-02T00:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]


class TurnView(Struct, frozen=True, kw_only=True):
    """A turn. `cursor` is the place of its message; `parent_call_id` is the call of another turn that it answers.

    `duration_ms` counts what it waited for people as well, and is null until it ends. `error` is why it failed.
    """

    turn_id: UUID
    user_message_id: UUID
    agent_type: str
    state: str
    steps: int
    usage: Usage
    started_at: str
    finished_at: str | None
    duration_ms: int | None
    error: ErrorInfo | None
    parent_call_id: UUID | None
    cursor: str

    @classmethod
    def of(cls, turn: StoredTurn, epoch: str) -> TurnView:
        """A stored turn of a session with this epoch."""
        duration = None
        if turn.finished_at is not None:
            duration = max(0, round((turn.finished_at - turn.created_at).total_seconds() * 1000))
        error = None
        if turn.error_code is not None:
            error = ErrorInfo(code=turn.error_code, message=turn.error_message or "")
        return cls(
            turn_id=turn.turn_id,
            user_message_id=turn.user_message_id,
            agent_type=turn.agent_type,
            state=turn.state,
            steps=turn.step,
            usage=Usage(
                prompt_tokens=turn.prompt_tokens,
                completion_tokens=turn.completion_tokens,
                total_tokens=turn.prompt_tokens + turn.completion_tokens,
                cost=None if turn.cost is None else float(turn.cost),
            ),
            started_at=format_timestamp(turn.created_at),
            finished_at=None if turn.finished_at is None else format_timestamp(turn.finished_at),
            duration_ms=duration,
            error=error,
            parent_call_id=turn.parent_call,
            cursor=str(Cursor(epoch, turn.seq)),
        )


class TurnList(Struct, frozen=True, kw_only=True):
    """A page of turns in the order of their messages; `next` is what `after` takes for the following one."""

    session_id: UUID
    turns: list[TurnView]
    next: str | None


class UsageView(Struct, frozen=True, kw_only=True):
    """What some steps of agents used.

    `cost` is in `currency` and adds up the steps whose price is known, null when none is; `unpriced_requests` are the
    others that used tokens. `duration_ms` is the time that models took.
    """

    requests: int
    turns: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float | None
    unpriced_requests: int
    duration_ms: int

    @classmethod
    def of(cls, group: UsageGroup) -> UsageView:
        """What storage added up."""
        return cls(**_sums(group))


class UsageGroupView(UsageView, frozen=True, kw_only=True):
    """The same of one day (`2026-01-02`, UTC), model, agent or session; a null key: no model was named."""

    key: str | None

    @classmethod
    def grouped(cls, group: UsageGroup) -> UsageGroupView:
        """What storage added up of one group."""
        return cls(key=group.key, **_sums(group))


class UsageReport(Struct, frozen=True, kw_only=True):
    """What was used in all, and in groups, the latest first; not `complete`: there are more groups than are shown."""

    usage: UsageView
    currency: str | None
    by: str
    groups: list[UsageGroupView]
    complete: bool
    since: str | None
    until: str | None


class SessionUsage(UsageReport, frozen=True, kw_only=True):
    """The same of a session."""

    session_id: UUID


class SpanQuery(Struct, frozen=True):
    """A span of time: from `since` on, before `until`; all of it when missing."""

    since: Time | None = None
    until: Time | None = None


class SessionUsageQuery(SpanQuery, frozen=True):
    """What `GET /sessions/{session}/usage` takes."""

    by: Literal["day", "model", "agent"] = "model"


class UsageQuery(SpanQuery, frozen=True):
    """What `GET /usage` takes."""

    by: Literal["day", "model", "agent", "session"] = "day"


@ROUTES.get("/sessions/{session}/turns", query=HistoryQuery, answer=TurnList)
async def _turns(request: web.Request) -> web.Response:
    """List a session's turns with what each of them took."""
    services = request.app[SERVICES]
    query = query_of(request, HistoryQuery)
    session = await services.access.session(request)
    after = after_of(query.after, session)
    found = await services.metrics.turns(session.session_id, after=after, limit=query.limit + 1)
    page = [TurnView.of(turn, session.epoch) for turn in found[: query.limit]]
    following = page[-1].cursor if len(found) > len(page) else None
    return json_response(TurnList(session_id=session.session_id, turns=page, next=following))


@ROUTES.get("/sessions/{session}/usage", query=SessionUsageQuery, answer=SessionUsage)
async def _session_usage(request: web.Request) -> web.Response:
    """Say what a session used."""
    services = request.app[SERVICES]
    query = query_of(request, SessionUsageQuery)
    span = span_of(query)
    session = await services.access.session(request)
    used = await services.metrics.session_usage(session.session_id, span, query.by, _MOST_GROUPS)
    report = _report(used, query, services.prices.currency)
    return json_response(SessionUsage(session_id=session.session_id, **report))


@ROUTES.get("/usage", query=UsageQuery, answer=UsageReport)
async def _usage(request: web.Request) -> web.Response:
    """Say what you used, in all your sessions, those that are deleted too."""
    services = request.app[SERVICES]
    query = query_of(request, UsageQuery)
    used = await services.metrics.usage(principal_of(request).user_id, span_of(query), query.by, _MOST_GROUPS)
    return json_response(UsageReport(**_report(used, query, services.prices.currency)))


def span_of(query: SpanQuery) -> Span:
    """The span that a query names. Raises ParleyError(INVALID) naming the parameter that is no time."""
    return Span(_time("since", query.since, _BEGINNING), _time("until", query.until, _END))


def _time(name: str, text: str | None, otherwise: datetime) -> datetime:
    if text is None:
        return otherwise
    try:
        # A plus sign of an offset is a space to whoever reads queries as forms.
        return parse_timestamp(text.replace(" ", "+"))
    except ParleyError as error:
        raise ParleyError(ErrorCode.INVALID, f"query parameter {name!r}: {error.message}", path=f"?{name}") from None


def _report(used: StoredUsage, query: SessionUsageQuery | UsageQuery, currency: str | None) -> dict[str, Any]:
    return {
        "usage": UsageView.of(used.total),
        "currency": currency,
        "by": query.by,
        "groups": [UsageGroupView.grouped(group) for group in used.groups],
        "complete": used.complete,
        "since": None if query.since is None else format_timestamp(_time("since", query.since, _BEGINNING)),
        "until": None if query.until is None else format_timestamp(_time("until", query.until, _END)),
    }


def _sums(group: UsageGroup) -> dict[str, Any]:
    return {
        "requests": group.requests,
        "turns": group.turns,
        "prompt_tokens": group.prompt_tokens,
        "completion_tokens": group.completion_tokens,
        "total_tokens": group.prompt_tokens + group.completion_tokens,
        "cost": None if group.cost is None else float(group.cost),
        "unpriced_requests": group.unpriced,
        "duration_ms": group.duration_ms,
    }


def add_routes(app: web.Application) -> None:
    """Add the routes of turns and usage."""
    ROUTES.add_to(app)
