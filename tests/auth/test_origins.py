from __future__ import annotations

import pytest
from aiohttp import WSServerHandshakeError
from pytest_aiohttp import AiohttpClient

from server.config import ServerSettings
from tests.auth.door import ADA, Client, make_app

IDE = "https://ide.example.org"


@pytest.fixture
async def client(aiohttp_client: AiohttpClient) -> Client:
    settings = ServerSettings(
        allowed_hosts=("parley.example.org", "*.example.net", "10.1.2.3", "fd00::1"),
        allowed_origins=(IDE, "vscode-webview://abc"),
    )
    return await aiohttp_client(make_app(tokens=False, server=settings))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "parley.localhost:1",
        "127.0.0.1",
        "127.0.0.5:8080",
        "[::1]:8080",
        "[::ffff:127.0.0.1]",
        "parley.example.org",
        "Parley.Example.ORG.:443",
        "a.example.net",
        "b.a.example.net:80",
        "10.1.2.3:8080",
        "[fd00::1]",
    ],
)
async def test_a_known_host_is_served(client: Client, host: str) -> None:
    assert (await client.get("/me", headers={"Host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil-localhost",
        "example.net",
        "evilexample.net",
        "10.1.2.4",
        "0.0.0.0:8080",
        "[::]",
        "",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_a_rebound_name_reaches_nothing(client: Client, method: str, host: str) -> None:
    answer = await client.request(method, "/me", headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status == 403
    assert (await answer.json())["code"] == "host_refused"


async def test_a_rebound_name_does_not_get_public_files_either(client: Client) -> None:
    assert (await client.get("/open", headers={"Host": "evil.example"})).status == 403


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:8080", "localhost:8080"),
        ("http://localhost", "localhost:80"),
        ("https://parley.example.org", "parley.example.org"),
        ("https://parley.example.org", "parley.example.org:443"),
        ("https://Parley.example.org", "parley.example.org"),
        (IDE, "localhost:8080"),
        ("vscode-webview://abc", "localhost:8080"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_pages_of_our_own_and_of_configured_origins_are_served(
    client: Client, method: str, origin: str, host: str
) -> None:
    assert (await client.request(method, "/me", headers={"Host": host, "Origin": origin})).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "http://localhost:8081",
        "http://localhost:8080.evil.example",
        "https://ide.example.org.evil.example",
        "http://ide.example.org",
        "https://ide.example.org:444",
        "null",
        "",
        "file://",
        "ftp://localhost:8080",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_pages_of_others_are_refused_on_loopback_too(client: Client, method: str, origin: str) -> None:
    answer = await client.request(method, "/me", headers={"Host": "localhost:8080", "Origin": origin})
    assert answer.status == 403
    assert (await answer.json())["code"] == "origin_refused"
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_two_origins_or_two_hosts_are_refused(client: Client) -> None:
    own = f"http://{client.host}:{client.port}"
    for header, values in (("Origin", (own, "http://evil.example")), ("Origin", (own, own))):
        answer = await client.get("/me", headers=[(header, value) for value in values])
        assert answer.status == 403


async def test_regression_20_a_websocket_of_a_foreign_page_is_refused(client: Client) -> None:
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect("/ws", headers={"Origin": "http://evil.example"})
    assert caught.value.status == 403
    async with client.ws_connect("/ws", headers={"Origin": IDE}) as socket:
        assert (await socket.receive_json())["user"] == "local"


async def test_a_configured_origin_may_read_answers_and_ask_first(client: Client) -> None:
    answer = await client.get("/me", headers={"Origin": IDE})
    assert answer.headers["Access-Control-Allow-Origin"] == IDE
    assert answer.headers["Vary"] == "Origin"
    asked = {"Origin": IDE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = await client.options("/me", headers=asked)
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == IDE
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]


async def test_a_preflight_needs_no_token_and_gives_nothing(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_app(server=ServerSettings(allowed_origins=(IDE,))))
    asked = {"Origin": IDE, "Access-Control-Request-Method": "POST"}
    assert (await client.options("/me", headers=asked)).status == 204
    refused = await client.get("/me", headers={"Origin": IDE})
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, IDE)
    served = await client.get("/me", headers={"Origin": IDE, "Authorization": f"Bearer {ADA}"})
    assert served.status == 200


async def test_an_address_leads_here_only_if_the_connection_says_so(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_app(server=ServerSettings(host="0.0.0.0")))
    assert (await client.get("/open", headers={"Host": "127.0.0.1"})).status == 200
    assert (await client.get("/open", headers={"Host": "10.9.8.7"})).status == 403
    assert (await client.get("/open", headers={"Host": "0.0.0.0"})).status == 403
