"""Nothing that opens a door is ever in the log of a server, however it was brought."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSServerHandshakeError
from yarl import URL

from tests.support.process import ServerProcess

TOKEN = "Zk3-9vQ_xP7.bLw2mT5aYh8Rj4Nc6Ue"
OTHER = "another-9vQ_xP7.bLw2mT5aYh8Rj4Nc"
CONFIG = f"""\
[log]
level = "debug"
[agents]
entry_points = false
[[auth.tokens]]
user = "ada"
token = "{TOKEN}"
[[auth.tokens]]
user = "ada"
token = "{OTHER}"
"""


async def raw(url: URL, *lines: str) -> bytes:
    """A request that no client would send."""
    assert url.host is not None
    assert url.port is not None
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = "\r\n".join((*lines, f"Host: {url.host}", "Connection: close", "", ""))
    writer.write(head.encode("latin-1"))
    try:
        return await reader.read()
    finally:
        writer.close()


async def bring(url: str) -> set[str]:
    """Bring secrets in every way there is, right and wrong; all of them."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    secrets = {TOKEN, OTHER}
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.DummyCookieJar()) as page:

        async def ask(method: str, path: str, **options: Any) -> Any:
            async with page.request(method, path, **options) as response:
                return await response.json() if response.status in {200, 201} and method == "POST" else response.cookies

        session = (await ask("POST", "/sessions", json={}, headers=bearer))["id"]
        stream, socket = f"/sessions/{session}/events", f"/sessions/{session}/ws"
        tickets = [(await ask("POST", "/auth/tickets", json={}, headers=bearer))["ticket"] for _ in range(3)]
        async with page.post("/auth/login", headers=bearer) as response:
            (cookie,) = response.cookies.values()
        secrets |= {*tickets, cookie.value}
        for ticket in (*tickets[:2], tickets[0], tickets[0]):
            await ask("GET", stream, params={"ticket": ticket})
            await ask("GET", f"/nothing/{session}", params={"ticket": ticket}, headers=bearer)
        async with page.ws_connect(socket, params={"ticket": tickets[2]}) as opened:
            await opened.receive()
        for offered in ([f"parley.bearer.{TOKEN}"], [f"parley.bearer.{TOKEN}x"], [f"parley.bearer.{TOKEN}/"]):
            for protocols in (offered, ["parley.v1.json", *offered], ["other", *offered]):
                try:
                    async with page.ws_connect(socket, protocols=protocols) as opened:
                        await opened.receive()
                        await opened.send_str(f'{{"type": "refresh_token", "id": "1", "token": "{OTHER}"}}')
                        await opened.send_str(f'{{"type": "refresh_token", "id": "2", "token": "{OTHER}", "x": 1}}')
                        await opened.send_str(f'{{"type": "refresh_token", "id": "3", "token": "{OTHER}')
                        await opened.receive()
                except WSServerHandshakeError:
                    continue
        for header in ({"Cookie": f"parley={cookie.value}"}, {"Cookie": f"a=b; parley={cookie.value}; c"}):
            await ask("GET", stream, headers=header)
            await ask("GET", "/sessions", headers=header)
            await ask("POST", "/sessions", json={}, headers=header)
        for query in ("token", "access_token", "ticket", "x"):
            await ask("GET", "/sessions", params={query: TOKEN}, headers=bearer)
            await ask("GET", "/nothing", params={query: TOKEN})
        for header in ({"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
            await ask("GET", "/sessions", headers=header)
    much = "x" * 10_000
    for lines in (
        ("GET /sessions HTTP/1.1", f"Authorization: Bearer {TOKEN}{much}"),
        ("GET /sessions HTTP/1.1", f"Authorization: Bearer {TOKEN}\x01"),
        ("GET /sessions HTTP/1.1", f"Cookie: parley={cookie.value}; {much}"),
        ("GET /sessions HTTP/1.1", f"Cookie: parley={cookie.value}\x01"),
        (f"GET {stream}?ticket={tickets[0]}{much} HTTP/1.1",),
        (f"GET {stream}?ticket={tickets[0]}\x01 HTTP/1.1",),
        (f"GET {stream}?ticket={tickets[0]} HTTP/7",),
        (f"GET {socket} HTTP/1.1", f"Sec-WebSocket-Protocol: parley.bearer.{TOKEN}{much}"),
    ):
        await raw(URL(url), *lines)
    return secrets


@pytest.mark.feature("R01")
async def test_regression_40_no_secret_is_in_the_log_however_it_was_brought(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "data", CONFIG)
    try:
        await server.start()
        secrets = await bring(await server.address())
        assert await server.stop() == 0
    finally:
        await server.close()
    log = "\n".join(server.log)
    assert log.count('"logger":"server.access"') > 40
    assert {secret for secret in secrets if secret in log} == set()
    # Nor a part of one that is long enough to be of use.
    assert {secret for secret in secrets if secret[:16] in log} == set()
