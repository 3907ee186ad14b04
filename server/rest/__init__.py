"""REST: what is asked once and answered once. The routes of streams and commands are the channel's."""

from __future__ import annotations

from aiohttp import web

from server.rest import (
    agents,
    approvals,
    audit,
    events,
    forks,
    health,
    members,
    policies,
    projects,
    sessions,
    spaces,
    turns,
)
from server.rest.openapi import serve as documents

__all__ = ["add_routes"]


def add_routes(app: web.Application) -> None:
    """Add the REST routes.

    Paths with a fixed last part are added before those with a `{name}` there, which would swallow them.
    """
    health.add_routes(app)
    agents.add_routes(app)
    sessions.add_routes(app)
    turns.add_routes(app)
    forks.add_routes(app)
    approvals.add_routes(app)
    policies.add_routes(app)
    projects.add_routes(app)
    spaces.add_routes(app)
    events.add_routes(app)
    audit.add_routes(app)
    members.add_routes(app)
    documents.add_routes(app)
