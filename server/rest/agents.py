"""The agents that there are."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from aiohttp import web
from msgspec import Struct

from server.agents.interface import AgentDefinition
from server.rest.openapi import Routes
from server.rest.responses import json_response
from server.services import SERVICES

__all__ = ["AgentList", "AgentView", "add_routes"]

ROUTES: Final = Routes("Agents", "Who answers.")


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


@ROUTES.get("/agents", answer=AgentList)
async def _list(request: web.Request) -> web.Response:
    """List the agents that there are."""
    registry = request.app[SERVICES].registry
    agents = [
        AgentView.of(definition, is_default=definition.type == registry.default.type)
        for definition in registry.definitions
    ]
    return json_response(AgentList(agents=agents, total=len(agents)))


def add_routes(app: web.Application) -> None:
    """Add the routes of agents."""
    ROUTES.add_to(app)
