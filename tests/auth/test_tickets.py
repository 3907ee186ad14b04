"""Tickets: once, for seconds, on streams of one session, for pages of one origin."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import WSServerHandshakeError

from server.config import ServerSettings
from server.services import Services
from tests.auth.people import READING, People, Person
from tests.channel.clients import HttpClient, WebSocketClient
from tests.support.clock import ManualClock

IDE = "https://ide.example.org"


async def opened(stranger: Person, session: str, ticket: str, leaf: str = "events", **headers: str) -> Any:
    """What a page gets that has nothing but a ticket: the status, and the code of a refusal."""
    if leaf == "ws":
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "parley.v1.json"}
    async with stranger.client.get(f"/sessions/{session}/{leaf}", params={"ticket": ticket}, headers=headers) as answer:
        return answer.status if answer.status < 400 else (answer.status, (await answer.json())["code"])


@pytest.mark.feature("R01", "S36")
@pytest.mark.parametrize("leaf", ["events", "ws"])
async def test_a_ticket_opens_a_stream_once(people: People, leaf: str) -> None:
    ada, _, _, stranger = await people()
    session = await ada.session()
    ticket = await ada.ticket(session)
    assert await opened(stranger, session, ticket, leaf) == (200 if leaf == "events" else 101)
    assert await opened(stranger, session, ticket, leaf) == (401, "unauthorized")
    assert await opened(stranger, session, "", leaf) == (401, "unauthorized")
    assert await opened(stranger, session, ticket[:-1], leaf) == (401, "unauthorized")


async def test_of_many_that_bring_the_same_ticket_at_once_one_is_served(people: People) -> None:
    ada, _, _, stranger = await people()
    session = await ada.session()
    ticket = await ada.ticket(session)
    answers = await asyncio.gather(*(opened(stranger, session, ticket) for _ in range(10)))
    assert sorted(answers, key=str) == [(401, "unauthorized")] * 9 + [200]


@pytest.mark.feature("R01")
async def test_what_a_ticket_opened_is_its_users_and_takes_commands(people: People) -> None:
    ada, _, _, stranger = await people()
    session = await ada.session()
    path, params = f"/sessions/{session}/ws", {"ticket": await ada.ticket(session)}
    async with stranger.client.ws_connect(path, protocols=["parley.v1.json"], params=params) as socket:
        client = WebSocketClient(socket, "ws-json", stranger.server, session, {})
        await client.until("sync")
        await client.say("hello")
        await client.until("task_completed")


async def test_a_ticket_opens_its_own_session_and_no_other(people: People) -> None:
    ada, bob, _, stranger = await people()
    session, other, bobs = await ada.session(session_id="mine"), await ada.session(), await bob.session()
    assert await opened(stranger, other, await ada.ticket(session)) == (404, "not_found")
    assert await opened(stranger, bobs, await ada.ticket()) == (404, "not_found")
    for ticket in (await ada.ticket("mine"), await ada.ticket()):
        assert await opened(stranger, session, ticket) == 200
    assert await ada.code("POST", "/auth/tickets", json={"session_id": bobs}) == (404, "not_found")
    assert (await ada.ask("POST", "/auth/tickets", json={"session_id": 7}))[1]["path"] == "$.session_id"
    assert (await ada.ask("POST", "/auth/tickets", data=b""))[0] == 201


@pytest.mark.feature("R01")
async def test_a_ticket_is_for_pages_of_the_origin_that_asked(people: People) -> None:
    server = ServerSettings(port=0, allowed_origins=(IDE, "https://other.example"), shutdown_timeout=1.0)
    ada, _, _, stranger = await people(server=server)
    session = await ada.session()
    own = stranger.url
    for origin, other in ((IDE, None), (None, IDE), (IDE, own), (own, IDE), (IDE, "https://other.example")):
        ticket = await ada.ticket(session, origin)
        headers = {} if other is None else {"Origin": other}
        assert await opened(stranger, session, ticket, **headers) == (401, "unauthorized"), (origin, other)
        # And it is used up: nobody gets to try where it fits.
        headers = {} if origin is None else {"Origin": origin}
        assert await opened(stranger, session, ticket, **headers) == (401, "unauthorized")
    # A browser says nothing of a page's origin when it gets something from there.
    for asked, brought in ((own, None), (None, own), (IDE, IDE), (IDE, IDE.upper())):
        ticket = await ada.ticket(session, asked)
        headers = {} if brought is None else {"Origin": brought}
        assert await opened(stranger, session, ticket, **headers) == 200


async def test_a_ticket_is_looked_at_on_streams_alone(people: People) -> None:
    ada, _, _, stranger = await people()
    session = await ada.session()
    ticket = await ada.ticket(session)
    for method, path in (
        ("GET", f"/sessions/{session}"),
        ("GET", f"/sessions/{session}/history"),
        ("POST", f"/sessions/{session}/commands"),
        ("POST", "/auth/tickets"),
        ("GET", "/sessions"),
    ):
        assert await stranger.code(method, path, params={"ticket": ticket}, json={}) == (401, "unauthorized")
    assert await opened(stranger, session, ticket) == 200
    twice = f"/sessions/{session}/events?ticket=a&ticket=b"
    assert await stranger.code("GET", twice) == (422, "invalid")


async def test_a_token_beats_a_ticket_and_leaves_it_alone(people: People) -> None:
    ada, bob, _, stranger = await people()
    session = await ada.session()
    ticket = await ada.ticket(session)
    assert await opened(bob, session, ticket) == (404, "not_found")
    assert await opened(stranger, session, ticket) == 200


def services_of(person: Person) -> Services:
    return person.server.services


@pytest.mark.feature("R01", "T04")
async def test_a_ticket_is_good_for_thirty_seconds_and_what_it_opened_ends_with_the_token(people: People) -> None:
    clock = ManualClock()
    ada, _, _, stranger = await people(clock.now() + timedelta(seconds=100), clock=clock)
    session = await ada.session()
    late, last = await ada.ticket(session), await ada.ticket(session)
    await clock.advance(29)
    assert await opened(stranger, session, last) == 200
    await clock.advance(1)
    assert await opened(stranger, session, late) == (401, "unauthorized")
    await clock.advance(50)
    ticket = await ada.ticket(session)
    async with stranger.client.get(f"/sessions/{session}/events", params={"ticket": ticket}) as response:
        client = HttpClient(response, "sse", stranger.server, session, {})
        await client.until("sync")
        ticket = await ada.ticket(session)
        await clock.advance(21)
        ended = client.payload(await client.until("disconnect"))
        assert (ended["code"], ended["reconnect"]) == ("token_expired", True)
    assert await opened(stranger, session, ticket) == (401, "token_expired")


async def test_a_ticket_of_a_token_for_reading_is_for_reading(people: People) -> None:
    ada, _, _, stranger = await people()
    session = await ada.session()
    reader = Person(ada.server, READING)
    params = {"ticket": await reader.ticket(session)}
    await reader.client.close()
    path = f"/sessions/{session}/ws"
    async with stranger.client.ws_connect(path, protocols=["parley.v1.json"], params=params) as socket:
        client = WebSocketClient(socket, "ws-json", stranger.server, session, {})
        status, error = await client.send(type="user_message", content="hello")
        assert (status, error["code"]) == (400, "forbidden")


async def test_users_may_have_so_many_and_no_more(people: People) -> None:
    clock = ManualClock()
    ada, bob, *_ = await people(clock=clock)
    tickets = services_of(ada).credentials.tickets
    who = await services_of(ada).credentials.verifier.principal(ada.token or "")  # type: ignore[union-attr]
    assert who is not None
    for _ in range(1_000):
        await tickets.issue(who, None, None)
    status, problem = await ada.ask("POST", "/auth/tickets")
    assert (status, problem["code"], problem["retry_after"]) == (429, "limit_reached", 30.0)
    assert await bob.ticket()
    await clock.advance(30)
    assert await ada.ticket()


async def test_without_tokens_pages_may_ask_all_the_same(server: Any) -> None:
    session = await server.create_session()
    async with server.client.post("/auth/tickets", json={"session_id": session}) as response:
        assert response.status == 201
        ticket = (await response.json())["ticket"]
    for brought in (ticket, ticket, "nonsense"):
        async with server.client.get(f"/sessions/{session}/events", params={"ticket": brought}) as response:
            assert response.status == 200


async def test_a_token_that_cannot_be_a_subprotocol_is_told_so(people: People) -> None:
    ada, *_ = await people()
    session = await ada.session()
    async with aiohttp.ClientSession(ada.url) as page:
        for offered in (["parley.bearer.a/b+c"], ["parley.bearer.abc="], ["parley.bearer.a", "parley.bearer.b"]):
            with pytest.raises(WSServerHandshakeError) as caught:
                await page.ws_connect(f"/sessions/{session}/ws", protocols=["parley.v1.json", *offered])
            assert caught.value.status == 400
