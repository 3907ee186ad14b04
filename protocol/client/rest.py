"""A server's sessions, histories and agents: what is asked once and answered once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from msgspec import Struct

from protocol.client import settings
from protocol.client.http import Http, Token, path_of
from protocol.client.reports import (
    Approval,
    ApprovalPage,
    Branch,
    Grouping,
    Policies,
    TurnPage,
    UsageReport,
)
from protocol.client.settings import Timings
from protocol.client.speaking import Remembered, rule_of
from protocol.client.views import (
    AgentInfo,
    CreatedSession,
    Health,
    HistoryMessage,
    HistoryPage,
    SessionInfo,
    SessionPage,
)
from protocol.commands import Decision

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
        body = _given(session_id=session_id, title=title, agent_type=agent_type)
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

    async def update_session(
        self, session: UUID | str, *, title: str | None = None, description: str | None = None
    ) -> SessionInfo:
        """Give a session another title or description; an empty description takes it away."""
        return await self._http.request(
            "PATCH", path_of(session), SessionInfo, body=_given(title=title, description=description)
        )

    # --- approvals and rules

    async def approvals(self, *, after: str | None = None, limit: int = 100) -> ApprovalPage:
        """A page of the calls that wait for a decision in all your sessions, the oldest first."""
        query = {"limit": str(limit)} | ({} if after is None else {"after": after})
        return await self._http.request("GET", "/approvals", ApprovalPage, query=query)

    async def approval(self, approval_id: UUID) -> Approval:
        """One of them, decided or not."""
        return await self._http.request("GET", f"/approvals/{approval_id}", Approval)

    async def decide(
        self,
        approval_id: UUID,
        decision: Decision,
        *,
        modified_arguments: Mapping[str, Any] | None = None,
        feedback: str | None = None,
        remember: Remembered | None = None,
    ) -> Approval:
        """Decide about one, as `Client.approve`, `edit`, `reject` and `respond` do.

        Raises ParleyError: ALREADY_RESOLVED when somebody was quicker, NOT_A_DECISION where it does not allow this one.
        """
        body = _given(
            decision=decision, modified_arguments=modified_arguments, feedback=feedback, remember=rule_of(remember)
        )
        return await self._http.request("POST", f"/approvals/{approval_id}/decision", Approval, body=body)

    async def policies(self, session: UUID | str | None = None) -> Policies:
        """What runs without asking, asks, or is refused; of one session with a `session`."""
        query = {} if session is None else {"session_id": str(session)}
        return await self._http.request("GET", "/policies", Policies, query=query)

    async def revoke(self, rule_id: UUID) -> None:
        """Revoke a rule that was made of a decision."""
        await self._http.request("DELETE", f"/policies/{rule_id}", object)

    # --- branches: what was said is never changed, but a copy may go on otherwise

    async def fork(
        self,
        session: UUID | str,
        at: str | int | UUID | None = None,
        *,
        session_id: str | None = None,
        title: str | None = None,
    ) -> Branch:
        """Copy a conversation into a new session, up to and with a cursor, a number, a message, or all of it."""
        name = {int: "seq", str: "cursor", UUID: "message_id"}.get(type(at), "cursor")
        body = _given(session_id=session_id, title=title, **{name: at})
        return await self._http.request("POST", path_of(session, "fork"), Branch, body=body)

    async def retry(self, session: UUID | str, *, session_id: str | None = None, title: str | None = None) -> Branch:
        """Fork before the last message of a user's, and send that again there."""
        body = _given(session_id=session_id, title=title)
        return await self._http.request("POST", path_of(session, "retry"), Branch, body=body)

    async def edit(
        self,
        session: UUID | str,
        message_id: UUID,
        content: str,
        *,
        session_id: str | None = None,
        title: str | None = None,
    ) -> Branch:
        """Fork before a message of a user's, and say something else in its place there."""
        body = _given(content=content, session_id=session_id, title=title)
        return await self._http.request("POST", path_of(session, f"messages/{message_id}/edit"), Branch, body=body)

    # --- what it took

    async def turns(self, session: UUID | str, *, after: str = "0", limit: int = 100) -> TurnPage:
        """A page of a session's turns with what each of them took; go on with `after=page.next`."""
        query = {"after": after, "limit": str(limit)}
        return await self._http.request("GET", path_of(session, "turns"), TurnPage, query=query)

    async def usage(
        self,
        session: UUID | str | None = None,
        *,
        by: Grouping = "day",
        since: str | None = None,
        until: str | None = None,
    ) -> UsageReport:
        """What you used in all your sessions, or in one: tokens, money, time. `since` and `until` are RFC 3339."""
        path = "/usage" if session is None else path_of(session, "usage")
        return await self._http.request("GET", path, UsageReport, query=_given(by=by, since=since, until=until))


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


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
