"""What people are asked to decide, and the rules that they made of their decisions (`sql/queries/approvals.sql`)."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
from msgspec import Struct

from storage.pool import Database

__all__ = ["ApprovalRow", "Approvals", "OpenApprovalRow", "RuleRow", "Rules"]

#: Rules that one read returns: more than anybody makes by hand.
_MOST_RULES = 1000


class OpenApprovalRow(Struct, frozen=True, kw_only=True):
    """An approval that nobody has decided: all that `approval_required` tells, and where it belongs."""

    approval_id: UUID
    session_id: UUID
    owner: str
    turn_id: UUID
    call_id: UUID
    message_id: UUID
    agent_type: str
    name: str
    arguments: str
    arguments_hash: bytes
    allowed_decisions: tuple[str, ...]
    rule: str | None
    reason: str | None
    parameters: bytes | None
    created_at: datetime
    expires_at: datetime | None


class ApprovalRow(Struct, frozen=True, kw_only=True):
    """An approval, decided or not; `final_arguments` are what a person made of the arguments."""

    approval_id: UUID
    session_id: UUID
    owner: str
    turn_id: UUID
    call_id: UUID
    agent_type: str
    name: str
    arguments: str
    final_arguments: str | None
    arguments_hash: bytes
    allowed_decisions: tuple[str, ...]
    rule: str | None
    reason: str | None
    parameters: bytes | None
    created_at: datetime
    expires_at: datetime | None
    state: str
    decided_at: datetime | None
    decided_by: str | None
    client_id: str | None
    feedback: str | None


class RuleRow(Struct, frozen=True, kw_only=True):
    """A standing permission or refusal; `arguments` maps an argument to a glob, as JSON."""

    rule_id: UUID
    owner: str
    session_id: UUID | None
    scope: str
    tool: str
    arguments: bytes | None
    effect: str
    created_at: datetime
    created_by: str
    call_id: UUID | None


class Approvals:
    """Reads what people are asked to decide, and what they decided."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, approval_id: UUID) -> ApprovalRow | None:
        """One approval, decided or not; whether the asker may know of it, its session says."""
        row = await self._database.fetchrow("find_approval", approval_id)
        return None if row is None else ApprovalRow(**_fields(row))

    async def open(self, session_id: UUID) -> list[OpenApprovalRow]:
        """The open approvals of a session, the oldest first."""
        return [_approval(row) for row in await self._database.fetch("open_approvals", session_id)]

    async def open_of_owner(self, owner: str, limit: int, after: UUID | None = None) -> list[OpenApprovalRow]:
        """A page of the open approvals of all sessions of an owner, the oldest first, after the one named."""
        rows = await self._database.fetch("open_approvals_of_owner", owner, limit, after)
        return [_approval(row) for row in rows]


class Rules:
    """The rules of owners. They are made by decisions (`Commands.decide`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def in_force(self, owner: str, session_id: UUID) -> list[RuleRow]:
        """Those that hold in a session, the oldest first: its own, and its owner's for all his sessions."""
        return [RuleRow(**row) for row in await self._database.fetch("rules_in_force", owner, session_id, _MOST_RULES)]

    async def list(self, owner: str, session_id: UUID | None = None) -> list[RuleRow]:
        """All of an owner that were not revoked, the oldest first; or those made for one session alone."""
        return [RuleRow(**row) for row in await self._database.fetch("list_rules", owner, session_id, _MOST_RULES)]

    async def revoke(self, owner: str, rule_id: UUID, by: str, now: datetime) -> bool:
        """End a rule, and note who did; False when the owner has no such rule, or it was revoked before."""
        return await self._database.fetchrow("revoke_rule", owner, rule_id, by, now) is not None


def _approval(row: asyncpg.Record) -> OpenApprovalRow:
    return OpenApprovalRow(**_fields(row))


def _fields(row: asyncpg.Record) -> dict[str, Any]:
    return {**row, "allowed_decisions": tuple(row["allowed_decisions"])}
