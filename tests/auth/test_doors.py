"""No route but the public ones is reached without a token, and no session by somebody who has no role in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp import hdrs

from server.auth import is_public
from tests.auth.people import People

#: Whoever adds one here has thought about it.
PUBLIC = {
    ("GET", "/health"),
    ("GET", "/ready"),
    ("DELETE", "/auth/login"),
}
#: Files of the console, and the documents that it shows.
PUBLIC_FILES = re.compile(r"/|/favicon\.svg|/console.*|/parley.*|/vendor.*|/openapi.*|/asyncapi.*|/docs.*|/palette.*")

ABSENT = "018f3e5c-0000-7000-8000-000000000000"


def filled(path: str, session: str) -> str:
    """A path whose `{names}` lead to something that may be there."""
    return re.sub(r"\{[^}]+\}", ABSENT, path.replace("{session}", session))


@pytest.mark.feature("S37", "R01")
async def test_regression_20_every_route_asks_for_a_token_but_for_those_on_the_list(people: People) -> None:
    ada, _, _, stranger = await people()
    session = await ada.session()
    app = ada.server._runner.app
    asked, public = 0, set()
    for route in app.router.routes():
        assert route.resource is not None
        path = route.resource.canonical
        if is_public(app, route):
            public.add((route.method, path))
            continue
        method = "POST" if route.method == hdrs.METH_ANY else route.method
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"} if path.endswith("/ws") else {}
        async with stranger.client.request(method, filled(path, session), headers=headers) as response:
            assert response.status == 401, (method, path)
        asked += 1
    assert asked > 10
    known = {(method, path) for method, path in public if method != "HEAD"}
    assert {each for each in known - PUBLIC if each[0] != "GET" or not PUBLIC_FILES.fullmatch(each[1])} == set()


@pytest.mark.feature("S37", "R01")
async def test_regression_20_every_route_of_a_session_hides_it_from_others(people: People) -> None:
    ada, bob, eve, _ = await people()
    session = await ada.session(session_id="her-own-name")
    await ada.share(session, "bob", "controller")
    routes = [
        (route.method, route.resource.canonical)
        for route in ada.server._runner.app.router.routes()
        if route.resource is not None and "{session}" in route.resource.canonical and route.method != "HEAD"
    ]
    assert len(routes) >= 9
    for method, path in routes:
        body: dict[str, Any] = {} if method in {"GET", "DELETE"} else {"json": {}}
        for person, name in ((eve, session), (eve, "her-own-name"), (bob, "her-own-name")):
            address = filled(path, name)
            if path.endswith("/ws"):
                offered = {"Upgrade": "websocket", "Connection": "Upgrade"}
                assert await person.code(method, address, headers=offered) == (404, "not_found")
            elif path.endswith("/commands"):
                assert await person.code(method, address, json={"type": "ping"}) == (404, "not_found")
            elif path.startswith("/sessions"):
                assert await person.code(method, address, **body) == (404, "not_found"), (method, path)
            else:
                # Older routes look at their bodies first.
                assert (await person.ask(method, address, **body))[0] in {404, 422}, (method, path)
    # All of that had no effect.
    assert (await ada.ask("GET", f"/sessions/{session}"))[1]["message_count"] == 0


@pytest.mark.feature("R01")
@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
async def test_pages_of_others_and_rebound_names_reach_neither_upgrade_nor_stream_nor_command(
    people: People, header: dict[str, str]
) -> None:
    ada, *_ = await people()
    session = await ada.session()
    code = "host_refused" if "Host" in header else "origin_refused"
    ticket = await ada.ticket(session)
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Protocol": "parley.v1.json"}
    for method, path, options in (
        ("GET", "ws", {"headers": {**upgrade, **header}}),
        ("GET", "events", {"headers": header}),
        ("GET", "events", {"headers": header, "params": {"ticket": ticket}}),
        ("POST", "commands", {"headers": header, "json": {"type": "ping"}}),
    ):
        assert await ada.code(method, f"/sessions/{session}/{path}", **options) == (403, code)
    for method, path in (("POST", "/auth/tickets"), ("POST", "/auth/login"), ("DELETE", "/auth/login")):
        assert await ada.code(method, path, headers=header) == (403, code)
    # None of it used the ticket up.
    async with ada.client.get(f"/sessions/{session}/events", params={"ticket": ticket}) as response:
        assert response.status == 200
