"""Tokens that end: their streams end with them, unless a newer token comes in time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from server.config import AuthSettings, TokenSettings, load
from tests.auth.people import TOKENS, People, Person
from tests.channel.clients import TRANSPORTS, Client, WebSocketClient, connect
from tests.support.clock import ManualClock
from tests.support.server import MakeServer

NEWER = "ada-has-a-newer-token"
NEWEST = "ada-has-the-newest-token"
READER = "ada-reads-with-this-token"


@asynccontextmanager
async def ending(make_server: MakeServer) -> AsyncIterator[tuple[Person, ManualClock]]:
    """Ada, whose first token ends in ten seconds, whose newer one in twenty, whose newest never."""
    clock = ManualClock()
    now = clock.now()
    tokens = (
        TokenSettings(user="ada", token=TOKENS["ada"], expires=now + timedelta(seconds=10)),
        TokenSettings(user="ada", token=NEWER, expires=now + timedelta(seconds=20)),
        TokenSettings(user="ada", token=NEWEST),
        TokenSettings(user="ada", token=READER, scope="read"),
        TokenSettings(user="bob", token=TOKENS["bob"]),
    )
    person = Person(await make_server(auth=AuthSettings(tokens=tokens), clock=clock), TOKENS["ada"])
    try:
        yield person, clock
    finally:
        await person.client.close()


async def disconnected(client: Client) -> tuple[str, bool]:
    ended = client.payload(await client.until("disconnect"))
    if isinstance(client, WebSocketClient):
        farewell = await client.socket.receive()
        assert (farewell.type, farewell.data) == (WSMsgType.CLOSE, 4002)
    await client.end()
    return ended["code"], ended["reconnect"]


@pytest.mark.feature("R01", "T04")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_stream_ends_with_its_token(make_server: MakeServer, transport: str) -> None:
    async with ending(make_server) as (ada, clock):
        session = await ada.session()
        async with connect(ada.as_server, session, transport) as client:
            await client.until("sync")
            await clock.advance(9)
            assert (await client.send(type="ping"))[0] == 200
            await clock.advance(2)
            assert await disconnected(client) == ("token_expired", True)
        assert await ada.code("GET", f"/sessions/{session}") == (401, "token_expired")
        if transport.startswith("ws"):
            with pytest.raises(WSServerHandshakeError) as caught:
                await ada.client.ws_connect(f"/sessions/{session}/ws")
            assert caught.value.status == 401


@pytest.mark.feature("R01", "T04")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_newer_token_lets_a_stream_go_on(make_server: MakeServer, transport: str) -> None:
    async with ending(make_server) as (ada, clock):
        session = await ada.session()
        async with connect(ada.as_server, session, transport, client_id="hers") as client:
            await client.until("sync")
            await clock.advance(5)
            status, ack = await client.send(type="refresh_token", token=NEWER)
            assert (status, ack["status"]) == (200, "accepted")
            await clock.advance(10)
            ada.client.headers["Authorization"] = f"Bearer {NEWEST}"
            await client.say("still here")
            assert (await client.send(type="refresh_token", token=NEWEST))[0] == 200
            await clock.advance(12)
            assert (await client.send(type="ping"))[0] == 200
            # A token may also shorten it.
            assert (await client.send(type="refresh_token", token=NEWER))[1]["code"] == "token_expired"
            assert (await client.send(type="ping"))[0] == 200


@pytest.mark.parametrize("transport", ["ws-json", "sse"])
async def test_what_does_not_fit_leaves_everything_as_it_is(make_server: MakeServer, transport: str) -> None:
    async with ending(make_server) as (ada, clock):
        session = await ada.session()
        async with connect(ada.as_server, session, transport, client_id="hers") as client:
            await client.until("sync")
            for token, code in (("nobodys-token", "unauthorized"), (TOKENS["bob"], "forbidden"), ("", "invalid")):
                assert (await client.send(type="refresh_token", token=token))[1]["code"] == code
            await clock.advance(11)
            assert await disconnected(client) == ("token_expired", True)


async def test_a_refresh_is_for_streams_of_that_client_and_user_alone(people: People, make_server: MakeServer) -> None:
    async with ending(make_server) as (ada, clock):
        session = await ada.session()
        path = f"/sessions/{session}/commands"
        async with (
            connect(ada.as_server, session, "sse", client_id="one") as one,
            connect(ada.as_server, session, "sse", client_id="two") as two,
        ):
            await one.until("sync")
            await two.until("sync")
            renew = {"type": "refresh_token", "id": "1", "token": NEWEST}
            status, problem = await ada.ask("POST", path, json=renew)
            assert (status, problem["path"]) == (422, "?client_id")
            assert (await ada.ask("POST", path, params={"client_id": "one"}, json=renew))[0] == 200
            await clock.advance(11)
            assert await disconnected(two) == ("token_expired", True)
            ada.client.headers["Authorization"] = f"Bearer {NEWEST}"
            await ada.ask("POST", path, json={"type": "user_message", "id": "2", "content": "hello"})
            await one.until("message_created")


async def test_a_token_for_reading_makes_a_stream_one_for_reading(make_server: MakeServer) -> None:
    async with ending(make_server) as (ada, _):
        session = await ada.session()
        async with connect(ada.as_server, session, "ws-json", client_id="hers") as client:
            await client.say("hello")
            assert (await client.send(type="refresh_token", token=READER))[0] == 200
            assert (await client.send(type="user_message", content="x"))[1]["code"] == "forbidden"
            # And no token gives it more again than it has.
            assert (await client.send(type="refresh_token", token=NEWEST))[0] == 200
            assert (await client.send(type="user_message", content="x"))[1]["code"] == "forbidden"


async def test_where_nobody_is_asked_nothing_is_refreshed(make_server: MakeServer) -> None:
    server = await make_server()
    session = await server.create_session()
    status, problem = await server.command(session, type="refresh_token", token="any")
    assert (status, problem["code"]) == (501, "not_supported")


def test_the_end_of_a_token_is_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    head = '[[auth.tokens]]\nuser = "ada"\ntoken = "Zk3-9vQ_xP7.bLw2mT5a"\nexpires = '
    for text in ("2030-01-31T12:00:00Z", '"2030-01-31T13:00:00+01:00"', "2030-01-31 12:00:00.000+00:00"):
        file.write_text(head + text)
        (token,) = load(environ={}, file=file).auth.tokens
        assert token.expires == datetime(2030, 1, 31, 12, tzinfo=UTC)
    for text in ("2030-01-31T12:00:00", "2030-01-31", '"soon"', "7"):
        file.write_text(head + text)
        with pytest.raises(Exception, match=r"auth\.tokens\[0\]\.expires: expected "):
            load(environ={}, file=file)
