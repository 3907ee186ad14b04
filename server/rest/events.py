"""What was done: metrics, added up from rows; and what this process published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import format_timestamp, parse_timestamp
from server.auth import principal_of
from server.rest.inputs import query_of
from server.rest.openapi import Routes
from server.rest.places import place, place_of
from server.rest.responses import json_response
from server.services import SERVICES, Services
from storage.metrics import RequestKey, SessionMetrics, StepRequest, Tally

__all__ = ["add_routes"]

ROUTES: Final = Routes("Metrics", "What was done in your sessions, and how well that went.")

#: How far back metrics go that no time was asked for.
_PERIOD: Final = timedelta(days=30)

#: Why a connection was closed that should have got an event.
_FAILURES: Final = (ErrorCode.SLOW_CONSUMER, ErrorCode.STALE, ErrorCode.INTERNAL)

Time: TypeAlias = Annotated[
    str,
    Meta(
        description="RFC 3339, with a time zone",
        examples=["2026-01-02T00:00:00Z"],
        extra_json_schema={"format": "date-time"},
    ),
]


class TallyView(Struct, frozen=True, kw_only=True):
    """How often something was done, how often that went well, and how long it took in all."""

    count: int
    success_count: int
    failure_count: int
    total_duration_ms: int

    @classmethod
    def of(cls, tally: Tally) -> TallyView:
        """What storage counted."""
        return cls(
            count=tally.count,
            success_count=tally.count - tally.failed,
            failure_count=tally.failed,
            total_duration_ms=tally.duration_ms,
        )


class MetricGroups(Struct, frozen=True, kw_only=True):
    """What was done.

    Switches by `from->to`, steps by agent, calls that ran by tool, decisions by what was decided (`approved`, `edited`,
    `rejected`, `responded`, `withdrawn`), failed steps by their error's code.
    """

    agent_switches: dict[str, int]
    agent_processing: dict[str, TallyView]
    tool_executions: dict[str, TallyView]
    hitl_decisions: dict[str, int]
    errors: dict[str, int]


class MetricsView(Struct, frozen=True, kw_only=True):
    """What was done since a time.

    `computed` has `<x>_avg_duration_ms` and `<x>_success_rate` (0 to 1) of `agent_processing` and `tool_executions` as
    a whole, of each agent, and of each tool.
    """

    metrics: MetricGroups
    computed: dict[str, float]
    since: str
    timestamp: str


class PublishingStats(Struct, frozen=True, kw_only=True):
    """What this process published since it began (`since`): other processes, and its own past, are not in it.

    A handler is a connection that an event was handed to; it failed when it had to be closed because it did not read.
    """

    total_published: int
    successful_handlers: int
    failed_handlers: int
    last_event_time: str | None
    success_rate: float
    scope: Literal["this process since its start"] = "this process since its start"
    since: str


class SessionMetricsView(Struct, frozen=True, kw_only=True):
    """What a session's steps took; each request to an agent's model is one."""

    session_id: UUID
    total_requests: int
    successful_requests: int
    failed_requests: int
    total_duration_ms: int
    average_duration_ms: float
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    average_tokens_per_request: float
    requests_with_tools: int
    cost: float | None

    @classmethod
    def of(cls, metrics: SessionMetrics) -> SessionMetricsView:
        """What storage added up."""
        return cls(**_session_fields(metrics))


class RequestView(Struct, frozen=True, kw_only=True):
    """One step of an agent: a request to its model."""

    turn_id: UUID
    step: int
    attempt: int
    agent_type: str
    model: str | None
    started_at: str
    duration_ms: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float | None
    tools: int
    finish_reason: str
    success: bool
    error_code: str | None

    @classmethod
    def of(cls, request: StepRequest) -> RequestView:
        """A stored request."""
        fields = msgspec.structs.asdict(request)
        return cls(
            **{
                **fields,
                "started_at": format_timestamp(request.started_at),
                "cost": None if request.cost is None else float(request.cost),
                "total_tokens": request.prompt_tokens + request.completion_tokens,
                "success": request.error_code is None and request.finish_reason not in {"error", "interrupted"},
            }
        )


class SessionMetricsDetails(SessionMetricsView, frozen=True, kw_only=True):
    """The same with the requests, the latest first; `next` is what `after` takes for those before them."""

    requests: list[RequestView]
    next: str | None


class SessionMetricsList(Struct, frozen=True, kw_only=True):
    """A page of sessions, the latest first; `count` counts all that did something since the time."""

    sessions: list[SessionMetricsView]
    count: int
    limit: int
    offset: int
    since: str


class SinceQuery(Struct, frozen=True):
    """Since when; 30 days when missing."""

    since: Time | None = None


class SessionsQuery(SinceQuery, frozen=True):
    """What `GET /events/metrics/sessions` takes."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    offset: Annotated[int, Meta(ge=0, le=2**31)] = 0


class RequestsQuery(Struct, frozen=True):
    """What `GET /events/metrics/session/{session}` takes."""

    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


@ROUTES.get("/events/metrics", query=SinceQuery, answer=MetricsView)
async def _metrics(request: web.Request) -> web.Response:
    """Say what was done in your sessions, and how well that went."""
    services = request.app[SERVICES]
    since = _since(services, query_of(request, SinceQuery))
    totals = await services.metrics.totals(principal_of(request).user_id, since)
    groups = MetricGroups(
        agent_switches=_counts(totals.switches),
        agent_processing={tally.name: TallyView.of(tally) for tally in totals.agents},
        tool_executions={tally.name: TallyView.of(tally) for tally in totals.tools},
        hitl_decisions=_counts(totals.decisions),
        errors=_counts(totals.errors),
    )
    computed: dict[str, float] = {}
    for name, tallies in (("agent_processing", totals.agents), ("tool_executions", totals.tools)):
        for key, value in _computed(name, tallies):
            computed.setdefault(key, value)
    return json_response(
        MetricsView(
            metrics=groups,
            computed=computed,
            since=format_timestamp(since),
            timestamp=format_timestamp(services.clock.now()),
        )
    )


@ROUTES.get("/events/metrics/sessions", query=SessionsQuery, answer=SessionMetricsList)
async def _sessions(request: web.Request) -> web.Response:
    """List your sessions with what their agents took."""
    services = request.app[SERVICES]
    query = query_of(request, SessionsQuery)
    owner, since = principal_of(request).user_id, _since(services, query)
    page, total = await services.metrics.sessions(owner, since, limit=query.limit, offset=query.offset)
    if total is None and query.offset:
        # Past the end no row tells how many there are.
        _, total = await services.metrics.sessions(owner, since, limit=1, offset=0)
    return json_response(
        SessionMetricsList(
            sessions=[SessionMetricsView.of(one) for one in page],
            count=total or 0,
            limit=query.limit,
            offset=query.offset,
            since=format_timestamp(since),
        )
    )


@ROUTES.get("/events/metrics/session/{session}", query=RequestsQuery, answer=SessionMetricsDetails)
async def _session(request: web.Request) -> web.Response:
    """Say what a session's agents took, step by step."""
    services = request.app[SERVICES]
    query = query_of(request, RequestsQuery)
    before = place_of(query.after, RequestKey)
    session = await services.access.session(request)
    found = await services.metrics.requests(session.session_id, limit=query.limit + 1, before=before)
    page = found[: query.limit]
    following = None
    if len(found) > len(page):
        last = page[-1]
        following = place(RequestKey(last.started_at, last.turn_id, last.step, last.attempt))
    fields = _session_fields(await services.metrics.session(session.session_id))
    return json_response(
        SessionMetricsDetails(**fields, requests=[RequestView.of(one) for one in page], next=following)
    )


@ROUTES.get("/events/stats", answer=PublishingStats)
async def _stats(request: web.Request) -> web.Response:
    """Count what this process published since it began."""
    services = request.app[SERVICES]
    counters, closed = services.hub.counters, services.hub.counters.closed
    failed = sum(closed.get(code.code, 0) for code in _FAILURES)
    handled = counters.events_sent + failed
    last = counters.last_published
    return json_response(
        PublishingStats(
            total_published=counters.published,
            successful_handlers=counters.events_sent,
            failed_handlers=failed,
            last_event_time=None if last is None else format_timestamp(last),
            success_rate=counters.events_sent / handled if handled else 1.0,
            since=format_timestamp(services.started_at),
        )
    )


def _since(services: Services, query: SinceQuery) -> datetime:
    if query.since is None:
        return services.clock.now() - _PERIOD
    try:
        # A plus sign of an offset is a space to whoever reads queries as forms.
        return parse_timestamp(query.since.replace(" ", "+"))
    except ParleyError as error:
        raise ParleyError(ErrorCode.INVALID, f"query parameter 'since': {error.message}", path="?since") from None


def _counts(tallies: Sequence[Tally]) -> dict[str, int]:
    return {tally.name: tally.count for tally in tallies}


def _computed(whole: str, tallies: Sequence[Tally]) -> Iterator[tuple[str, float]]:
    """Means and rates of all together, then of each; of what never happened there are none."""
    together = Tally(
        name=whole,
        count=sum(tally.count for tally in tallies),
        failed=sum(tally.failed for tally in tallies),
        duration_ms=sum(tally.duration_ms for tally in tallies),
    )
    for tally in (together, *tallies):
        if tally.count:
            yield f"{tally.name}_avg_duration_ms", tally.duration_ms / tally.count
            yield f"{tally.name}_success_rate", (tally.count - tally.failed) / tally.count


def _session_fields(metrics: SessionMetrics) -> dict[str, Any]:
    count, tokens = metrics.requests, metrics.prompt_tokens + metrics.completion_tokens
    return {
        "session_id": metrics.session_id,
        "total_requests": count,
        "successful_requests": count - metrics.failed,
        "failed_requests": metrics.failed,
        "total_duration_ms": metrics.duration_ms,
        "average_duration_ms": metrics.duration_ms / count if count else 0.0,
        "prompt_tokens": metrics.prompt_tokens,
        "completion_tokens": metrics.completion_tokens,
        "total_tokens": tokens,
        "average_tokens_per_request": tokens / count if count else 0.0,
        "requests_with_tools": metrics.with_tools,
        "cost": None if metrics.cost is None else float(metrics.cost),
    }


def add_routes(app: web.Application) -> None:
    """Add the routes under `/events` that are no streams."""
    ROUTES.add_to(app)
