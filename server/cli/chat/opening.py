"""Which session to talk in, and what was said in it before."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple
from uuid import UUID

from protocol.client import HistoryMessage, Server, SessionInfo
from protocol.cursor import Cursor, parse_cursor
from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias
from server.cli.connection import MisuseError
from server.cli.listing import name_of

__all__ = ["Opened", "latest_messages", "open_session"]

#: Events that a message comes with, about: its turn's beginning and end, a call and its result.
_EVENTS_A_MESSAGE: Final = 6


class Opened(NamedTuple):
    """A session to talk in; `after` is where its events go on, `note` how it came to be this one."""

    session: SessionInfo
    is_new: bool
    note: str

    @property
    def name(self) -> str:
        """What its user calls it."""
        return name_of(self.session)


async def open_session(server: Server, name: str | None, *, latest: bool = False, agent: str | None = None) -> Opened:
    """The session of this name, made if there is none; without a name the `latest`, or a new one.

    A session that is made gets the agent.

    Raises MisuseError for what can be no name, ParleyError when the server refuses: NOT_FOUND for an id that no session
    has, as nobody makes up an id.
    """
    if name is not None:
        return await _named(server, name, agent)
    if latest:
        page = await server.sessions(limit=1)
        if page.sessions:
            found = await server.session(page.sessions[0].id)
            return Opened(found, False, "your latest session")
    note = "a new session" if not latest else "a new session, as you have none yet"
    return await _made(server, None, agent, note)


async def _named(server: Server, name: str, agent: str | None) -> Opened:
    try:
        parse_alias(name)
    except ParleyError as error:
        raise MisuseError(f"SESSION: {error.message}") from None
    try:
        return Opened(await server.session(name), False, "")
    except ParleyError as error:
        if error.code is not ErrorCode.NOT_FOUND or _is_uuid(name):
            raise
    try:
        return await _made(server, name, agent, f"a new session; there was none called {name}")
    except ParleyError as refusal:
        if refusal.code is ErrorCode.UNKNOWN_AGENT:
            raise MisuseError(f"--agent: {refusal.message}") from None
        raise


async def _made(server: Server, name: str | None, agent: str | None, note: str) -> Opened:
    made = await server.create_session(name, agent_type=agent)
    return Opened(await server.session(made.id), True, note)


def _is_uuid(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


async def latest_messages(server: Server, session: SessionInfo, count: int) -> tuple[list[HistoryMessage], str]:
    """The newest messages, oldest first, and the cursor at which events go on after them."""
    if count <= 0 or not session.message_count:
        return [], session.cursor
    head = parse_cursor(session.cursor)
    last = head.seq if isinstance(head, Cursor) else head
    reach = count * _EVENTS_A_MESSAGE
    while True:
        first = max(last - reach, 0)
        messages: deque[HistoryMessage] = deque(maxlen=count)
        following: str | None = str(first)
        cursor = session.cursor
        while following is not None:
            page = await server.history(session.id, after=following, limit=1000)
            messages.extend(page.messages)
            following, cursor = (page.next if page.next != following else None), page.cursor
        if len(messages) == count or first == 0:
            return list(messages), cursor
        reach *= 4
