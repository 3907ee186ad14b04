"""The agents that there are, and the one that acts in a session."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from protocol.commands import SwitchAgent
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN, format_timestamp
from server.agents.interface import AgentDefinition
from server.auth import principal_of
from server.rest.acting import command_id, origin_of
from server.rest.inputs import body_of, query_of
from server.rest.openapi import Routes
from server.rest.openapi.parameters import IDEMPOTENCY_KEY
from server.rest.responses import OtherStatusError, json_response
from server.services import SERVICES, Services
from storage.sessions import Session
from storage.switches import Switch

__all__ = ["AgentList", "AgentView", "add_routes"]

ROUTES: Final = Routes("Agents", "Who answers.")

#: Switches that are shown at most, the latest ones.
_MOST_SWITCHES: Final = 1000


class AgentView(Struct, frozen=True, kw_only=True):
    """One agent, as clients choose it."""

    type: str
    agent_id: UUID
    name: str
    description: str
    allowed_tools: tuple[str, ...]
    has_file_restrictions: bool
    is_default: bool

    @classmethod
    def of(cls, definition: AgentDefinition, *, is_default: bool) -> AgentView:
        """The public part of a definition; the prompt is not."""
        return cls(
            type=definition.type,
            agent_id=definition.agent_id,
            name=definition.name,
            description=definition.description,
            allowed_tools=definition.allowed_tools,
            has_file_restrictions=definition.has_file_restrictions,
            is_default=is_default,
        )


class AgentList(Struct, frozen=True, kw_only=True):
    """All agents, in the order in which people should see them."""

    agents: list[AgentView]
    total: int


class SwitchView(Struct, frozen=True, kw_only=True):
    """A session went from one agent to another."""

    from_agent: str
    to_agent: str
    reason: str | None
    switched_at: str
    confidence: float | None

    @classmethod
    def of(cls, switch: Switch) -> SwitchView:
        """A stored switch."""
        return cls(
            from_agent=switch.from_agent,
            to_agent=switch.to_agent,
            reason=switch.reason,
            switched_at=format_timestamp(switch.switched_at),
            confidence=switch.confidence,
        )


class AgentContext(Struct, frozen=True, kw_only=True):
    """Which agent acts in a session, and how it came to that.

    `switch_history` is empty unless it was asked for; it holds the latest thousand. `created_at` is the session's.
    """

    id: UUID
    session_id: UUID
    current_agent: str
    switch_count: int
    switch_history: list[SwitchView]
    last_switch_at: str | None
    created_at: str


class ContextAnswer(Struct, frozen=True, kw_only=True):
    """The context of a session."""

    context: AgentContext


class ContextQuery(Struct, frozen=True):
    """What `GET /agents/{session}/current` takes."""

    include_history: bool = False


class SwitchBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another agent for a session, by its type or `agent_id`; `confidence` is how sure the asker is, from 0 to 1."""

    target_agent: Annotated[str, Meta(pattern=ID_PATTERN)]
    reason: Annotated[str, Meta(max_length=65_536)] | None = None
    confidence: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None


class AgentsQuery(Struct, frozen=True):
    """What `GET /agents` takes: the session, or the project, whose own agents are to be listed as well."""

    session_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    project_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None


@ROUTES.get("/agents", query=AgentsQuery, answer=AgentList, errors=(ErrorCode.NOT_FOUND, ErrorCode.SESSION_GONE))
async def _list(request: web.Request) -> web.Response:
    """List the agents that there are, or that a session or a project may use."""
    services = request.app[SERVICES]
    query = query_of(request, AgentsQuery)
    session_id = project_id = None
    if query.session_id is not None:
        session_id = (await services.access.named(request, query.session_id)).session_id
    elif query.project_id is not None:
        project_id = (await services.projects.resolve(principal_of(request).user_id, query.project_id)).project_id
    default = services.registry.default.type
    agents = [
        AgentView.of(definition, is_default=definition.type == default)
        for definition in await services.directory.definitions(session_id, project_id=project_id)
    ]
    return json_response(AgentList(agents=agents, total=len(agents)))


@ROUTES.get("/agents/{session}/current", query=ContextQuery, answer=ContextAnswer)
async def _current(request: web.Request) -> web.Response:
    """Say which agent acts in a session."""
    services = request.app[SERVICES]
    query = query_of(request, ContextQuery)
    session = await services.access.session(request)
    return json_response(await _context(services, session, include_history=query.include_history))


@ROUTES.post("/agents/{session}/switch", body=SwitchBody, headers=(IDEMPOTENCY_KEY,), answer=ContextAnswer)
async def _switch(request: web.Request) -> web.Response:
    """Let another agent act from the next turn on.

    An agent that does not exist is answered with 400.
    """
    services = request.app[SERVICES]
    session = await services.access.session(request)
    body = await body_of(request, SwitchBody)
    try:
        target = await services.directory.definition(session.session_id, body.target_agent)
    except ParleyError as error:
        if error.code is not ErrorCode.UNKNOWN_AGENT:
            raise
        raise OtherStatusError(400, error.code, error.message, path="$.target_agent") from None
    command = SwitchAgent(
        id=command_id(request), agent_type=target.type, reason=body.reason, confidence=body.confidence
    )
    await services.commands.handle(session, command, origin_of(request, session))
    return json_response(await _context(services, await services.access.session(request), include_history=True))


async def _context(services: Services, session: Session, *, include_history: bool) -> ContextAnswer:
    count, last = await services.switches.count(session.session_id)
    history = await services.switches.latest(session.session_id, _MOST_SWITCHES) if include_history else []
    return ContextAnswer(
        context=AgentContext(
            id=session.session_id,
            session_id=session.session_id,
            current_agent=session.current_agent,
            switch_count=count,
            switch_history=[SwitchView.of(switch) for switch in history],
            last_switch_at=None if last is None else format_timestamp(last),
            created_at=format_timestamp(session.created_at),
        )
    )


def add_routes(app: web.Application) -> None:
    """Add the routes of agents."""
    ROUTES.add_to(app)
