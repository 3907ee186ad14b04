"""What one user may have and do, and what he has and does."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from msgspec import Struct

from protocol.ids import format_timestamp
from server.auth import principal_of
from server.rest.openapi import Routes
from server.rest.responses import json_response
from server.services import SERVICES

__all__ = ["add_routes"]

ROUTES: Final = Routes("Spaces", "Your own worker space: limits, and what runs in it.")


class SpaceLimits(Struct, frozen=True, kw_only=True):
    """What you may have: `turns` and `tools` at once in each process, the others in all (`agents` a project)."""

    turns: int
    tools: int
    sessions: int
    projects: int
    agents: int


class SpaceCounts(Struct, frozen=True, kw_only=True):
    """Turns in this process since `since`, when your space was made: begun, ended, and how many had to wait."""

    begun: int
    waited: int
    ended: int
    since: str | None


class SpaceView(Struct, frozen=True, kw_only=True):
    """Your space in this process; it is made when you have something to run, and forgotten when you have nothing."""

    user_id: str
    limits: SpaceLimits
    running: int
    waiting: int
    tools_running: int
    sessions: int
    projects: int
    counts: SpaceCounts


@ROUTES.get("/spaces/me", answer=SpaceView)
async def _mine(request: web.Request) -> web.Response:
    """Say what you may have and do at once, and what you have and do now."""
    services = request.app[SERVICES]
    owner, limits = principal_of(request).user_id, services.config.limits
    stats = services.spaces.stats(owner)
    _, sessions = await services.sessions.list(owner, limit=1, offset=0)
    _, projects = await services.projects.page(owner, limit=1)
    return json_response(
        SpaceView(
            user_id=owner,
            limits=SpaceLimits(
                turns=limits.turns,
                tools=limits.tools,
                sessions=limits.sessions,
                projects=limits.projects,
                agents=limits.agents,
            ),
            running=stats.running,
            waiting=stats.waiting,
            tools_running=stats.tools_running,
            sessions=sessions,
            projects=projects,
            counts=SpaceCounts(
                begun=stats.begun,
                waited=stats.waited,
                ended=stats.ended,
                since=None if stats.since is None else format_timestamp(stats.since),
            ),
        )
    )


def add_routes(app: web.Application) -> None:
    """Add the route of spaces."""
    ROUTES.add_to(app)
