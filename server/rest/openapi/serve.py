"""`GET /openapi.json`, `GET /asyncapi.json`, and a page for people, `GET /docs`."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from aiohttp import web

from server.rest.openapi.asyncapi import asyncapi
from server.rest.openapi.document import openapi
from server.rest.openapi.page import page
from server.rest.openapi.routes import JSON, OPERATIONS, Answer, Routes

__all__ = ["add_routes", "openapi_of"]

ROUTES: Final = Routes("Documents", "What you are reading.")

_HTML: Final = "text/html"
#: Made when they are first asked for: most servers never are.
_MADE: Final = web.AppKey("documents", dict[str, bytes])

#: Nothing but what the page itself holds.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def openapi_of(app: web.Application) -> dict[str, Any]:
    """The OpenAPI document of an application's routes."""
    operations = app[OPERATIONS]
    return openapi(operations)


@ROUTES.get("/openapi.json", answers=(Answer(about="OpenAPI 3.1", content={JSON: dict[str, Any]}),), public=True)
async def _openapi(request: web.Request) -> web.Response:
    """Describe every address of this server (OpenAPI)."""
    made = request.app[_MADE]
    if JSON not in made:
        made[JSON] = msgspec.json.encode(openapi_of(request.app))
    return web.Response(body=made[JSON], content_type=JSON, charset="utf-8")


@ROUTES.get("/asyncapi.json", answers=(Answer(about="AsyncAPI 3", content={JSON: dict[str, Any]}),), public=True)
async def _asyncapi(_request: web.Request) -> web.Response:
    """Describe the channel: events and commands (AsyncAPI)."""
    return web.Response(body=msgspec.json.encode(asyncapi()), content_type=JSON, charset="utf-8")


@ROUTES.get("/docs", answers=(Answer(about="A page", content={_HTML: None}),), public=True)
async def _docs(request: web.Request) -> web.Response:
    """Show the same to people."""
    made = request.app[_MADE]
    if _HTML not in made:
        made[_HTML] = page(openapi_of(request.app)).encode()
    return web.Response(
        body=made[_HTML], content_type=_HTML, charset="utf-8", headers={"Content-Security-Policy": _POLICY}
    )


def add_routes(app: web.Application) -> None:
    """Add the documents' own routes."""
    app[_MADE] = {}
    ROUTES.add_to(app)
