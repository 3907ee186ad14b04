"""`Server`: what is asked once and answered once; and tokens, which all of the client sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from protocol.client import Server, Timings, connect
from protocol.client.choice import Memory
from protocol.errors import ErrorCode, ParleyError
from server.config import AuthSettings, TokenSettings
from server.version import VERSION
from tests.auth.door import ADA
from tests.protocol.support import QUICK, Script, connected, durable, numbers, serving, sync, until
from tests.support.server import MakeServer, RunningServer


@pytest.fixture(autouse=True)
def new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are used again, and what was found out about them is about others."""
    monkeypatch.setattr("protocol.client.choice.SHARED", Memory())


# --- against the real server


@pytest.mark.feature("E02", "S20")
async def test_sessions_are_made_listed_read_and_deleted(server: RunningServer) -> None:
    async with Server(server.url) as api:
        made = [await api.create_session(f"s{number}", title=f"Title {number}") for number in range(5)]
        page = await api.sessions(limit=2, offset=1)
        assert (page.total, page.limit, page.offset, len(page.sessions)) == (5, 2, 1, 2)
        one = await api.session("s3")
        assert (one.id, one.alias, one.title, one.message_count) == (made[3].id, "s3", "Title 3", 0)
        assert (one.queued, one.active_turn, one.is_active) == (0, None, True)
        assert await api.session(made[3].id) == one
        assert page.sessions[0].queued is None
        await api.delete_session("s3")
        with pytest.raises(ParleyError) as caught:
            await api.session(made[3].id)
        assert caught.value.code is ErrorCode.SESSION_GONE
        assert (await api.sessions()).total == 4
        with pytest.raises(ParleyError) as taken:
            await api.create_session("s1")
        assert (taken.value.code, taken.value.path) == (ErrorCode.CONFLICT, "$.session_id")
        with pytest.raises(ParleyError) as wrong:
            await api.sessions(limit=0)
        assert (wrong.value.code, wrong.value.path) == (ErrorCode.INVALID, "?limit")


async def test_sessions_are_found_by_what_was_said_in_them(server: RunningServer) -> None:
    async with Server(server.url) as api:
        for words in ("echo parrots", "echo herons"):
            async with connect(server.url) as session:
                await session.ask(words)
        found = await api.sessions("heron")
        assert found.total == 1
        assert [message.content async for message in api.messages(found.sessions[0].id)] == ["echo herons", "herons"]


@pytest.mark.feature("E02", "S21")
async def test_a_history_is_read_in_pages_or_as_a_whole(server: RunningServer) -> None:
    async with connect(server.url) as session, Server(server.url) as api:
        for number in range(3):
            await session.ask(f"echo {number}")
        first = await api.history(session.session, limit=4)
        assert (len(first.messages), first.message_count, first.next is not None) == (4, 6, True)
        rest = await api.history(session.session, after=first.next or "", limit=4)
        assert (len(rest.messages), rest.next, rest.current_agent) == (2, None, "offline")
        assert [span.agent_type for span in rest.agent_history] == ["offline"]
        whole = [message async for message in session.messages()]
        assert whole == first.messages + rest.messages
        assert [message.content for message in whole if message.role == "user"] == ["echo 0", "echo 1", "echo 2"]
        assert whole[1].agent_type == "offline"
        async with connect(server.url, session.session, after=first.cursor) as later:
            assert numbers(await until(later, "sync")) == []


async def test_tool_calls_are_part_of_a_history(server: RunningServer) -> None:
    async with connect(server.url) as session:
        await session.ask('use tool calculate {"expression": "6*7"}')
        messages = [message async for message in session.messages()]
    calls = [call for message in messages for call in message.tool_calls or ()]
    assert [(call.name, msgspec.json.decode(call.arguments)) for call in calls] == [
        ("calculate", {"expression": "6*7"})
    ]
    assert [str(message.tool_call_id) for message in messages if message.role == "tool"] == [calls[0].call_id]


@pytest.mark.feature("S18", "S19")
async def test_agents_and_health(make_server: MakeServer) -> None:
    server = await make_server(auth=AuthSettings(tokens=(TokenSettings(user="ada", token=ADA),)))
    async with Server(server.url) as stranger:
        assert (await stranger.health()).version == VERSION
        with pytest.raises(ParleyError) as caught:
            await stranger.agents()
        assert caught.value.code is ErrorCode.UNAUTHORIZED
    async with Server(server.url + "/", f"{ADA}\n") as api:
        agents = await api.agents()
        assert [one.type for one in agents if one.is_default] == ["offline"]
        assert {"coder", "architect", "ask"} <= {one.type for one in agents}


async def test_servers_that_are_closed_or_not_opened(server: RunningServer) -> None:
    api = Server(server.url)
    with pytest.raises(ConnectionError, match="not connected"):
        await api.health()
    async with api:
        await api.health()
    await api.close()
    with pytest.raises(ConnectionError):
        await api.health()


async def test_a_server_may_live_under_a_path() -> None:
    asked: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request.raw_path)
        return web.json_response({"agents": []})

    async with serving(handle) as url, Server(f"{url}/under/here/") as api:
        assert await api.agents() == []
    assert asked == ["/under/here/agents"]


async def test_answers_of_newer_servers_are_read_and_of_strangers_refused() -> None:
    answers: list[Any] = [
        {"status": "ok", "service": "parley", "version": "9", "new": [1]},
        {"agents": [{"type": "a"}]},
        "text",
    ]

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(answers.pop(0))

    async with serving(handle) as url, Server(url) as api:
        assert (await api.health()).version == "9"
        for _ in range(2):
            with pytest.raises(ParleyError, match="does not answer as a Parley server does"):
                await api.agents()


async def test_pages_that_lead_nowhere_end() -> None:
    page = {
        "session_id": "00000000-0000-0000-0000-000000000001",
        "messages": [],
        "message_count": 0,
        "last_activity": "",
        "current_agent": "a",
        "cursor": "e.0",
        "next": "e.7",
    }

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(page)

    async with serving(handle) as url, Server(url) as api:
        assert [message async for message in api.messages("x")] == []


async def test_nobody_there_is_told_in_words(unused_tcp_port: int) -> None:
    async with Server(f"http://127.0.0.1:{unused_tcp_port}") as api:
        with pytest.raises(ConnectionError, match=f"does not answer: nothing listens on port {unused_tcp_port}"):
            await api.agents()


async def test_an_answer_that_does_not_come() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async with serving(handle) as url, Server(url, timings=Timings(answer=0.1)) as api:
        with pytest.raises(ConnectionError, match=r"nothing came within 0\.1 s"):
            await api.agents()


# --- tokens


class Doorkeeper(Script):
    """Lets in who has one of the good tokens."""

    def __init__(self, *good: str, code: ErrorCode = ErrorCode.TOKEN_EXPIRED, **script: Any) -> None:
        super().__init__([connected(), sync()], **script)
        self.good = set(good)
        self.presented: list[str] = []
        self._error = ParleyError(code, "this token is too old")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.presented.append(token)
        if token in self.good:
            return await super().handle(request)
        body = self._error.to_problem()
        return web.json_response(body, status=self._error.code.status, content_type="application/problem+json")


def newest(*tokens: str, later: bool = False) -> Callable[[], Any]:
    """A function that returns these tokens, and then the last one again and again."""
    left = list(tokens)

    def now() -> str:
        return left.pop(0) if len(left) > 1 else left[0]

    async def soon() -> str:
        await asyncio.sleep(0)
        return now()

    return soon if later else now


@pytest.mark.feature("R01")
@pytest.mark.parametrize("transport", ["auto", "ws", "sse"])
@pytest.mark.parametrize("code", [ErrorCode.TOKEN_EXPIRED, ErrorCode.UNAUTHORIZED])
async def test_a_newer_token_is_asked_for_when_one_is_refused(transport: Any, code: ErrorCode) -> None:
    door = Doorkeeper("new", code=code)
    token = newest("old", "new", later=transport == "ws")
    async with serving(door.handle) as url:
        async with connect(url, "x", token=token, transport=transport, timings=QUICK) as client:
            await until(client, "sync")
            assert client.transport == ("sse" if transport == "sse" else "ws")
            door.good = {"newer"}
            with pytest.raises(ParleyError):
                await client.server.agents()
        async with Server(url, newest("old", "newer")) as api:
            await api.delete_session("x")
    assert set(door.presented) == {"old", "new", "newer"}


@pytest.mark.feature("R01", "T04")
async def test_a_token_that_expires_while_connected_is_replaced() -> None:
    door = Doorkeeper("old", then_end=True)
    door.streams = [[connected(), sync(), 4002], [connected(), durable(1), sync("e.1")]]
    async with serving(door.handle) as url:
        token = newest("old", "new")
        async with connect(url, "x", token=token, transport="ws", timings=QUICK) as client:
            door.good = {"new"}
            assert numbers(await until(client, "from_the_future")) == [1]
    assert door.presented[:2] == ["old", "new"]


@pytest.mark.parametrize("transport", ["auto", "ws", "sse"])
@pytest.mark.parametrize("token", ["old", newest("old"), newest("old", "older", "oldest", "ancient", "lost", "x", "y")])
async def test_tokens_that_are_refused_again_and_again_are_given_up(transport: Any, token: Any) -> None:
    door = Doorkeeper("new")
    async with serving(door.handle) as url:
        with pytest.raises(ParleyError, match="too old"):
            async with connect(url, "x", token=token, transport=transport, timings=QUICK):
                pass
    assert len(door.presented) < 20


async def test_what_a_function_raises_instead_of_a_token_is_told() -> None:
    def broken() -> str:
        raise LookupError("the key ring is locked")

    door = Doorkeeper("new")
    async with serving(door.handle) as url:
        with pytest.raises(LookupError, match="the key ring is locked"):
            async with connect(url, "x", token=broken):
                pass
        async with Server(url, broken) as api:
            with pytest.raises(LookupError):
                await api.agents()
    assert door.presented == []


async def test_a_function_that_cannot_reach_its_own_server_is_asked_again() -> None:
    tries = 0

    async def away() -> str:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise ConnectionError("the identity provider is away")
        return "new"

    door = Doorkeeper("new")
    async with serving(door.handle) as url, connect(url, "x", token=away, timings=QUICK) as client:
        await until(client, "sync")


async def test_nor_is_one_that_fails_just_when_a_newer_token_is_needed() -> None:
    tokens: list[str | None] = ["old", None, None, "new"]

    def shaky() -> str:
        token = tokens.pop(0) if len(tokens) > 1 else tokens[0]
        if token is None:
            raise TimeoutError
        return token

    door = Doorkeeper("new", code=ErrorCode.UNAUTHORIZED)
    way: dict[str, Any] = {"token": shaky, "transport": "sse", "timings": QUICK}
    async with serving(door.handle) as url, connect(url, "x", **way) as client:
        await until(client, "sync")


@pytest.mark.parametrize("token", ["two words", "new\nline", "é", "\x7f"])
async def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    door = Doorkeeper(token)
    async with serving(door.handle) as url:
        with pytest.raises(ValueError, match="visible ASCII characters only") as caught:
            async with connect(url, "x", token=token):
                pass
        assert token not in str(caught.value)
