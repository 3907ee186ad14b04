"""The statement under load, and the smallest honest one beside it: 64 callers over the same pool, one trip each."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

from protocol.commands import UserMessage
from server.agents.interface import AgentDefinition
from server.turns import records
from storage.commands import CommandHead, Commands, MessagePlan, TurnStart
from storage.ids import new_epoch, new_id
from storage.pool import Database, Loan
from tests.benchmarks.children import cpu_seconds

__all__ = ["CALLERS", "Rate", "Statements"]

CALLERS: Final = 64
OWNER: Final = "local"
#: Seconds that a connection may be waited for.
_PATIENCE: Final = 30.0
_TEXT: Final = "What is the time?"
_AGENT: Final = AgentDefinition(type="waiter", name="waiter")

#: What storing a message cannot do without: a number for its events, the message, the events; in one transaction.
_SMALLEST: Final = """
WITH head AS (UPDATE sessions SET seq = seq + 2 WHERE session_id = $1 RETURNING seq),
     message AS (
       INSERT INTO messages (message_id, session_id, seq, role, content, created_at)
       SELECT $2, $1, head.seq - 1, 'user', $3, $4 FROM head
     ),
     log AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT $1, head.seq - 2 + e.ordinal, e.event_type, $4, e.body
         FROM head, unnest($5::text[], $6::bytea[]) WITH ORDINALITY AS e (event_type, body, ordinal)
     )
SELECT seq FROM head
"""


class Rate(NamedTuple):
    """What one run came to: a second, and what this process used for each in microseconds."""

    rate: float
    client_us: float


class Statements:
    """Sessions, and statements made ready beforehand: what is timed is the statement, not the making of its events."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._commands = Commands(database)

    async def sessions(self, count: int, *, busy: bool = False) -> list[UUID]:
        """New sessions; `busy`: a turn runs in each."""
        made = [new_id() for _ in range(count)]
        async with self._database.pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO sessions"
                " (session_id, owner, epoch, current_agent, active_turn, created_at, last_activity) "
                "SELECT id, $2, $3, $4, CASE WHEN $5 THEN id END, now(), now() FROM unnest($1::uuid[]) AS id",
                *(made, OWNER, new_epoch(), _AGENT.type, busy),
            )
        return made

    async def full(self, sessions: Iterable[UUID], *, busy: bool = False) -> Rate:
        """A user message in each of the sessions; `busy`: a turn runs in them, as the server that runs it knows."""
        ready = [(_head(session), _plan()) for session in sessions]

        async def one(item: tuple[CommandHead, MessagePlan]) -> None:
            reply = await self._commands.user_message(*item, seems_busy=busy, on_busy="enqueue", most_waiting=1 << 30)
            assert reply.commit is not None, "each command is a new one"

        return await _timed(ready, one)

    async def smallest(self, sessions: Iterable[UUID]) -> Rate:
        """A message and its two events in each of the sessions."""
        ready = []
        for session in sessions:
            plan = _plan()
            types = [event.event_type for event in plan.start().events]
            bodies = [event.body for event in plan.start().events]
            ready.append((session, plan.message_id, _TEXT, _now(), types, bodies))

        async def one(arguments: tuple[Any, ...]) -> None:
            async with Loan(self._database, _PATIENCE) as connection:
                row = await connection.fetchrow(_SMALLEST, *arguments)
            assert row is not None, "the session is there"

        return await _timed(ready, one)


async def _timed(items: list[Any], one: Callable[[Any], Awaitable[None]]) -> Rate:
    pending = iter(items)

    async def caller() -> None:
        for item in pending:
            await one(item)

    gc.collect()
    gc.freeze()  # what the test run has gathered before is not looked through again and again
    began, cpu = time.perf_counter(), cpu_seconds()
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(caller())
    seconds, used = time.perf_counter() - began, cpu_seconds() - cpu
    gc.unfreeze()
    return Rate(len(items) / seconds, used / len(items) * 1e6)


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _head(session: UUID) -> CommandHead:
    command_id = new_id().hex
    return CommandHead(
        session_id=session,
        owner=OWNER,
        command_id=command_id,
        body_hash=sha256(command_id.encode()).digest(),
        user_id=OWNER,
        client_id=None,
        n=None,
        now=_now(),
        worker_id=new_id(),
        transport="bench",
    )


def _plan() -> MessagePlan:
    command = UserMessage(id=new_id().hex, content=_TEXT)
    message_id, turn_id = new_id(), new_id()
    message = records.user_message(message_id, _TEXT, _now(), turn_id, command_id=command.id, client_id=None)
    start = TurnStart(
        turn_id=turn_id,
        answer_id=new_id(),
        worker_id=new_id(),
        events=[message, *records.turn_begins(turn_id, message_id, _AGENT, direct=False)],
    )
    waits = records.message_queued(message_id, _TEXT, command, None)
    return MessagePlan(
        message_id=message_id,
        content=_TEXT,
        title=_TEXT,
        agent_type=_AGENT.type,
        agent_is_default=True,
        start=lambda: start,
        waits=lambda: waits,
    )
