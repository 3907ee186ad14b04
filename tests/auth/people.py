"""A server with users on it, and what each of them asks it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, cast

import aiohttp
import pytest

from server.config import AuthSettings, TokenSettings
from tests.support.server import MakeServer, RunningServer

#: Each user's token.
TOKENS = {name: f"{name}-has-a-token-of-his-own" for name in ("ada", "bob", "eve")}
#: One of ada's that is for reading.
READING = "ada-has-another-for-reading"


class Person:
    """Somebody who asks a server in his own name; what he brings is in `client`."""

    def __init__(self, server: RunningServer, token: str | None) -> None:
        self.server = server
        self.token = token
        self.url = server.url
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self.client = aiohttp.ClientSession(server.url, headers=headers, cookie_jar=aiohttp.DummyCookieJar())

    @property
    def as_server(self) -> RunningServer:
        """For clients of tests that want a server to ask: this one, in the person's name."""
        return cast("RunningServer", self)

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """One request; its status, and its body if that is JSON."""
        async with self.client.request(method, path, **options) as response:
            text = await response.text()
            return response.status, json.loads(text) if "json" in response.content_type else text

    async def code(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """Status and code of a refusal."""
        status, problem = await self.ask(method, path, **options)
        return status, problem["code"]

    async def session(self, **body: Any) -> str:
        """A new session's id."""
        status, made = await self.ask("POST", "/sessions", json=body)
        assert status == 201, made
        return str(made["id"])

    async def share(self, session: str, user: str, role: str) -> None:
        """Make a user a member."""
        status, member = await self.ask("PUT", f"/sessions/{session}/members/{user}", json={"role": role})
        assert (status, member["role"]) == (200, role)

    async def ticket(self, session: str | None = None, origin: str | None = None) -> str:
        """A new ticket."""
        headers = {} if origin is None else {"Origin": origin}
        body = {} if session is None else {"session_id": session}
        status, answer = await self.ask("POST", "/auth/tickets", json=body, headers=headers)
        assert status == 201, answer
        return str(answer["ticket"])


People = Callable[..., Awaitable[list[Person]]]


def auth(expires: datetime | None = None) -> AuthSettings:
    """The tokens of all of them; ada's ends. Logins last five minutes."""
    return AuthSettings(
        login_lifetime=300.0,
        tokens=(
            TokenSettings(user="ada", token=TOKENS["ada"], expires=expires),
            TokenSettings(user="ada", token=READING, scope="read"),
            *(TokenSettings(user=name, token=TOKENS[name]) for name in ("bob", "eve")),
        ),
    )


@pytest.fixture
async def people(make_server: MakeServer) -> AsyncIterator[People]:
    """`await people(expires=..., **options)`: ada, bob, eve, and a stranger, on a server of their own."""
    async with AsyncExitStack() as stack:

        async def start(expires: datetime | None = None, **options: Any) -> list[Person]:
            server = await make_server(auth=auth(expires), **options)
            everybody = [Person(server, token) for token in (*TOKENS.values(), None)]
            for person in everybody:
                stack.push_async_callback(person.client.close)
            return everybody

        yield start
