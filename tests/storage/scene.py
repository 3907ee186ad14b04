"""What tests of storage act with: sessions, commands and turns made in a line, and an audit of all tables."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import asyncpg.pool

from storage.approvals import Approvals, Rules
from storage.calls import Calls
from storage.commands import CommandHead, Commands, MessagePlan, OnBusy, Reply, TurnStart
from storage.ids import new_id
from storage.log import EventLog, NewEvent
from storage.messages import Messages
from storage.pool import Database
from storage.sessions import Session, Sessions
from storage.turns import Advance, Claim, NewMessage, Started, Turns, Waiting
from storage.workers import ProcessIdentity, Workers

AGENT: Final = "universal"
NOW: Final = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
#: How long progress may take on a busy machine before a probe gives up.
PATIENCE: Final = 40


def event(event_type: str, text: str = "") -> NewEvent:
    return NewEvent(event_type, b'{"text":"%s"}' % text.encode())


class Scene:
    """One database with everything that storage offers on it; `worker` is the process that turns are claimed for."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.sessions = Sessions(database)
        self.commands = Commands(database)
        self.turns = Turns(database)
        self.calls = Calls(database)
        self.approvals = Approvals(database)
        self.rules = Rules(database)
        self.log = EventLog(database)
        self.messages = Messages(database)
        self.workers = Workers(database)
        self.worker = new_id()
        self._ticks = 0

    def now(self) -> datetime:
        """A later millisecond each time."""
        self._ticks += 1
        return NOW + timedelta(milliseconds=self._ticks)

    async def session(self, owner: str = "ada", **more: Any) -> Session:
        return await self.sessions.create(owner, **{"agent": AGENT, "now": self.now(), **more})

    # --- commands

    def head(
        self,
        session: Session,
        command_id: str,
        body: str = "",
        *,
        owner: str | None = None,
        client: str | None = "c1",
        n: int | None = None,
    ) -> CommandHead:
        return CommandHead(
            session_id=session.session_id,
            owner=owner or session.owner,
            command_id=command_id,
            body_hash=sha256(body.encode()).digest(),
            user_id=owner or session.owner,
            client_id=client,
            n=n,
            now=self.now(),
            worker_id=self.worker,
            transport="test",
        )

    def plan(self, text: str, *, agent: str = AGENT, direct: bool = False) -> MessagePlan:
        start = TurnStart(
            turn_id=new_id(),
            answer_id=new_id(),
            worker_id=self.worker,
            events=[event("message_created", text), event("task_started", text)],
        )
        return MessagePlan(
            message_id=new_id(),
            content=text,
            title=text[:20],
            agent_type=agent,
            agent_is_default=not direct,
            start=lambda: start,
            waits=lambda: event("queue_changed", text),
        )

    async def say(
        self,
        session: Session,
        command_id: str,
        text: str = "hello",
        *,
        plan: MessagePlan | None = None,
        busy: bool = False,
        on_busy: OnBusy = "enqueue",
        most: int = 100,
        **head: Any,
    ) -> Reply:
        """A user message; its body is its text. `busy` is what its sender believes of the session."""
        return await self.commands.user_message(
            self.head(session, command_id, text, **head),
            plan or self.plan(text),
            seems_busy=busy,
            on_busy=on_busy,
            most_waiting=most,
        )

    async def cancel(self, session: Session, command_id: str, turn_id: UUID, **head: Any) -> Reply:
        return await self.commands.cancel(
            self.head(session, command_id, str(turn_id), **head), turn_id, [event("task_cancelling")]
        )

    async def switch(self, session: Session, command_id: str, agents: tuple[str, str], **head: Any) -> Reply:
        return await self.commands.switch_agent(
            self.head(session, command_id, agents[1], **head), agents, [event("agent_switched", agents[1])]
        )

    async def remove(self, session: Session, command_id: str, message_id: UUID, **head: Any) -> Reply:
        return await self.commands.remove_queued(
            self.head(session, command_id, str(message_id), **head), message_id, [event("queue_changed", "removed")]
        )

    async def reorder(self, session: Session, command_id: str, order: Sequence[UUID], **head: Any) -> Reply:
        return await self.commands.reorder_queue(
            self.head(session, command_id, str(order), **head), order, [event("queue_changed", "reordered")]
        )

    # --- turns

    async def begun(self, session: Session, command_id: str = "first", text: str = "hello") -> Claim:
        """A message to an idle session, and the claim of the turn that it starts."""
        plan = self.plan(text)
        reply = await self.say(session, command_id, text, plan=plan)
        assert reply.turn_id == plan.start().turn_id
        return self.claim(session, plan)

    def claim(self, session: Session, plan: MessagePlan | Started) -> Claim:
        """The first step of a turn that has just begun."""
        start = plan.start() if isinstance(plan, MessagePlan) else plan
        return Claim(
            session_id=session.session_id,
            turn_id=start.turn_id,
            step=1,
            message_id=start.answer_id,
            state="running",
            worker_id=start.worker_id,
            attempt=1,
            agent_type=plan.agent_type,
            user_message_id=plan.message_id,
            turn_created_at=NOW,
            owner=session.owner,
        )

    def ending(self, claim: Claim, text: str = "done", **more: Any) -> Advance:
        """The move that stores the answer and ends the turn."""
        return Advance(
            **{
                "step_state": "done",
                "events": [event("message_created", text), event("task_completed")],
                "messages": [NewMessage(message_id=claim.message_id, ordinal=1, role="assistant", content=text)],
                "turn_state": "completed",
                **more,
            }
        )

    async def end(self, claim: Claim, text: str = "done") -> None:
        await self.turns.advance(claim, self.ending(claim, text), self.now())

    async def waiting(self, session: Session) -> Waiting:
        """The first waiting message of an idle session."""
        waiting = await self.turns.next_waiting(session.session_id)
        assert waiting is not None
        return waiting

    def start(self, session: Session, waiting: Waiting, **more: Any) -> Started:
        """How a waiting message begins its turn."""
        return Started(
            **{
                "session_id": session.session_id,
                "message_id": waiting.message_id,
                "agent_type": waiting.agent_type or waiting.current_agent,
                "agent_is_default": waiting.agent_type is None,
                "turn_id": new_id(),
                "answer_id": new_id(),
                "worker_id": self.worker,
                "now": self.now(),
                "events": [event("queue_changed", "started"), event("message_created"), event("task_started")],
                "message_ordinal": 2,
                **more,
            }
        )

    async def alive(self, worker: UUID, seconds: float = 600) -> None:
        """The worker has a lease; with no or negative seconds it ended."""
        await self.workers.renew(worker, ProcessIdentity("elsewhere", "1@1"), seconds)

    # --- probes

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with self.database.pool.acquire() as connection:
            return await connection.fetch(query, *arguments)

    async def value(self, query: str, *arguments: object) -> Any:
        async with self.database.pool.acquire() as connection:
            return await connection.fetchval(query, *arguments)

    async def audit(self, only: Session | None = None) -> None:
        """All tables agree about every session, or one; nothing is there twice, and nothing by half."""
        wanted = only.session_id if only is not None else None
        for session in await self.rows("SELECT * FROM sessions WHERE $1::uuid IS NULL OR session_id = $1", wanted):
            await self._audit(session)
        assert await self.rows("SELECT session_id FROM events EXCEPT SELECT session_id FROM sessions") == []

    async def _audit(self, session: asyncpg.Record) -> None:
        key = session["session_id"]

        async def of(table: str) -> list[asyncpg.Record]:
            return await self.rows(f"SELECT * FROM {table} WHERE session_id = $1", key)

        events, messages, waiting = await of("events"), await of("messages"), await of("queue")
        turns, stored = await of("turns"), await of("commands")
        if session["deleted_at"] is not None:
            assert (events, messages, waiting, turns, stored) == ([], [], [], [], [])
            return
        # Numbered from 1 without a gap, each message announced by the event of its number.
        assert sorted(row["seq"] for row in events) == list(range(1, session["seq"] + 1))
        announced = {row["seq"] for row in events if row["event_type"] in {"message_created", "tool_result"}}
        assert {row["seq"] for row in messages} == announced
        assert session["message_count"] == sum(row["thread"] is None for row in messages)
        assert session["queued"] == len(waiting)
        # One effect a command: its first event is its own.
        assert [n for n, count in Counter(row["first_seq"] for row in stored).items() if count > 1] == []
        assert {row["first_seq"] for row in stored} <= {row["seq"] for row in events}
        known = {row["message_id"] for row in messages} | {row["message_id"] for row in waiting}
        removed = sum(row["status"] == "accepted" and row["message_id"] not in known for row in stored)
        said = {row["message_id"] for row in stored if row["message_id"] is not None}
        asked = [row for row in messages if row["role"] == "user"]
        assert {row["message_id"] for row in asked if row["thread"] is None} <= said
        assert len(said - known) <= removed
        # One turn at most is under way that answers no other, and has a step that is not done.
        under_way = [row for row in turns if row["finished_at"] is None]
        assert [row["turn_id"] for row in under_way if row["depth"] == 0] == (
            [session["active_turn"]] if session["active_turn"] is not None else []
        )
        assert [row for row in turns if row["step_state"] != "done"] == under_way
        assert [row for row in turns if row["state"] in {"running", "waiting"}] == under_way
        assert {row["step_state"] for row in turns} <= {"running", "tools", "done"}
        assert {row["state"] for row in under_way} <= {"running", "waiting"}
        assert {row["state"] for row in turns if row not in under_way} <= {
            "completed",
            "cancelled",
            "failed",
            "interrupted",
        }
        assert {row["role"] for row in messages} <= {"user", "assistant", "tool", "system"}
        # By their messages a deleted session's turns are found.
        assert {row["turn_id"] for row in turns} == {row["turn_id"] for row in asked}
        assert {row["user_message_id"] for row in turns} <= {row["message_id"] for row in asked}
        await self._audit_calls(turns, messages, await of("tool_calls"), await of("approvals"))

    async def _audit_calls(
        self,
        turns: list[asyncpg.Record],
        messages: list[asyncpg.Record],
        calls: list[asyncpg.Record],
        approvals: list[asyncpg.Record],
    ) -> None:
        by_turn = {row["turn_id"]: row for row in turns}
        # One result a call, in the thread of its turn, and none before it has ended.
        results = Counter(row["call_id"] for row in messages if row["role"] == "tool")
        assert results == Counter(row["call_id"] for row in calls if row["finished_at"] is not None)
        assert {row["state"] for row in calls if row["finished_at"] is not None} <= {
            "completed",
            "failed",
            "rejected",
            "cancelled",
        }
        assert {row["state"] for row in calls if row["finished_at"] is None} <= {
            "awaiting_approval",
            "ready",
            "running",
        }
        for row in messages:
            if row["thread"] is not None or row["role"] == "tool":
                assert row["thread"] == (row["turn_id"] if by_turn[row["turn_id"]]["depth"] else None)
        # Calls are open only in the step under way, and who waits has some.
        unsettled = [row for row in calls if row["finished_at"] is None]
        for row in unsettled:
            turn = by_turn[row["turn_id"]]
            assert (turn["finished_at"], turn["step_state"], turn["step"]) == (None, "tools", row["step"])
        assert {row["turn_id"] for row in turns if row["state"] == "waiting"} <= {row["turn_id"] for row in unsettled}
        assert {row["call_id"] for row in approvals if row["state"] == "pending"} == {
            row["call_id"] for row in calls if row["state"] == "awaiting_approval"
        }
        # Whoever has a call was given it, and a turn that answers a call is under way no longer than the call.
        for row in calls:
            assert row["executor"] == "client" or (row["client_id"], row["executors"]) == (None, [])
            assert row["client_id"] is None or row["client_id"] in row["executors"]
            if row["child_turn"] is not None:
                child = by_turn[row["child_turn"]]
                assert (child["parent_call"], child["depth"]) == (row["call_id"], by_turn[row["turn_id"]]["depth"] + 1)
                assert (child["finished_at"] is None) <= (row["finished_at"] is None)


Borrowed: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Rival:
    """Another process at work: a transaction of the product's own statements that commits when the test says so."""

    def __init__(self, connection: Borrowed) -> None:
        self.connection = connection

    async def until_waiting(self, count: int = 1) -> None:
        """Return when so many statements of this database wait for a lock."""
        async with asyncio.timeout(PATIENCE):
            while count > await self.connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ):
                # Within a transaction, activity is read once unless told otherwise.
                await self.connection.execute("SELECT pg_stat_clear_snapshot()")


@asynccontextmanager
async def rival_scene(database: Database) -> AsyncIterator[tuple[Scene, Rival]]:
    """A scene whose statements all run in one transaction of one connection; it commits at the end of the block."""
    async with database.pool.acquire() as connection, connection.transaction():
        yield Scene(InTransaction(connection)), Rival(connection)


class InTransaction(Database):
    """A database that is one connection in a transaction."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._pool = _OnePool(connection)  # type: ignore[assignment]


class _OnePool:
    """Lends the same connection over and over."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def get_idle_size(self) -> int:
        return 1

    async def acquire(self, timeout: float | None = None) -> Any:
        return self._connection

    async def release(self, connection: Any, timeout: float | None = None) -> None:
        """It stays where it is."""
