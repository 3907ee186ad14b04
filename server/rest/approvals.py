"""What waits for a person's decision: of one session, of all of them; and the decision itself."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from protocol.commands import Decision, HitlDecision, Prose, Remember
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import format_timestamp
from server.auth import principal_of
from server.rest.acting import command_id, origin_of
from server.rest.inputs import body_of, query_of
from server.rest.openapi import Routes
from server.rest.openapi.parameters import IDEMPOTENCY_KEY
from server.rest.places import place, place_of
from server.rest.responses import json_response
from server.rest.values import uuid_in_path, value_of
from server.services import SERVICES, Services
from storage.approvals import ApprovalRow, OpenApprovalRow
from storage.sessions import Session

__all__ = ["add_routes"]

ROUTES: Final = Routes("Approvals", "Calls of tools that wait for a person, and what people decide.")

_REFUSALS: Final = (ErrorCode.ALREADY_RESOLVED, ErrorCode.CONFLICT, ErrorCode.NOT_A_DECISION, ErrorCode.FORBIDDEN)


class ApprovalDetails(Struct, frozen=True, kw_only=True):
    """All about a call that waits: `parameters` is the tool's JSON Schema, `rule` the policy that asked."""

    agent_type: str
    turn_id: UUID
    arguments_hash: str
    allowed_decisions: list[str]
    rule: str | None
    expires_at: str | None
    parameters: Any


class PendingApproval(Struct, frozen=True, kw_only=True):
    """A call that waits for a person; `subject` is its tool. Without `details.expires_at` it waits for ever."""

    request_id: UUID
    request_type: Literal["tool_call"] = "tool_call"
    subject: str
    details: ApprovalDetails
    reason: str | None
    created_at: str
    session_id: UUID
    call_id: UUID
    tool_name: str
    arguments: Any

    @classmethod
    def of(cls, row: OpenApprovalRow) -> PendingApproval:
        """An approval that nobody has decided."""
        return cls(**_fields(row))


class ApprovalView(PendingApproval, frozen=True, kw_only=True):
    """An approval, decided or not.

    `state` is `pending`, `approved`, `edited`, `rejected`, `responded` or `withdrawn`; `executed` are the arguments of
    what was approved, `decided_by` is null where nobody decided: the time was up, or the turn ended.
    """

    state: str
    decided_at: str | None
    decided_by: str | None
    feedback: str | None
    executed: Any

    @classmethod
    def stored(cls, row: ApprovalRow) -> ApprovalView:
        """A stored approval."""
        ran = None
        if row.state in {"approved", "edited"}:
            ran = value_of(row.arguments if row.final_arguments is None else row.final_arguments)
        return cls(
            **_fields(row),
            state=row.state,
            decided_at=None if row.decided_at is None else format_timestamp(row.decided_at),
            decided_by=row.decided_by,
            feedback=row.feedback,
            executed=ran,
        )


class PendingApprovals(Struct, frozen=True, kw_only=True):
    """All that wait in one session, the oldest first."""

    session_id: UUID
    pending_approvals: list[PendingApproval]
    count: int


class ApprovalList(Struct, frozen=True, kw_only=True):
    """A page of those that wait in all your sessions, the oldest first; `next` is what `after` takes for more."""

    approvals: list[PendingApproval]
    count: int
    next: str | None


class ApprovalsQuery(Struct, frozen=True):
    """What `GET /approvals` takes."""

    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class DecisionBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person decides; the fields are those of the command `hitl_decision`."""

    decision: Decision
    modified_arguments: dict[str, Any] | None = None
    feedback: Prose | None = None
    remember: Remember | None = None


@ROUTES.get("/sessions/{session}/pending-approvals", answer=PendingApprovals)
async def _pending(request: web.Request) -> web.Response:
    """List what waits for a decision in a session."""
    services = request.app[SERVICES]
    session = await services.access.session(request)
    waiting = [PendingApproval.of(row) for row in await services.approvals.open(session.session_id)]
    return json_response(PendingApprovals(session_id=session.session_id, pending_approvals=waiting, count=len(waiting)))


@ROUTES.post(
    "/sessions/{session}/approvals/{call}",
    body=DecisionBody,
    headers=(IDEMPOTENCY_KEY,),
    answer=ApprovalView,
    errors=_REFUSALS,
)
async def _decide_call(request: web.Request) -> web.Response:
    """Decide about a call that waits; the first decision wins."""
    services = request.app[SERVICES]
    session = await services.access.session(request)
    call_id = uuid_in_path(request, "call")
    found = await services.calls.find(session.session_id, call_id)
    if found is None or found.approval is None:
        raise ParleyError(ErrorCode.NOT_FOUND, "nobody was asked about such a call in this session")
    return await _decided(request, session, call_id, found.approval.approval_id)


@ROUTES.get("/approvals", query=ApprovalsQuery, answer=ApprovalList)
async def _list(request: web.Request) -> web.Response:
    """List what waits for a decision in all your sessions."""
    services = request.app[SERVICES]
    query = query_of(request, ApprovalsQuery)
    after = place_of(query.after, UUID)
    found = await services.approvals.open_of_owner(principal_of(request).user_id, query.limit + 1, after)
    page = [PendingApproval.of(row) for row in found[: query.limit]]
    following = place(page[-1].request_id) if len(found) > len(page) else None
    return json_response(ApprovalList(approvals=page, count=len(page), next=following))


@ROUTES.get("/approvals/{approval}", answer=ApprovalView)
async def _read(request: web.Request) -> web.Response:
    """Read one approval, decided or not."""
    _, approval = await _found(request)
    return json_response(ApprovalView.stored(approval))


@ROUTES.post(
    "/approvals/{approval}/decision",
    body=DecisionBody,
    headers=(IDEMPOTENCY_KEY,),
    answer=ApprovalView,
    errors=_REFUSALS,
)
async def _decide(request: web.Request) -> web.Response:
    """Decide about what waits; the first decision wins."""
    session, approval = await _found(request)
    return await _decided(request, session, approval.call_id, approval.approval_id)


async def _found(request: web.Request) -> tuple[Session, ApprovalRow]:
    """The approval of the path and its session, which the caller may use for what he asks."""
    services = request.app[SERVICES]
    approval = await services.approvals.find(uuid_in_path(request, "approval"))
    if approval is not None:
        try:
            return await services.access.named(request, str(approval.session_id)), approval
        except ParleyError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
    raise ParleyError(ErrorCode.NOT_FOUND, "there is no such approval")


async def _decided(request: web.Request, session: Session, call_id: UUID, approval_id: UUID) -> web.Response:
    services: Services = request.app[SERVICES]
    body = await body_of(request, DecisionBody)
    try:
        command = HitlDecision(id=command_id(request), call_id=str(call_id), **msgspec.structs.asdict(body))
    except ValueError as error:
        # What binds several fields of the command.
        raise ParleyError(ErrorCode.INVALID, str(error), path="$") from None
    await services.commands.handle(session, command, origin_of(request, session))
    approval = await services.approvals.find(approval_id)
    if approval is None:
        raise ParleyError(ErrorCode.SESSION_GONE, "the session was deleted")
    return json_response(ApprovalView.stored(approval))


def _fields(row: OpenApprovalRow | ApprovalRow) -> dict[str, Any]:
    return {
        "request_id": row.approval_id,
        "subject": row.name,
        "details": ApprovalDetails(
            agent_type=row.agent_type,
            turn_id=row.turn_id,
            arguments_hash=row.arguments_hash.hex(),
            allowed_decisions=list(row.allowed_decisions),
            rule=row.rule,
            expires_at=None if row.expires_at is None else format_timestamp(row.expires_at),
            parameters=None if row.parameters is None else msgspec.json.decode(row.parameters),
        ),
        "reason": row.reason,
        "created_at": format_timestamp(row.created_at),
        "session_id": row.session_id,
        "call_id": row.call_id,
        "tool_name": row.name,
        "arguments": value_of(row.arguments),
    }


def add_routes(app: web.Application) -> None:
    """Add the routes of approvals."""
    ROUTES.add_to(app)
