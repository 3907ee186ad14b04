"""The commands of clients as statements: one transaction each, and one round trip (`sql/queries/commands.sql`).

Of a user message there are three: two for a new one in a session that is as its sender believes, which have nothing to
decide, and one for everything else, which decides it all under the session's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn
from uuid import UUID

import asyncpg
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from storage.commits import Committed, committed
from storage.log import NewEvent
from storage.pool import Database

__all__ = ["CommandHead", "Commands", "MessagePlan", "Reply", "StaleError", "TurnStart"]


class CommandHead(Struct, frozen=True, kw_only=True):
    """What every command says of itself: who sends it, under which id, with which body, when."""

    session_id: UUID
    owner: str
    command_id: str
    body_hash: bytes
    user_id: str
    client_id: str | None
    n: int | None
    now: datetime


class TurnStart(Struct, frozen=True, kw_only=True):
    """A turn that is about to begin: its ids, made beforehand, and its first events, encoded beforehand."""

    turn_id: UUID
    answer_id: UUID
    worker_id: UUID
    events: Sequence[NewEvent]


class MessagePlan(Struct, frozen=True, kw_only=True):
    """A user message, and what makes the rest of either outcome: `start` that of a turn, `waits` the event of a wait.

    `agent_is_default`: the agent was taken from the session, and must still be the session's when the turn begins.
    """

    message_id: UUID
    content: str
    title: str
    agent_type: str
    agent_is_default: bool
    start: Callable[[], TurnStart]
    waits: Callable[[], NewEvent]


class Reply(Struct, frozen=True, kw_only=True):
    """What a stored command is answered with; `commit` is None for a repeat, whose events were shown before."""

    status: str
    seq: int
    message_id: UUID | None
    turn_id: UUID | None
    commit: Committed | None


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
}


class Commands:
    """Stores commands. Every method: one statement; a repeat gets the stored reply, a refusal changes nothing.

    All raise ParleyError: NOT_FOUND, SESSION_GONE, CONFLICT (the id was used with another body), OUT_OF_ORDER, the
    refusals of the command, UNAVAILABLE when the database is away. Callers hold the session's gate.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user_message(
        self, head: CommandHead, plan: MessagePlan, *, seems_busy: bool, reject_when_busy: bool, most_waiting: int
    ) -> Reply:
        """Start a turn, or let the message wait. Raises StaleError when the session has another agent by now.

        `seems_busy` is the caller's guess: where it is right, the statement has nothing to decide and costs half as
        much; where it is wrong there is another trip, as for a repeat or a refusal.
        """
        if head.n is None and not (seems_busy and reject_when_busy):
            reply = await (self._queued(head, plan, most_waiting) if seems_busy else self._begun(head, plan))
            if reply is not None:
                return reply
        start, waits = plan.start(), [plan.waits()]
        row = await self._run(
            "user_message",
            head,
            plan.message_id,
            plan.content,
            plan.agent_type,
            plan.agent_is_default,
            start.turn_id,
            start.answer_id,
            start.worker_id,
            reject_when_busy,
            most_waiting,
            plan.title,
            *_columns(start.events),
            *_columns(waits),
        )
        return await self._reply(head, row, start.events if row["turn_id"] is not None else waits)

    async def cancel(self, head: CommandHead, turn_id: UUID, events: Sequence[NewEvent]) -> Reply:
        """Ask the turn to stop. Raises StaleError when another one is running."""
        return await self._reply(head, await self._run("cancel", head, *_columns(events), turn_id), events)

    async def switch_agent(self, head: CommandHead, agents: tuple[str, str], events: Sequence[NewEvent]) -> Reply:
        """Change the session's agent from the first to the second. Raises StaleError when it is another by now."""
        return await self._reply(head, await self._run("switch_agent", head, *_columns(events), *agents), events)

    async def remove_queued(self, head: CommandHead, message_id: UUID, events: Sequence[NewEvent]) -> Reply:
        """Take one waiting message back."""
        return await self._reply(head, await self._run("remove_queued", head, *_columns(events), message_id), events)

    async def reorder_queue(self, head: CommandHead, order: Sequence[UUID], events: Sequence[NewEvent]) -> Reply:
        """Put the waiting messages into another order."""
        return await self._reply(head, await self._run("reorder_queue", head, *_columns(events), list(order)), events)

    async def _begun(self, head: CommandHead, plan: MessagePlan) -> Reply | None:
        """Start a turn if the session is idle and the command new; None when anything is otherwise."""
        start = plan.start()
        row = await self._new(
            "user_message_idle",
            head,
            plan.message_id,
            plan.content,
            plan.agent_type,
            plan.agent_is_default,
            start.turn_id,
            start.answer_id,
            start.worker_id,
            plan.title,
            *_columns(start.events),
        )
        return None if row is None else _new_reply("accepted", head, row, plan.message_id, start.turn_id, start.events)

    async def _queued(self, head: CommandHead, plan: MessagePlan, most_waiting: int) -> Reply | None:
        """Let the message wait if the session is busy and the command new; None when anything is otherwise."""
        event = plan.waits()
        row = await self._new(
            "user_message_busy",
            head,
            plan.message_id,
            plan.content,
            None if plan.agent_is_default else plan.agent_type,
            plan.title,
            most_waiting,
            event.event_type,
            event.body,
        )
        return None if row is None else _new_reply("queued", head, row, plan.message_id, None, (event,))

    async def _new(self, name: str, head: CommandHead, *arguments: Any) -> asyncpg.Record | None:
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

    async def _run(self, name: str, head: CommandHead, *arguments: Any) -> asyncpg.Record:
        row = await self._database.fetchrow(
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
        if row is None:
            await self._explain_absence(head)
        return row

    async def _explain_absence(self, head: CommandHead) -> NoReturn:
        found = await self._database.fetchrow("session_by_id", head.owner, head.session_id)
        if found is not None and found["deleted_at"] is not None:
            raise ParleyError(ErrorCode.SESSION_GONE, "the session was deleted", id=head.command_id)
        raise ParleyError(ErrorCode.NOT_FOUND, "there is no such session", id=head.command_id)

    async def _reply(self, head: CommandHead, row: asyncpg.Record, events: Sequence[NewEvent]) -> Reply:
        if row["fresh"]:
            commit = committed(head.session_id, row["epoch"], row["seq"], head.now, events)
            return Reply(
                status=row["status"],
                seq=row["first_seq"],
                message_id=row["message_id"],
                turn_id=row["turn_id"],
                commit=commit,
            )
        if row["first_seq"] is not None:
            return _repeated(head, row)
        # Refused. An earlier delivery may have been accepted all the same (the first of two on_busy=reject made the
        # session busy), and only a statement that begins now is sure to see it.
        stored = await self._database.fetchrow("find_command", head.session_id, head.command_id)
        if stored is not None:
            return _repeated(head, stored)
        if row["refusal"] == "stale":
            raise StaleError(row["current_agent"], row["active_turn"])
        if row["refusal"] is None:
            raise ParleyError(
                ErrorCode.OUT_OF_ORDER,
                "the number does not follow the client's last one",
                path="$.n",
                id=head.command_id,
            )
        code, message, path = _REFUSALS[row["refusal"]]
        retry_after = 1.0 if code is ErrorCode.QUEUE_FULL else None
        raise ParleyError(code, message, path=path, retry_after=retry_after, id=head.command_id)


def _new_reply(
    status: str,
    head: CommandHead,
    row: asyncpg.Record,
    message_id: UUID,
    turn_id: UUID | None,
    events: Sequence[NewEvent],
) -> Reply:
    seq = row["seq"]
    commit = committed(head.session_id, row["epoch"], seq, head.now, events)
    return Reply(status=status, seq=seq + 1, message_id=message_id, turn_id=turn_id, commit=commit)


def _repeated(head: CommandHead, row: asyncpg.Record) -> Reply:
    if row["body_hash"] != head.body_hash:
        raise ParleyError(
            ErrorCode.CONFLICT, "this id was used before, with another body", path="$.id", id=head.command_id
        )
    return Reply(
        status=row["status"], seq=row["first_seq"], message_id=row["message_id"], turn_id=row["turn_id"], commit=None
    )


def _columns(events: Sequence[NewEvent]) -> tuple[list[str], list[bytes]]:
    return [event.event_type for event in events], [event.body for event in events]
