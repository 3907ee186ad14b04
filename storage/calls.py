"""Tool calls as clients and their presence see them: looked up, kept alive, given back (`sql/queries/calls.sql`)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NoReturn
from uuid import UUID

import asyncpg
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from storage.claims import Claim, claims_of
from storage.moves import CallState, Executor
from storage.pool import Database

__all__ = ["CallApproval", "CallRow", "Calls"]


class CallApproval(Struct, frozen=True, kw_only=True):
    """What a person was asked about a call, decided or not; `parameters` is the tool's JSON Schema, encoded."""

    approval_id: UUID
    state: str
    arguments_hash: bytes
    allowed_decisions: tuple[str, ...]
    expires_at: datetime | None
    rule: str | None
    reason: str | None
    parameters: bytes | None
    decided_by: str | None


class CallRow(Struct, frozen=True, kw_only=True):
    """A tool call with what its turn says about it.

    `thread` is the turn to which alone its messages belong, where that turn answers the call `parent_call`.
    `message_id` is the message that made the call, while its step is under way; else None.
    """

    call_id: UUID
    session_id: UUID
    turn_id: UUID
    step: int
    ordinal: int
    name: str
    arguments: str
    final_arguments: str | None
    executor: Executor
    state: CallState
    read_only: bool
    independent: bool
    client_id: str | None
    executors: tuple[str, ...]
    child_turn: UUID | None
    deadline: datetime | None
    release_at: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    owner: str
    agent_type: str
    message_id: UUID | None
    parent_call: UUID | None
    thread: UUID | None
    approval: CallApproval | None

    @property
    def effective_arguments(self) -> str:
        """What is run: the agent's arguments, or what a person made of them."""
        return self.arguments if self.final_arguments is None else self.final_arguments


class Calls:
    """The calls of sessions. Whatever changes one here raises its turn's news. All raise UNAVAILABLE."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, session_id: UUID, call_id: UUID) -> CallRow | None:
        """One call of a session."""
        row = await self._database.fetchrow("find_call", session_id, call_id)
        return _call(row) if row is not None else None

    async def of_session(self, session_id: UUID) -> list[CallRow]:
        """The calls of a session that have no result yet, in the order in which they were made."""
        return [_call(row) for row in await self._database.fetch("open_calls", session_id, None)]

    async def of_client(self, session_id: UUID, client_id: str) -> list[CallRow]:
        """Those that run at this client."""
        return [_call(row) for row in await self._database.fetch("open_calls", session_id, client_id)]

    async def progress(self, session_id: UUID, call_id: UUID, client_id: str, deadline: datetime) -> CallRow:
        """Move the deadline of a call that runs at this client.

        Raises ParleyError NOT_FOUND, ALREADY_RESOLVED, or FORBIDDEN when another client, or nobody, has it.
        """
        row = await self._database.fetchrow("call_progress", session_id, call_id, client_id, deadline)
        found = await self.find(session_id, call_id)
        if row is None:
            _refuse(found)
        assert found is not None, "what was updated is there; sessions are emptied whole"
        return found

    async def release(self, session_id: UUID, client_id: str, release_at: datetime) -> list[UUID]:
        """The client has left: what it runs is to be given to others at `release_at`. Returns the turns concerned."""
        rows = await self._database.fetch("release_calls", session_id, client_id, release_at)
        return [row[0] for row in rows]

    async def keep(self, session_id: UUID, client_id: str) -> list[UUID]:
        """The client is back: it keeps what it runs. Returns the turns concerned."""
        return [row[0] for row in await self._database.fetch("keep_calls", session_id, client_id)]

    async def release_of_dead(self, release_at: datetime, limit: int = 1000) -> list[UUID]:
        """Release what runs at clients that are on no live process, as if they had just left. Returns the turns."""
        return [row[0] for row in await self._database.fetch("release_calls_of_dead", release_at, limit)]

    async def claim_for_tools(self, worker_id: UUID, session_id: UUID, names: Collection[str]) -> list[Claim]:
        """Tools with these names are offered on the session: claim the waiting turns in which calls wait for them.

        Its turns that run get news, so that none of them parks without having looked who offers what.
        """
        arguments = (session_id, worker_id, list(names))
        row = await self._database.fetchrow("claim_for_tools", *arguments)
        if row is not None and row["behind"]:
            _, row = await self._database.together(("lock_any_session", session_id), ("claim_for_tools", *arguments))
        return claims_of(row["claims"]) if row is not None else []


def _refuse(found: CallRow | None) -> NoReturn:
    if found is None:
        raise ParleyError(ErrorCode.NOT_FOUND, "there is no such call on this session", path="$.call_id")
    if found.finished_at is not None:
        raise ParleyError(ErrorCode.ALREADY_RESOLVED, f"the call is {found.state} already", path="$.call_id")
    raise ParleyError(ErrorCode.FORBIDDEN, "this client does not have the call", path="$.call_id")


def _call(row: asyncpg.Record) -> CallRow:
    fields = dict(row)
    asked = {name: fields.pop(f"approval_{name}") for name in _APPROVAL}
    fields["executors"] = tuple(fields["executors"])
    approval_id = fields.pop("approval_id")
    approval = None
    if approval_id is not None:
        asked["allowed_decisions"] = tuple(asked["allowed_decisions"])
        approval = CallApproval(approval_id=approval_id, **asked)
    return CallRow(approval=approval, **fields)


_APPROVAL = (
    "state",
    "arguments_hash",
    "allowed_decisions",
    "expires_at",
    "rule",
    "reason",
    "parameters",
    "decided_by",
)
