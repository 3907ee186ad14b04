"""How stored commands are answered: a new one's effect, a repeat's stored reply, or why nothing was changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NoReturn
from uuid import UUID

import asyncpg
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from storage.claims import Claim, claims_of
from storage.commits import Committed, committed
from storage.log import NewEvent
from storage.pool import Database, columns

__all__ = ["CommandHead", "Replies", "Reply", "StaleError", "event_columns"]


class CommandHead(Struct, frozen=True, kw_only=True):
    """What every command says of itself: who sends it, under which id, with which body, when, and over what.

    `worker_id` is the process that handles it: waiting turns that the command sets going are claimed for it.
    """

    session_id: UUID
    owner: str
    command_id: str
    body_hash: bytes
    user_id: str
    client_id: str | None
    n: int | None
    now: datetime
    worker_id: UUID
    transport: str


class Reply(Struct, frozen=True, kw_only=True):
    """What a stored command is answered with; `commit` is None for a repeat, whose events were shown before.

    `claims` are turns that waited and that the command set going: they belong to the command's worker now.
    """

    status: str
    seq: int
    message_id: UUID | None
    turn_id: UUID | None
    commit: Committed | None
    claims: list[Claim] = []


class StaleError(Exception):
    """The statement changed nothing because what it was prepared from has changed; prepare it again from this."""

    def __init__(self, current_agent: str, active_turn: UUID | None) -> None:
        super().__init__(f"agent {current_agent}, turn {active_turn}")
        self.current_agent = current_agent
        self.active_turn = active_turn


#: What the statements call their refusals, and what the client is told.
_REFUSALS: Final = {
    "busy": (ErrorCode.BUSY, "a turn is running and the message asked to be refused then", "$.on_busy"),
    "queue_full": (ErrorCode.QUEUE_FULL, "as many messages wait for this session as may", None),
    "no_active_turn": (ErrorCode.NO_ACTIVE_TURN, "no turn is running", None),
    "not_waiting": (ErrorCode.NOT_FOUND, "no such message is waiting", "$.remove"),
    "not_the_queue": (ErrorCode.CONFLICT, "the order must name each waiting message once", "$.order"),
    "no_call": (ErrorCode.NOT_FOUND, "there is no such call on this session", "$.call_id"),
    "no_approval": (ErrorCode.NOT_FOUND, "nobody was asked about this call", "$.call_id"),
    "undecided": (ErrorCode.FORBIDDEN, "the call waits for a decision and runs nowhere yet", "$.call_id"),
    "not_a_clients": (ErrorCode.FORBIDDEN, "the server runs this call itself", "$.call_id"),
    "anothers": (ErrorCode.FORBIDDEN, "another client has this call", "$.call_id"),
    "expired": (ErrorCode.ALREADY_RESOLVED, "the time to decide about this call is over", "$.call_id"),
}
#: A snapshot older than the wait for the session: the same again, once nobody else can write to it.
_BEHIND: Final = "behind"
_RESOLVED: Final = "resolved"


class Replies:
    """Runs the statements of commands and says what came of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def new(self, name: str, head: CommandHead, *arguments: Any) -> asyncpg.Record | None:
        """Run a statement that does nothing but for a command that is new."""
        try:
            return await self._database.fetchrow(
                name,
                head.session_id,
                head.owner,
                head.client_id,
                head.command_id,
                head.body_hash,
                head.user_id,
                head.now,
                *arguments,
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "commands_take_effect_once":
                raise
            # Another process stored it while this one waited for the session.
            return None

    async def run(self, name: str, head: CommandHead, *arguments: Any) -> asyncpg.Record:
        """Run a statement that decides. Raises ParleyError when there is no such session."""
        statement = (
            name,
            head.session_id,
            head.owner,
            head.client_id,
            head.n,
            head.command_id,
            head.body_hash,
            head.user_id,
            head.now,
            *arguments,
        )
        row = await self._database.fetchrow(*statement)
        if row is not None and row["refusal"] == _BEHIND:
            _, row = await self._database.together(("lock_session", head.session_id, head.owner), statement)
        if row is None:
            await self._explain_absence(head)
        return row

    async def _explain_absence(self, head: CommandHead) -> NoReturn:
        found = await self._database.fetchrow("session_by_id", head.owner, head.session_id)
        if found is not None and found["deleted_at"] is not None:
            raise ParleyError(ErrorCode.SESSION_GONE, "the session was deleted", id=head.command_id)
        raise ParleyError(ErrorCode.NOT_FOUND, "there is no such session", id=head.command_id)

    async def reply(self, head: CommandHead, row: asyncpg.Record, events: Sequence[NewEvent]) -> Reply:
        """What a statement that decides came to. Raises ParleyError, StaleError."""
        if row["fresh"]:
            return Reply(
                status=row["status"],
                seq=row["first_seq"],
                message_id=row["message_id"],
                turn_id=row["turn_id"],
                commit=committed(head.session_id, row["epoch"], row["seq"], head.now, events),
                claims=claims_of(row.get("claims") or ()),
            )
        if row["first_seq"] is not None:
            return _repeated(head, row)
        # Refused. An earlier delivery may have been accepted all the same (the first of two on_busy=reject made the
        # session busy), and only a statement that begins now is sure to see it.
        stored = await self._database.fetchrow("find_command", head.session_id, head.command_id)
        if stored is not None:
            return _repeated(head, stored)
        raise _refused(head, row)


def begun_reply(
    status: str,
    head: CommandHead,
    row: asyncpg.Record,
    ids: tuple[UUID, UUID | None],
    events: Sequence[NewEvent],
) -> Reply:
    """What a statement that does nothing but for new commands came to; `ids` of the message, and of its turn."""
    seq = row["seq"]
    commit = committed(head.session_id, row["epoch"], seq, head.now, events)
    return Reply(status=status, seq=seq + 1, message_id=ids[0], turn_id=ids[1], commit=commit)


def _repeated(head: CommandHead, row: asyncpg.Record) -> Reply:
    if row["body_hash"] != head.body_hash:
        raise ParleyError(
            ErrorCode.CONFLICT, "this id was used before, with another body", path="$.id", id=head.command_id
        )
    return Reply(
        status=row["status"], seq=row["first_seq"], message_id=row["message_id"], turn_id=row["turn_id"], commit=None
    )


def _refused(head: CommandHead, row: asyncpg.Record) -> Exception:
    refusal = row["refusal"]
    if refusal == "stale":
        return StaleError(row["current_agent"], row["active_turn"])
    if refusal == _RESOLVED:
        by = f", by {row['settled_by']}" if row["settled_by"] is not None else ""
        return ParleyError(
            ErrorCode.ALREADY_RESOLVED,
            f"the call is {row['settled']} already{by}",
            path="$.call_id",
            id=head.command_id,
        )
    if refusal is None:
        return ParleyError(
            ErrorCode.OUT_OF_ORDER, "the number does not follow the client's last one", path="$.n", id=head.command_id
        )
    code, message, path = _REFUSALS[refusal]
    retry_after = 1.0 if code is ErrorCode.QUEUE_FULL else None
    return ParleyError(code, message, path=path, retry_after=retry_after, id=head.command_id)


def event_columns(events: Sequence[NewEvent]) -> list[list[Any]]:
    """Events as the two columns that the statements take."""
    return columns([(event.event_type, event.body) for event in events], 2)
