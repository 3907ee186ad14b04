"""A workshop for turns: a real database, an engine, an outlet that records, and agents that do what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from protocol.commands import Cancel, HitlDecision, ToolDescription, ToolResult, UserMessage
from protocol.events import Ack, AgentStatusChanged, MessageDelta, Payload
from server.agents.interface import AgentContext, AgentYield, FunctionAgent, Tool, agent
from server.agents.registry import Registry
from server.clock import SystemClock
from server.turns.engine import Engine
from server.turns.policy import Policy
from server.turns.service import Origin, TurnService
from server.turns.settings import PolicySettings, TurnSettings
from server.turns.terms import Terms
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
        self.transients: list[tuple[str, Payload]] = []
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
        if isinstance(payload, AgentStatusChanged):
            self.statuses.append(payload.status)
        self.transients.append((event_type, payload))

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


class ShiftedClock(SystemClock):
    """The machine's clock, by which a test can let time pass."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return super().now() + self.ahead


class Offered(NamedTuple):
    """A client that offers tools."""

    client_id: str
    tools: Sequence[ToolDescription]


class Desk:
    """Who offers which tools, as a test has it: the latest registration first."""

    def __init__(self) -> None:
        self.clients: list[Offered] = []

    async def offers(self, session_id: UUID) -> Sequence[Offered]:
        return list(self.clients)


#: Nobody is asked about anything.
ALLOWED = Policy([PolicySettings(tool="*", effect="allow")])


class Workshop:
    """One server process's turns, as far as a test needs them. Nothing needs approval, unless `policy` says so."""

    def __init__(
        self, database: Database, registry: Registry, settings: TurnSettings, policy: Policy = ALLOWED
    ) -> None:
        self.database = database
        self.outlet = Recorder()
        self.clock = ShiftedClock()
        self.desk = Desk()
        terms = Terms(policy=policy, executors=self.desk)
        self.engine = Engine(database, registry, self.outlet, self.clock, settings, terms)
        self.service = TurnService(database, self.engine)
        self.sessions = Sessions(database)

    async def offer(self, session: Session, client_id: str, *names: str, **more: Any) -> None:
        """A client offers tools, in place of those before."""
        described = [ToolDescription(name=name, parameters={"type": "object"}, **more) for name in names]
        self.desk.clients = [each for each in self.desk.clients if each.client_id != client_id]
        self.desk.clients.insert(0, Offered(client_id, described))
        await self.service.client_joined(session.session_id, client_id)
        await self.service.tools_registered(session.session_id, client_id, list(names))

    async def leave(self, session: Session, client_id: str) -> None:
        """A client goes away."""
        self.desk.clients = [each for each in self.desk.clients if each.client_id != client_id]
        await self.service.client_left(session.session_id, client_id)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and see to what is due."""
        self.clock.ahead += timedelta(seconds=seconds)
        await self.engine.mind_due()

    async def result(
        self, session: Session, call_id: str, result: Any = None, *, client: str | None = "client-1", **more: Any
    ) -> Ack:
        """A client answers a call."""
        command = ToolResult(
            id=more.pop("command_id", f"result-{call_id}-{client}"), call_id=call_id, result=result, **more
        )
        return await self.service.tool_result(session, command, Origin("me", client, "test"))

    async def decide(self, session: Session, call_id: str, decision: Any, **more: Any) -> Ack:
        """A person decides about a call."""
        command_id = more.pop("command_id", f"{decision}-{call_id}")
        origin = Origin("me", more.pop("client", "client-2"), "test", role=more.pop("role", "owner"))
        command = HitlDecision(id=command_id, call_id=call_id, decision=decision, **more)
        return await self.service.hitl_decision(session, command, origin)

    async def parked(self, count: int = 1) -> None:
        """Wait until so many turns wait for somebody, and none runs here."""
        await self.engine.idle()
        assert await self.rows("SELECT count(*) FROM turns WHERE state = 'waiting'") == [(count,)]

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
