"""Is it alive, can it work, and what are its streams doing."""

from __future__ import annotations

from typing import Final, Literal

from aiohttp import hdrs, web
from msgspec import Struct

from protocol.errors import ParleyError
from server.bus import BusState
from server.channel.stats import HubStats
from server.rest.openapi import JSON, Answer, Routes
from server.rest.responses import json_response
from server.services import SERVICES, Phase
from server.version import VERSION

__all__ = ["Health", "Readiness", "add_routes"]

ROUTES: Final = Routes("Service", "The server itself.")


class Health(Struct, frozen=True, kw_only=True):
    """The process answers; that is all this says."""

    status: Literal["ok"] = "ok"
    service: Literal["parley"] = "parley"
    version: str = VERSION


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether requests should be sent here; `database` is `away` when it does not answer.

    `bus` is how other processes are reached: none are there (`alone`), `connected`, or `away`, and then what they do is
    seen a little later. That alone is no reason to send requests elsewhere.
    """

    status: Literal["ready", "unavailable", "starting", "draining"]
    database: Literal["ok", "away"]
    bus: BusState = "alone"
    service: Literal["parley"] = "parley"
    version: str = VERSION


@ROUTES.get("/health", answer=Health, public=True)
async def _health(_request: web.Request) -> web.Response:
    """Say that the process answers."""
    return json_response(Health())


@ROUTES.get(
    "/ready",
    answers=(
        Answer(about="Requests should be sent here", content={JSON: Readiness}),
        Answer(status=503, about="They should not, for now", content={JSON: Readiness}, headers=(hdrs.RETRY_AFTER,)),
    ),
    public=True,
)
async def _ready(request: web.Request) -> web.Response:
    """Say whether requests should be sent here."""
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
    answer = Readiness(status=status, database=database, bus=services.bus.state)
    if status == "ready":
        return json_response(answer)
    return json_response(answer, status=503, headers={hdrs.RETRY_AFTER: "1"})


@ROUTES.get("/events/streams", answer=HubStats)
async def _streams(request: web.Request) -> web.Response:
    """Count the streams of this process.

    Some counts are since its start, some of this moment.
    """
    return json_response(request.app[SERVICES].hub.stats())


def add_routes(app: web.Application) -> None:
    """Add the routes of the server itself."""
    ROUTES.add_to(app)
