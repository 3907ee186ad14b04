"""Is it alive, can it work, and what are its streams doing."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from msgspec import Struct

from protocol.errors import ParleyError
from server.auth import add_public_get
from server.rest.responses import json_response
from server.services import SERVICES, Phase
from server.version import VERSION

__all__ = ["Health", "Readiness", "add_routes"]


class Health(Struct, frozen=True, kw_only=True):
    """The process answers; that is all this says."""

    status: Literal["ok"] = "ok"
    service: Literal["parley"] = "parley"
    version: str = VERSION


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether requests should be sent here; `database` is `away` when it does not answer."""

    status: Literal["ready", "unavailable", "starting", "draining"]
    database: Literal["ok", "away"]
    service: Literal["parley"] = "parley"
    version: str = VERSION


def add_routes(app: web.Application) -> None:
    """Add `/health` and `/ready`, which need no token, and `/events/streams`."""
    add_public_get(app, "/health", _health)
    add_public_get(app, "/ready", _ready)
    app.router.add_get("/events/streams", _streams)


async def _health(_request: web.Request) -> web.Response:
    return json_response(Health())


async def _ready(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    try:
        await services.db.ping()
        database: Literal["ok", "away"] = "ok"
    except ParleyError:
        database = "away"
    status: Literal["ready", "unavailable", "starting", "draining"]
    match services.phase:
        case Phase.STARTING:
            status = "starting"
        case Phase.SERVING:
            status = "ready" if database == "ok" else "unavailable"
        case Phase.DRAINING | Phase.STOPPED:
            status = "draining"
    answer = Readiness(status=status, database=database)
    if status == "ready":
        return json_response(answer)
    return json_response(answer, status=503, headers={"Retry-After": "1"})


async def _streams(request: web.Request) -> web.Response:
    """Counts of this process, some since its start and some of this moment."""
    return json_response(request.app[SERVICES].hub.stats())
