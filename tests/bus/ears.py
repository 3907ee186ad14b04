"""What tests of the bus listen with: an ear that notes what it is told, and buses on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg

from protocol.events import MessageDelta, Payload
from server.bus.postgres import PostgresBus
from server.bus.settings import BusSettings
from server.clock import SystemClock
from storage.ids import new_id
from storage.pool import Database
from storage.workers import ProcessIdentity, Workers

#: Nothing in these tests takes so long, on a busy machine neither. Seconds.
PATIENCE = 40.0

#: A look is a look at the table of workers; those that are not wanted come late.
SELDOM = BusSettings(look_interval=3_000.0)


class NotingEar:
    """Notes everything; `until` waits for something to be noted."""

    def __init__(self) -> None:
        self.hints: list[tuple[UUID, int]] = []
        self.deltas: list[MessageDelta] = []
        self.closed: list[tuple[UUID, int]] = []
        self.transients: list[tuple[str, Payload]] = []
        self.stirred: list[UUID] = []
        self.missed = 0
        self.followed: set[UUID] = set()
        self.written: dict[UUID, list[MessageDelta]] = {}
        #: How much of a text is known: what begins beyond is refused.
        self.known = 0
        self._noted = asyncio.Event()

    def on_hint(self, session_id: UUID, seq: int) -> None:
        self.hints.append((session_id, seq))
        self._noted.set()

    def on_delta(self, session_id: UUID, delta: MessageDelta) -> bool:
        self._noted.set()
        if delta.offset > self.known:
            return False
        self.known = max(self.known, delta.offset + len(delta.text))
        self.deltas.append(delta)
        return True

    def on_closed(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        self.closed.append((message_id, attempt))
        self._noted.set()

    def on_transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        self.transients.append((event_type, payload))
        self._noted.set()

    def on_stir(self, turn_id: UUID) -> None:
        self.stirred.append(turn_id)
        self._noted.set()

    def on_missed(self) -> None:
        self.missed += 1
        self._noted.set()

    def follows(self, session_id: UUID) -> bool:
        return session_id in self.followed

    def writing(self) -> list[UUID]:
        return list(self.written)

    def texts(self, session_id: UUID) -> list[MessageDelta]:
        return self.written.get(session_id, [])

    @property
    def text(self) -> str:
        """The text that the deltas give, each of which may repeat what is known."""
        text = ""
        for delta in self.deltas:
            text += delta.text[len(text) - delta.offset :]
        return text

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that was noted makes the condition true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._noted.clear()
                await self._noted.wait()


class Company:
    """Processes on one database, as far as the bus is concerned."""

    def __init__(self, database: Database, address: Any) -> None:
        self.database = database
        self.address = address
        self._buses: list[PostgresBus] = []

    async def join(self, settings: BusSettings = SELDOM) -> tuple[PostgresBus, NotingEar]:
        """One more process, which is alive for long."""
        worker_id, ear = new_id(), NotingEar()
        await Workers(self.database).renew(worker_id, ProcessIdentity.current(), 3_600.0)
        bus = PostgresBus(lambda: self.address, worker_id, SystemClock(), settings)
        bus.attach(ear)
        bus.on_stir = ear.on_stir
        self._buses.append(bus)
        await bus.start()
        await probe(lambda: bus.state != "away")
        return bus, ear

    async def pair(self) -> tuple[tuple[PostgresBus, NotingEar], tuple[PostgresBus, NotingEar]]:
        """Two processes that know of each other."""
        one, two = await self.join(), await self.join()
        await probe(lambda: one[0].state == two[0].state == "connected")
        return one, two

    async def cut(self) -> int:
        """The database ends all connections that listen; how many."""
        connection = await asyncpg.connect(**self.address)
        try:
            return int(
                await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND (query LIKE 'LISTEN%' OR query LIKE '%pg_notify%'"
                    " OR query LIKE 'SELECT worker_id FROM workers%')"
                )
            )
        finally:
            await connection.close()

    async def stop(self) -> None:
        for bus in self._buses:
            await bus.stop()


async def probe(condition: Callable[[], bool]) -> None:
    """Look again and again, for what tells nobody. The test fails when it does not come."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)
