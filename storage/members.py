"""Who may use a session that is not theirs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal, TypeAlias
from uuid import UUID

import asyncpg
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.parts import SessionRole
from storage.pool import Database

__all__ = ["Member", "MemberRole", "Members"]

#: What a member may be; the owner is none.
MemberRole: TypeAlias = Literal["controller", "observer"]

#: Members of one session.
_MOST: Final = 100


class Member(Struct, frozen=True, kw_only=True):
    """A user who may use the session."""

    user_id: str
    role: MemberRole
    added_by: str
    added_at: datetime


class Members:
    """The members of sessions. Whether somebody may change them, callers have asked before."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, session_id: UUID) -> list[Member]:
        """A session's members, in the order of their names."""
        return [_member(row) for row in await self._database.fetch("members", session_id)]

    async def put(
        self, session_id: UUID, user_id: str, role: MemberRole, *, by: str, now: datetime
    ) -> tuple[Member, MemberRole | None]:
        """Make a user a member, or change his role; with the role that he had before.

        Raises ParleyError LIMIT_REACHED when the session has as many members as it may.
        """
        row = await self._database.fetchrow("put_member", session_id, user_id, role, by, now, _MOST)
        if row is None:
            raise ParleyError(ErrorCode.LIMIT_REACHED, f"a session has at most {_MOST} members")
        return _member(row), row["before"]

    async def remove(self, session_id: UUID, user_id: str) -> bool:
        """Take a member out; False when he was none."""
        return await self._database.fetchrow("remove_member", session_id, user_id) is not None

    async def role(self, user_id: str, session_id: UUID) -> SessionRole | None:
        """What the user is in the session now; None for a stranger, or when it was deleted."""
        row = await self._database.fetchrow("role_in_session", user_id, session_id)
        return None if row is None else row["role"]

    async def roles(self, session_ids: Sequence[UUID]) -> dict[tuple[UUID, str], SessionRole]:
        """The roles of all members of some sessions, by session and user."""
        rows = await self._database.fetch("memberships", list(session_ids))
        return {(row["session_id"], row["user_id"]): row["role"] for row in rows}


def _member(row: asyncpg.Record) -> Member:
    return Member(user_id=row["user_id"], role=row["role"], added_by=row["added_by"], added_at=row["added_at"])
