"""A server's sessions, histories and agents: what is asked once and answered once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self
from uuid import UUID

from msgspec import Struct

from protocol.client import settings
from protocol.client.http import Http, Token, path_of
from protocol.client.settings import Timings
from protocol.client.views import (
    AgentInfo,
    CreatedSession,
    Health,
    HistoryMessage,
    HistoryPage,
    SessionInfo,
    SessionPage,
)

__all__ = ["Server", "create_session"]


class _AgentList(Struct):
    agents: list[AgentInfo]


class Server:
    """A server, used as an async context manager. For what happens in one session while it happens, `connect`.

        async with Server("http://127.0.0.1:8080") as server:
            for session in (await server.sessions(limit=10)).sessions:
                print(session.id, session.title)

    `token` may be a function, also an async one, that returns the newest token. A session is named by its id or by
    your own name for it. Every method raises ParleyError when the server refuses and ConnectionError when nobody
    answers, with the reason in words. Raises ValueError for an unusable address.
    """

    def __init__(self, url: str, token: Token | None = None, *, timings: Timings | None = None) -> None:
        self._http = Http(url, token, timings or settings.DEFAULT)

    @classmethod
    def over(cls, http: Http) -> Self:
        """The same over connections that somebody else opens and closes."""
        server = cls.__new__(cls)
        server._http = http
        return server

    @property
    def url(self) -> str:
        """Its address."""
        return self._http.url

    async def __aenter__(self) -> Self:
        self._http.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections. May be called again."""
        await self._http.close()

    async def health(self) -> Health:
        """Whether it answers at all, and which version it is; needs no token."""
        return await self._http.request("GET", "/health", Health)

    async def agents(self) -> list[AgentInfo]:
        """The agents that can be talked to, in the order in which people should see them."""
        return (await self._http.request("GET", "/agents", _AgentList)).agents

    async def sessions(
        self, q: str | None = None, *, limit: int = 100, offset: int = 0, active_only: bool = True
    ) -> SessionPage:
        """Your sessions, the last used first; with `q` only those that it is found in."""
        query = {"limit": str(limit), "offset": str(offset), "active_only": "true" if active_only else "false"}
        if q:
            query["q"] = q
        return await self._http.request("GET", "/sessions", SessionPage, query=query)

    async def session(self, session: UUID | str) -> SessionInfo:
        """One session. Raises ParleyError: NOT_FOUND, or SESSION_GONE when it was deleted."""
        return await self._http.request("GET", path_of(session), SessionInfo)

    async def create_session(
        self, session_id: str | None = None, *, title: str | None = None, agent_type: str | None = None
    ) -> CreatedSession:
        """Make a session; `session_id` is your own name for it.

        Raises ParleyError, CONFLICT when you have that name already.
        """
        given = {"session_id": session_id, "title": title, "agent_type": agent_type}
        body = {name: value for name, value in given.items() if value is not None}
        return await self._http.request("POST", "/sessions", CreatedSession, body=body)

    async def delete_session(self, session: UUID | str) -> None:
        """Delete a session for good; whoever is connected to it is disconnected."""
        await self._http.request("DELETE", path_of(session), object)

    async def history(self, session: UUID | str, *, after: str = "0", limit: int = 100) -> HistoryPage:
        """A page of a session's messages, oldest first; go on with `after=page.next` until that is None."""
        query = {"after": after, "limit": str(limit)}
        return await self._http.request("GET", path_of(session, "history"), HistoryPage, query=query)

    async def messages(self, session: UUID | str, *, after: str = "0") -> AsyncIterator[HistoryMessage]:
        """All of a session's messages, oldest first, page by page."""
        following: str | None = after
        while following is not None:
            page = await self.history(session, after=following, limit=1000)
            for message in page.messages:
                yield message
            following = page.next if page.next != following else None


async def create_session(
    url: str,
    session_id: str | None = None,
    *,
    title: str | None = None,
    agent_type: str | None = None,
    token: Token | None = None,
) -> CreatedSession:
    """Make a session; `session_id` is your own name for it.

    The short form of `Server.create_session`, and raises the same.
    """
    async with Server(url, token) as server:
        return await server.create_session(session_id, title=title, agent_type=agent_type)
