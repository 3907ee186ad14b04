"""Who is on which session, on all processes (`sql/queries/presence.sql`). A crash may empty the table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct

from storage.pool import Database, columns

__all__ = ["Arrival", "Arrived", "Departed", "Mine", "PresenceTable", "Present", "Registered", "Tools"]


class Arrival(Struct, frozen=True):
    """A client that is at this process."""

    session_id: UUID
    client_id: str
    user_id: str
    role: str
    transport: str


class Tools(Struct, frozen=True):
    """What a client has registered, as it was encoded, and when."""

    session_id: UUID
    client_id: str
    tools_at: datetime
    tools: bytes
    names: tuple[str, ...]


class Arrived(Struct, frozen=True, kw_only=True):
    """What became of an arrival.

    `here`: the client was on the session before, at some process. `taken`: another user has its name there, and nothing
    was written. `clients` were on the session before. `awaited`: calls of clients are open there. `tools` are those
    that it registered a short while ago.
    """

    session_id: UUID
    client_id: str
    role: str
    transport: str
    here: bool
    taken: bool
    clients: int
    awaited: bool
    tools: Tools | None
    names: tuple[str, ...]


class Departed(Struct, frozen=True, kw_only=True):
    """A client that has left a process; `here`: it is still on the session at another. `clients` are left there."""

    session_id: UUID
    client_id: str
    role: str
    transport: str
    names: tuple[str, ...]
    here: bool
    clients: int
    awaited: bool


class Present(Struct, frozen=True, kw_only=True):
    """A client that is on a session, or, if not `here`, left it a moment ago."""

    session_id: UUID
    client_id: str
    user_id: str
    role: str
    transport: str
    names: tuple[str, ...]
    here: bool


class Registered(Struct, frozen=True, kw_only=True):
    """Tools were registered: where the client is, and how many clients are on the session."""

    role: str
    transport: str
    tools_at: datetime
    clients: int


class Mine(Struct, frozen=True):
    """What the table has of one process: how many clients, and when the last of them registered tools."""

    clients: int
    tools_at: datetime | None


class PresenceTable:
    """Reads and writes presence. All raise ParleyError(UNAVAILABLE). Times go by the database's clock."""

    def __init__(self, database: Database, worker_id: UUID, grace: float) -> None:
        self._database = database
        self._worker_id = worker_id
        #: How long who left is remembered, in seconds.
        self._grace = grace

    async def join(self, arrivals: Sequence[Arrival]) -> list[Arrived]:
        """These clients are at this process, each once."""
        ordered = sorted(arrivals, key=lambda one: (one.session_id, one.client_id))
        asked = columns([(one.session_id, one.client_id, one.user_id, one.role, one.transport) for one in ordered], 5)
        rows = await self._database.fetch("presence_join", self._worker_id, *asked, self._grace)
        return [
            Arrived(tools=_tools(row) if row["tools_at"] is not None else None, **_fields(Arrived, row)) for row in rows
        ]

    async def leave(self, clients: Sequence[tuple[UUID, str]]) -> list[Departed]:
        """These clients are at this process no longer; those that were."""
        rows = await self._database.fetch("presence_leave", self._worker_id, *columns(sorted(clients), 2))
        return [Departed(**_fields(Departed, row)) for row in rows]

    async def bury(self, limit: int = 1_000) -> list[Departed]:
        """The clients of processes that are gone have left; each is reported to one process alone."""
        return [Departed(**_fields(Departed, row)) for row in await self._database.fetch("presence_bury", limit)]

    async def purge(self) -> None:
        """Forget who left longer than the grace ago."""
        await self._database.execute("presence_purge", self._grace)

    async def mine(self) -> Mine:
        """What the table has of this process."""
        row = await self._database.fetchrow("presence_mine", self._worker_id)
        assert row is not None, "a count is one row"
        return Mine(*row)

    async def my_tools(self, after: datetime | None) -> list[Tools]:
        """Tools of clients at this process, registered after a moment."""
        rows = await self._database.fetch("presence_my_tools", self._worker_id, after)
        return [_tools(row) for row in rows if row["tools_at"] is not None]

    async def register(
        self, session_id: UUID, client_id: str, user_id: str, tools: bytes, names: Sequence[str]
    ) -> Registered | None:
        """The client offers these tools; None when it is at no process, or has another user."""
        row = await self._database.fetchrow("presence_register", session_id, client_id, user_id, tools, list(names))
        return None if row is None else Registered(**_fields(Registered, row))

    async def here(self, session_ids: Sequence[UUID]) -> list[Present]:
        """Who is on the sessions, or was a moment ago, each client once."""
        rows = await self._database.fetch("presence_here", list(session_ids), self._grace)
        return [Present(**_fields(Present, row)) for row in rows]

    async def offers(self, session_id: UUID) -> list[tuple[str, datetime, bytes]]:
        """Who offers tools on the session, at whatever process: client, when registered, tools; the latest first."""
        return [tuple(row) for row in await self._database.fetch("presence_offers", session_id)]


def _tools(row: Any) -> Tools:
    return Tools(row["session_id"], row["client_id"], row["tools_at"], row["tools"], tuple(row["names"]))


def _fields(kind: type[Struct], row: Any) -> dict[str, Any]:
    fields = {name: row[name] for name in kind.__struct_fields__ if name != "tools"}
    if "names" in fields:
        fields["names"] = tuple(fields["names"])
    return fields
