from __future__ import annotations

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from pytest_aiohttp import AiohttpClient

from protocol.errors import ErrorCode
from server.auth import LOCAL, Principal, Tokens
from server.config import TokenSettings
from tests.auth.door import ADA, BOB, Client, make_app


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def client(aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(make_app())


async def test_a_token_is_found_by_itself_and_by_its_digest() -> None:
    digest = TokenSettings(user="x", token=BOB).digest.hex()
    tokens = Tokens([TokenSettings(user="ada", token=ADA), TokenSettings(user="bob", token_sha256=digest.upper())])
    ada, bob = await tokens.principal(ADA), await tokens.principal(BOB)
    assert ada is not None
    assert bob is not None
    assert ((ada.user_id, ada.kind), (bob.user_id, bob.kind)) == (("ada", "token"), ("bob", "token"))
    assert ada.credential != bob.credential
    assert digest not in repr(bob)
    assert [await tokens.principal(other) for other in (ADA[:-1], "", "\udcff")] == [None] * 3
    # What is remembered of a token that was used counts while the token is listed.
    assert tokens.vouches_for(ada)
    assert not Tokens([TokenSettings(user="bob", token=BOB)]).vouches_for(ada)
    assert not tokens.vouches_for(Principal("ada", "login"))
    assert not Tokens([])


@pytest.mark.feature("S37")
async def test_each_token_speaks_for_its_user(client: Client) -> None:
    for token, user in ((ADA, "ada"), (BOB, "bob")):
        answer = await client.get("/me", headers=bearer(token))
        assert (answer.status, (await answer.json())["user"]) == (200, user)


async def test_the_scheme_is_read_in_any_case(client: Client) -> None:
    answer = await client.get("/me", headers={"Authorization": f"bEARER  {ADA} "})
    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {ADA}"},
        {"Authorization": ADA},
        bearer(ADA + "x"),
        bearer(ADA.upper()),
        # Subprotocols are read in a WebSocket's handshake only.
        {"Sec-WebSocket-Protocol": f"parley.bearer.{ADA}"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_strangers_are_told_what_is_missing(client: Client, method: str, headers: dict[str, str]) -> None:
    answer = await client.request(method, "/me", headers=headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="parley"'
    assert answer.content_type == "application/problem+json"
    problem = await answer.json()
    assert (problem["code"], problem["status"]) == ("unauthorized", 401)
    assert ADA not in str(problem)


async def test_strangers_cannot_tell_which_addresses_exist(client: Client) -> None:
    assert [(await client.get(path)).status for path in ("/me", "/nothing")] == [401, 401]


async def test_public_files_need_no_token_for_reading(client: Client) -> None:
    assert (await client.get("/open")).status == 200
    assert (await client.head("/open")).status == 200
    assert (await client.post("/open")).status == 401


async def test_without_tokens_everybody_is_the_local_user(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(make_app(tokens=False))
    answer = await client.get("/me", headers=bearer("anything"))
    assert (await answer.json())["user"] == LOCAL.user_id


@pytest.mark.parametrize("token", [ADA, BOB])
async def test_a_browser_brings_its_token_as_a_subprotocol_and_never_sees_it_again(client: Client, token: str) -> None:
    offered = ("parley.v1.json", f"parley.bearer.{token}")
    async with client.ws_connect("/ws", protocols=offered) as socket:
        assert socket.protocol == "parley.v1.json"
        assert (await socket.receive_json())["user"] == token[:3]
        assert token not in str(socket._response.headers)


async def test_the_header_beats_the_subprotocol(client: Client) -> None:
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect("/ws", protocols=(f"parley.bearer.{ADA}",), headers=bearer("wrong-" + ADA))
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "protocols", [(), ("parley.v1.json",), ("parley.v1.json", "parley.bearer."), (f"bearer.{ADA}",)]
)
async def test_regression_20_a_websocket_passes_the_same_door(client: Client, protocols: tuple[str, ...]) -> None:
    with pytest.raises(WSServerHandshakeError) as caught:
        await client.ws_connect("/ws", protocols=protocols)
    assert caught.value.status == 401


@pytest.mark.parametrize("name", ["token", "access_token", "Access_Token", "api_key"])
@pytest.mark.parametrize("path", ["/me", "/open", "/nothing"])
async def test_a_token_in_a_url_is_refused_whatever_it_is(client: Client, path: str, name: str) -> None:
    answer = await client.get(path, params={name: ADA}, headers=bearer(ADA))
    problem = await answer.json()
    assert (answer.status, problem["code"]) == (400, ErrorCode.MALFORMED.code)
    assert problem["path"] == f"?{name}"
    assert "Authorization: Bearer" in problem["detail"]
    assert ADA not in str(problem)


async def test_a_client_id_is_checked(client: Client) -> None:
    async def ask(query: str) -> tuple[int, object]:
        answer = await client.get(f"/me{query}", headers=bearer(ADA))
        body = await answer.json()
        return answer.status, body.get("client", body.get("path"))

    assert await ask("") == (200, None)
    assert await ask("?client_id=ide:1") == (200, "ide:1")
    assert await ask("?client_id=") == (422, "?client_id")
    assert await ask("?client_id=a%20b") == (422, "?client_id")
    assert await ask("?client_id=a&client_id=b") == (422, "?client_id")


async def test_two_users_share_nothing_but_the_server(client: Client) -> None:
    async with ClientSession() as session:
        answers = [await session.get(client.make_url("/me"), headers=bearer(token)) for token in (ADA, BOB, ADA)]
        assert [(await answer.json())["user"] for answer in answers] == ["ada", "bob", "ada"]
