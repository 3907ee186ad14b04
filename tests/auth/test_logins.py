"""A browser's login: a cookie that scripts do not see, for pages of the server itself."""

from __future__ import annotations

from datetime import timedelta
from http.cookies import Morsel
from typing import Any

import pytest

from server.auth.logins import COOKIE, SECURE_COOKIE
from server.config import AuthSettings, ServerSettings, TokenSettings
from tests.auth.people import READING, TOKENS, People, Person
from tests.channel.clients import HttpClient, WebSocketClient
from tests.support.clock import ManualClock
from tests.support.server import MakeServer

IDE = "https://ide.example.org"


async def login(person: Person, **headers: str) -> Morsel[str]:
    """The cookie that somebody gets for his token."""
    async with person.client.post("/auth/login", headers=headers) as response:
        assert response.status == 200, await response.text()
        (cookie,) = response.cookies.values()
        return cookie


def brought(cookie: Morsel[str], **headers: str) -> dict[str, Any]:
    return {"headers": {"Cookie": f"{cookie.key}={cookie.value}", **headers}}


@pytest.mark.feature("R01", "S36")
async def test_a_cookie_serves_a_plain_event_source_and_everything_else(people: People) -> None:
    ada, _, _, page = await people()
    session = await ada.session()
    cookie = await login(ada)
    assert (cookie.key, cookie["httponly"], cookie["samesite"], cookie["path"]) == (COOKIE, True, "Strict", "/")
    assert not cookie["secure"]
    assert not cookie["domain"]
    async with page.client.get(f"/sessions/{session}/events", **brought(cookie)) as response:
        client = HttpClient(response, "sse", page.server, session, {})
        await client.until("sync")
        own = brought(cookie, Origin=page.url)
        said = {"type": "user_message", "id": "1", "content": "hello"}
        assert (await page.ask("POST", f"/sessions/{session}/commands", json=said, **own))[0] == 200
        await client.until("task_completed")
    async with page.client.ws_connect(f"/sessions/{session}/ws", **own) as socket:
        await WebSocketClient(socket, "ws-json", page.server, session, {}).until("sync")
    status, who = await page.ask("GET", "/auth/login", **brought(cookie))
    assert (status, who["user_id"], who["kind"], who["scope"]) == (200, "ada", "login", "all")
    assert who["expires_at"] is not None


@pytest.mark.feature("R01")
async def test_what_another_page_makes_a_browser_send_is_refused(people: People) -> None:
    server = ServerSettings(port=0, allowed_origins=(IDE,), shutdown_timeout=1.0)
    ada, _, _, page = await people(server=server)
    session = await ada.session()
    cookie = await login(ada)
    said = {"type": "user_message", "id": "1", "content": "hello"}
    for headers in ({}, {"Origin": IDE}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        for method, path, options in (
            ("POST", f"/sessions/{session}/commands", {"json": said}),
            ("DELETE", f"/sessions/{session}", {}),
            ("POST", "/sessions", {"json": {}}),
            ("POST", "/auth/tickets", {}),
            ("DELETE", "/auth/login", {}),
        ):
            asked = await page.code(method, path, **brought(cookie, **headers), **options)
            assert asked == (403, "origin_refused"), (method, path, headers)
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade"}
        refused = await page.code("GET", f"/sessions/{session}/ws", **brought(cookie, **headers, **upgrade))
        assert refused == (403, "origin_refused")
    for headers in ({"Origin": IDE}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert await page.code("GET", f"/sessions/{session}", **brought(cookie, **headers)) == (403, "origin_refused")
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        assert (await page.ask("GET", f"/sessions/{session}", **brought(cookie, **headers)))[0] == 200
    # None of it had an effect.
    assert (await ada.ask("GET", f"/sessions/{session}"))[1]["message_count"] == 0


async def test_a_login_is_forgotten_on_demand_and_twice(people: People) -> None:
    ada, _, _, page = await people()
    cookie = await login(ada)
    own = brought(cookie, Origin=page.url)
    for _ in range(2):
        async with page.client.delete("/auth/login", **own) as response:
            assert response.status == 204
            assert response.cookies[COOKIE]["max-age"] == "0"
        assert await page.code("GET", "/auth/login", **brought(cookie)) == (401, "unauthorized")
    assert (await page.ask("DELETE", "/auth/login"))[0] == 204
    assert await page.code("GET", "/auth/login") == (401, "unauthorized")


@pytest.mark.parametrize("value", ["", "x", "a" * 4_000, "%00", '"quoted"', "ä"])
async def test_a_made_up_cookie_is_nobodys(people: People, value: str) -> None:
    *_, page = await people()
    headers = {"headers": {"Cookie": f"{COOKIE}={value}; {SECURE_COOKIE}={value}"}}
    assert await page.code("GET", "/sessions", **headers) == (401, "unauthorized")


@pytest.mark.feature("R01")
async def test_a_login_ends_with_its_token_and_by_itself(people: People) -> None:
    clock = ManualClock()
    ada, bob, _, page = await people(clock.now() + timedelta(seconds=100), clock=clock)
    session = await ada.session()
    short, long = await login(ada), await login(bob)
    async with page.client.get(f"/sessions/{session}/events", **brought(short)) as response:
        client = HttpClient(response, "sse", page.server, session, {})
        await client.until("sync")
        await clock.advance(101)
        assert client.payload(await client.until("disconnect"))["code"] == "token_expired"
    assert await page.code("GET", "/auth/login", **brought(short)) == (401, "unauthorized")
    assert (await page.ask("GET", "/auth/login", **brought(long)))[0] == 200
    await clock.advance(200)
    assert await page.code("GET", "/auth/login", **brought(long)) == (401, "unauthorized")


async def test_a_login_is_over_when_its_token_is_listed_no_longer(make_server: MakeServer) -> None:
    async def who(*tokens: str, cookie: Any = None) -> Any:
        entries = tuple(TokenSettings(user="ada", token=token) for token in tokens)
        server = await make_server(auth=AuthSettings(tokens=entries))
        person = Person(server, tokens[0])
        try:
            if cookie is None:
                return await login(person)
            async with server.client.get("/auth/login", **brought(cookie)) as response:
                return response.status
        finally:
            await person.client.close()
            await server.stop()

    cookie = await who(TOKENS["ada"])
    assert await who("another-token-of-hers", TOKENS["ada"], cookie=cookie) == 200
    assert await who("another-token-of-hers", cookie=cookie) == 401


async def test_a_login_is_no_more_than_its_token(people: People) -> None:
    ada, _, _, page = await people()
    reader = Person(ada.server, READING)
    cookie = await login(reader)
    await reader.client.close()
    own = brought(cookie, Origin=page.url)
    assert (await page.ask("GET", "/sessions", **own))[0] == 200
    assert await page.code("POST", "/sessions", json={}, **own) == (403, "forbidden")
    # It makes no other.
    status, who = await page.ask("POST", "/auth/login", **own)
    assert (status, who["kind"], who["scope"]) == (200, "login", "read")


async def test_behind_a_proxy_that_ends_tls_the_cookie_is_secure(people: People) -> None:
    server = ServerSettings(port=0, allowed_hosts=("parley.example.org",), shutdown_timeout=1.0)
    ada, _, _, page = await people(server=server)
    proxied = {"Host": "parley.example.org", "Origin": "https://parley.example.org"}
    cookie = await login(ada, **proxied)
    assert (cookie.key, cookie["secure"]) == (SECURE_COOKIE, True)
    assert (await page.ask("POST", "/sessions", json={}, **brought(cookie, **proxied)))[0] == 201
    async with page.client.delete("/auth/login", **brought(cookie, **proxied)) as response:
        assert response.cookies[SECURE_COOKIE]["secure"]


async def test_without_tokens_everybody_is_logged_in(server: Any) -> None:
    for method in ("POST", "GET"):
        async with server.client.request(method, "/auth/login") as response:
            assert (response.status, (await response.json())["kind"]) == (200, "local")
            assert not response.cookies
    async with server.client.delete("/auth/login") as response:
        assert response.status == 204
