"""A workshop for turns: a real database, an engine, an outlet that records, and agents that do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any
from uuid import UUID

import msgspec

from protocol.commands import Cancel, UserMessage
from protocol.events import Ack, MessageDelta, Payload
from server.agents.interface import AgentContext, AgentYield, FunctionAgent, Tool, agent
from server.agents.registry import Registry
from server.clock import SystemClock
from server.turns.engine import Engine
from server.turns.service import Origin, TurnService
from server.turns.settings import TurnSettings
from storage.commits import Committed
from storage.log import StoredEvent
from storage.pool import Database
from storage.sessions import Session, Sessions

ORIGIN = Origin("me", "client-1", "test")
#: Nothing in these tests takes so long, on a busy machine neither; it is what a hang costs. Seconds.
PATIENCE = 40.0


class Recorder:
    """An outlet that keeps everything, and lets a test wait until something was shown."""

    def __init__(self) -> None:
        self.shown: list[StoredEvent | MessageDelta] = []
        self.statuses: list[str] = []
        self.woken: list[UUID] = []
        self.closed: list[UUID] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def commit(self, committed: Committed, closes: UUID | None = None) -> None:
        self.shown.extend(committed.events)
        self._notify()

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        self.shown.append(delta)
        self._notify()

    def transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        self.statuses.append(payload.status)  # type: ignore[attr-defined]

    def close_message(self, session_id: UUID, message_id: UUID) -> None:
        self.closed.append(message_id)

    def wake(self, session_id: UUID) -> None:
        self.woken.append(session_id)

    @property
    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """The durable events that were shown: type and payload."""
        return [
            (event.event_type, msgspec.json.decode(event.body))
            for event in self.shown
            if isinstance(event, StoredEvent)
        ]

    @property
    def types(self) -> list[str]:
        """The types of the durable events that were shown."""
        return [event_type for event_type, _ in self.events]

    @property
    def deltas(self) -> list[MessageDelta]:
        """The deltas that were shown."""
        return [event for event in self.shown if isinstance(event, MessageDelta)]

    def payloads(self, event_type: str) -> list[dict[str, Any]]:
        """The payloads of all events of a type."""
        return [payload for found, payload in self.events if found == event_type]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of what was shown."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(condition)

    async def until_type(self, event_type: str, count: int = 1) -> None:
        """Wait for so many events of a type."""
        await self.until(lambda: self.types.count(event_type) >= count)

    def _notify(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


Script = Callable[[AgentContext], AsyncGenerator[AgentYield, None]]


class Workshop:
    """One server process's turns, as far as a test needs them."""

    def __init__(self, database: Database, registry: Registry, settings: TurnSettings) -> None:
        self.database = database
        self.outlet = Recorder()
        self.engine = Engine(database, registry, self.outlet, SystemClock(), settings)
        self.service = TurnService(database, self.engine)
        self.sessions = Sessions(database)

    async def session(self, agent_type: str = "scripted") -> Session:
        """A new session."""
        return await self.sessions.create("me", agent=agent_type, now=self.engine.now())

    async def say(self, session: Session, text: str, command_id: str | None = None, **more: Any) -> Ack:
        """Send a user message."""
        command = UserMessage(id=command_id or f"say-{text}"[:100].replace(" ", "-"), content=text, **more)
        return await self.service.user_message(session, command, ORIGIN)

    async def stop(self, session: Session, command_id: str = "stop", turn_id: UUID | None = None) -> Ack:
        """Press stop."""
        return await self.service.cancel(session, Cancel(id=command_id, turn_id=turn_id), ORIGIN)

    async def rows(self, statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """What the database says."""
        async with self.database.pool.acquire() as connection:
            return [tuple(row) for row in await connection.fetch(statement, *arguments)]


def scripted(script: Script, *, tools: Iterable[str | Tool] = (), rerun: bool = True) -> FunctionAgent:
    """An agent of type `scripted`."""
    return agent("scripted", name="Scripted", description="Does what a test says", tools=tools, rerun=rerun)(script)


def registry_of(*agents: FunctionAgent) -> Registry:
    """A registry of these agents and the tools they brought."""
    return Registry(agents, [tool for one in agents for tool in one.tools], default=agents[0].definition.type)


async def forever() -> None:
    """Wait until cancelled."""
    await asyncio.Event().wait()


Action = Callable[[], Awaitable[None]]
