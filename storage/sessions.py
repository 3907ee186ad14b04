"""Sessions: made, found by their owner, listed, deleted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple, TypedDict, Unpack
from uuid import UUID

import asyncpg
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias
from protocol.parts import SessionRole
from storage.commits import Committed, committed
from storage.ids import as_uuid, new_epoch, new_id
from storage.log import NewEvent
from storage.pool import Database

__all__ = ["FoundSession", "FoundSessions", "Match", "Session", "SessionFields", "Sessions"]

#: How much text one search reads, the newest first: it must stay a fraction of a second for an owner of any size.
_SEARCHED_MESSAGES: Final = 20_000
_SEARCHED_BYTES: Final = 32 << 20
#: Characters of an id that a search must hold to find sessions by it: fewer are the same in all ids of a month.
_ID_PREFIX: Final = 8


class Session(Struct, frozen=True, kw_only=True):
    """A session as it was when it was read; `seq` is the number of its last event, `queued` how many messages wait.

    `thread_agent` is the agent whose thread it is, `forked_from` the session that its first messages were copied from,
    as they were at that one's event `forked_at`. `role` is what the user is in it for whom it was read.
    """

    session_id: UUID
    owner: str
    alias: str | None
    epoch: str
    seq: int
    title: str | None
    description: str | None
    current_agent: str
    active_turn: UUID | None
    queued: int
    message_count: int
    created_at: datetime
    last_activity: datetime
    is_active: bool
    role: SessionRole = "owner"
    project_id: UUID | None = None
    thread_agent: str | None = None
    forked_from: UUID | None = None
    forked_at: int | None = None


class Match(Struct, frozen=True, kw_only=True):
    """Where a search found its text in a session.

    `field` is `title`, `alias`, `id` or `message`. In a message it says in which, the newest that holds the text, and
    cuts out what stands around it; an ellipsis marks where something was cut off.
    """

    field: str
    message_id: UUID | None = None
    role: str | None = None
    excerpt: str | None = None


class SessionFields(TypedDict, total=False):
    """What a new session may have: the owner's own name for it, a title, and where it belongs."""

    alias: str | None
    title: str | None
    project_id: UUID | None
    thread_agent: str | None


class FoundSession(NamedTuple):
    """A session, and where the text was found in it."""

    session: Session
    match: Match


class FoundSessions(NamedTuple):
    """A page of what was found, how many sessions there are in all, and whether all messages were looked at."""

    page: list[FoundSession]
    total: int
    complete: bool


def _session(row: asyncpg.Record) -> Session:
    return Session(
        session_id=row["session_id"],
        owner=row["owner"],
        alias=row["alias"],
        epoch=row["epoch"],
        seq=row["seq"],
        title=row["title"],
        description=row["description"],
        current_agent=row["current_agent"],
        active_turn=row["active_turn"],
        queued=row["queued"],
        message_count=row["message_count"],
        created_at=row["created_at"],
        last_activity=row["last_activity"],
        is_active=row["deleted_at"] is None,
        role=row.get("session_role", "owner"),
        project_id=row["project_id"],
        thread_agent=row["thread_agent"],
        forked_from=row["forked_from"],
        forked_at=row["forked_at"],
    )


class Sessions:
    """The sessions in one database. For a user there are his own, and those that he is a member of."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, owner: str, *, agent: str, now: datetime, most: int | None = None, **given: Unpack[SessionFields]
    ) -> Session:
        """A new session; `most` is how many the owner may have that are not deleted.

        Raises ParleyError: INVALID for a bad alias, CONFLICT when the owner has used it before, LIMIT_REACHED.
        """
        alias = given.get("alias")
        thread_agent = given.get("thread_agent")
        if alias is not None:
            parse_alias(alias)
        if alias is not None and thread_agent is not None:
            alias = _thread_alias(thread_agent, alias)
        elif alias is not None:
            own_id = as_uuid(alias)
            if own_id is not None and await self._database.fetchrow("session_by_id", owner, own_id) is not None:
                raise ParleyError(ErrorCode.CONFLICT, f"{alias!r} is the id of another session of yours")
        try:
            row = await self._database.fetchrow(
                "create_session",
                *(new_id(), owner, new_epoch(), agent, given.get("title"), now, alias),
                *(given.get("project_id"), thread_agent, most),
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "session_aliases_are_unique":
                raise
            raise ParleyError(ErrorCode.CONFLICT, f"you have a session {alias!r} already") from error
        if row is None:
            raise ParleyError(ErrorCode.LIMIT_REACHED, f"you have as many sessions as you may ({most}); delete some")
        return _session(row)

    async def resolve(self, owner: str, reference: str) -> Session:
        """A session by its id, or by the alias that its owner gave it; others than its owner know its id only.

        Raises ParleyError NOT_FOUND, or SESSION_GONE when it was deleted.
        """
        session_id = as_uuid(reference)
        row = None
        if session_id is not None:
            row = await self._database.fetchrow("session_by_id", owner, session_id)
        if row is None:
            # An alias may look like a UUID, as many clients make theirs so; the server's own id comes first.
            row = await self._database.fetchrow("session_by_alias", owner, parse_alias(reference))
        if row is None:
            raise ParleyError(ErrorCode.NOT_FOUND, f"there is no session {reference!r}")
        if row["deleted_at"] is not None:
            raise ParleyError(ErrorCode.SESSION_GONE, f"the session {reference!r} was deleted")
        return _session(row)

    async def thread(self, owner: str, agent: str, thread: str) -> Session | None:
        """The session that is this thread of an agent, None when there is none. Raises ParleyError(SESSION_GONE)."""
        row = await self._database.fetchrow("session_by_alias", owner, _thread_alias(agent, parse_alias(thread)))
        if row is not None and row["deleted_at"] is not None:
            raise ParleyError(ErrorCode.SESSION_GONE, f"the thread {thread!r} was deleted")
        return None if row is None else _session(row)

    async def shared(self, user_id: str, *, limit: int, offset: int) -> tuple[list[Session], int]:
        """A page of others' sessions that the user is a member of, latest activity first, and how many there are."""
        rows = await self._database.fetch("shared_sessions", user_id, limit, offset)
        # One row at least, as the total is that of an empty page too.
        return [_session(row) for row in rows if row["session_id"] is not None], rows[0]["total"]

    async def list(
        self, owner: str, *, limit: int, offset: int, active_only: bool = True, project_id: UUID | None = None
    ) -> tuple[list[Session], int]:
        """A page of the owner's sessions, or of a project's, the latest activity first, and how many there are."""
        rows = await self._database.fetch("list_sessions", owner, limit, offset, active_only, project_id)
        if rows:
            return [_session(row) for row in rows], rows[0]["total"]
        counted = await self._database.fetchrow("count_sessions", owner, active_only, project_id)
        assert counted is not None, "a count is one row"
        return [], counted[0]

    async def search(
        self,
        owner: str,
        text: str,
        *,
        limit: int,
        offset: int,
        active_only: bool = True,
        project_id: UUID | None = None,
    ) -> FoundSessions:
        """A page of the owner's sessions, or of a project's, in which a text is found, the latest activity first.

        It is looked for literally, in upper or lower case (as the database's locale has it), in titles, aliases,
        messages, and, when it is long enough, at the start of ids. Titles, aliases and ids are looked at in all
        sessions; of the messages only the newest ones, so that a search takes no longer the more there are.
        """
        pattern = _escaped(text)
        id_pattern = f"{_escaped(text.lower())}%" if len(text) >= _ID_PREFIX else ""
        rows = await self._database.fetch(
            "search_sessions",
            *(owner, limit, offset, active_only, f"%{pattern}%", id_pattern, text),
            *(_SEARCHED_MESSAGES, _SEARCHED_BYTES, project_id),
        )
        # One row at least, as the totals are those of an empty page too.
        page = [FoundSession(_session(row), _match(row)) for row in rows if row["session_id"] is not None]
        return FoundSessions(page, rows[0]["total"], rows[0]["complete"])

    async def update(
        self, session: Session, *, title: str | None, description: str | None, event: NewEvent, now: datetime
    ) -> tuple[Session, Committed]:
        """Change what is given, and tell so by the event; an empty description takes it away.

        Raises ParleyError(SESSION_GONE). Callers hold the session's gate.
        """
        row = await self._database.fetchrow(
            "update_session",
            *(session.session_id, session.owner, title, description, now, event.event_type, event.body),
        )
        if row is None:
            raise ParleyError(ErrorCode.SESSION_GONE, "the session was deleted")
        return _session(row), committed(session.session_id, row["epoch"], row["seq"] - 1, now, [event])

    async def delete(self, session: Session, now: datetime) -> bool:
        """Empty the session for good and leave a tombstone; False when somebody did so before."""
        deleted, _ = await self._database.together(
            ("delete_session", session.owner, session.session_id, now), ("empty_session", session.session_id)
        )
        return deleted is not None

    async def heads(self, session_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The number of the last event of each of the sessions that exist."""
        return dict(await self._database.fetch("session_heads", list(session_ids)))  # type: ignore[arg-type]


def _thread_alias(agent: str, thread: str) -> str:
    """How a thread of an agent is called among its owner's sessions: as nothing can be called that has no agent."""
    return f"{agent}/{thread}"


def _escaped(text: str) -> str:
    """The text as a LIKE pattern that matches it and nothing else."""
    return re.sub(r"([\\%_])", r"\\\1", text)


def _match(row: asyncpg.Record) -> Match:
    if row["field"] != "message":
        return Match(field=row["field"])
    excerpt = "…" * row["cut_before"] + row["excerpt"] + "…" * row["cut_after"]
    return Match(field="message", message_id=row["message_id"], role=row["role"], excerpt=excerpt)
