"""What runs without asking, what asks, and what is refused: as configured, and as people remembered it."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN, format_timestamp
from server.auth import principal_of
from server.rest.inputs import query_of
from server.rest.openapi import Routes
from server.rest.responses import json_response
from server.rest.values import uuid_in_path
from server.services import SERVICES
from server.turns.settings import PolicySettings
from storage.approvals import RuleRow

__all__ = ["add_routes"]

ROUTES: Final = Routes("Policies", "Which calls of tools run, ask, or are refused.")


class PolicyView(Struct, frozen=True, kw_only=True):
    """A policy of the server's configuration, under the name that approvals and audit know it by.

    `arguments` maps an argument to a pattern (`*`, `?`); `timeout` is in seconds, 0 for never, null for the usual one.
    """

    name: str
    tool: str
    effect: str
    agent: str | None
    arguments: dict[str, str]
    reason: str | None
    timeout: float | None
    decisions: tuple[str, ...] | None

    @classmethod
    def of(cls, number: int, policy: PolicySettings) -> PolicyView:
        """The configured policy of this number."""
        return cls(name=f"policies[{number}]", **msgspec.structs.asdict(policy))


class RuleView(Struct, frozen=True, kw_only=True):
    """What somebody decided for all calls to come, of one session (`session_id`) or of all of yours."""

    rule_id: UUID
    scope: str
    session_id: UUID | None
    tool: str
    arguments: dict[str, str]
    effect: str
    created_at: str
    created_by: str
    call_id: UUID | None

    @classmethod
    def of(cls, row: RuleRow) -> RuleView:
        """A stored rule."""
        arguments: Any = {} if row.arguments is None else msgspec.json.decode(row.arguments)
        return cls(
            rule_id=row.rule_id,
            scope=row.scope,
            session_id=row.session_id,
            tool=row.tool,
            arguments=arguments,
            effect=row.effect,
            created_at=format_timestamp(row.created_at),
            created_by=row.created_by,
            call_id=row.call_id,
        )


class PolicyList(Struct, frozen=True, kw_only=True):
    """The configured policies in their order, and your rules, the oldest first; what none of them knows, asks."""

    policies: list[PolicyView]
    rules: list[RuleView]


class PoliciesQuery(Struct, frozen=True):
    """What `GET /policies` takes: with a session only the rules that hold in it."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None


@ROUTES.get("/policies", query=PoliciesQuery, answer=PolicyList, errors=(ErrorCode.NOT_FOUND, ErrorCode.SESSION_GONE))
async def _list(request: web.Request) -> web.Response:
    """List the configured policies, and the rules that you made of your decisions."""
    services = request.app[SERVICES]
    query = query_of(request, PoliciesQuery)
    if query.session_id is None:
        rules = await services.rules.list(principal_of(request).user_id)
    else:
        session = await services.access.named(request, query.session_id)
        rules = await services.rules.in_force(session.owner, session.session_id)
    policies = [PolicyView.of(number, policy) for number, policy in enumerate(services.config.policies)]
    return json_response(PolicyList(policies=policies, rules=[RuleView.of(rule) for rule in rules]))


@ROUTES.delete("/policies/{rule}")
async def _revoke(request: web.Request) -> web.Response:
    """Revoke a rule; configured policies are the server's affair."""
    services = request.app[SERVICES]
    user_id = principal_of(request).user_id
    if not await services.rules.revoke(user_id, uuid_in_path(request, "rule"), user_id, services.clock.now()):
        raise ParleyError(ErrorCode.NOT_FOUND, "there is no such rule in force")
    return web.Response(status=204)


def add_routes(app: web.Application) -> None:
    """Add the routes of policies."""
    ROUTES.add_to(app)
