"""A small application behind the real door: what it shows of a request is who it is for."""

from __future__ import annotations

from typing import TypeAlias

from aiohttp import web
from aiohttp.test_utils import TestClient

from server.auth import (
    Credentials,
    Gatekeeper,
    Logins,
    Tickets,
    Tokens,
    add_public_get,
    authenticate,
    client_id,
    principal_of,
)
from server.clock import SystemClock
from server.config import AuthSettings, ServerSettings, TokenSettings
from server.rest.middleware import harden, requests
from storage.pool import Database
from storage.tickets import Logins as LoginStore
from storage.tickets import Tickets as TicketStore

Client: TypeAlias = TestClient[web.Request, web.Application]

ADA = "ada-has-a-long-token"
BOB = "bob.has-a_long~token"


async def _me(request: web.Request) -> web.Response:
    return web.json_response({"user": principal_of(request).user_id, "client": client_id(request)})


async def _open(_request: web.Request) -> web.Response:
    return web.Response(text="open")


async def _socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("parley.v1.json",), compress=False)
    await socket.prepare(request)
    await socket.send_json({"user": principal_of(request).user_id})
    await socket.close()
    return socket


def make_app(*, tokens: bool = True, server: ServerSettings | None = None) -> web.Application:
    entries = (TokenSettings(user="ada", token=ADA), TokenSettings(user="bob", token=BOB)) if tokens else ()
    gatekeeper = Gatekeeper(server or ServerSettings())
    listed, clock = Tokens(AuthSettings(tokens=entries).tokens), SystemClock()
    # There is no database behind this door: tickets and logins are shown with a whole server.
    tickets, logins = Tickets(TicketStore(Database()), clock), Logins(LoginStore(Database()), listed, clock, 60)
    credentials = Credentials(listed if entries else None, tickets, logins, clock)
    app = web.Application(middlewares=[requests, authenticate(gatekeeper, credentials)])
    app.on_response_prepare.append(harden)
    app.on_response_prepare.append(gatekeeper.mark)
    app.router.add_get("/me", _me)
    app.router.add_post("/me", _me)
    app.router.add_get("/ws", _socket)
    add_public_get(app, "/open", _open)
    return app
