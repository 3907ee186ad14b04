"""Two server processes on one database: one is killed, or suspended past its lease, and nobody misses anything."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from tests.chaos.clients import Follower
from tests.support.checker import Ledger, View
from tests.support.process import PATIENCE, ServerProcess

#: Answers of some seconds, and leases that end soon.
CONFIG = """\
[database]
url = "{url}"

[agents.offline]
speed = 40

[turns]
lease_seconds = 2
"""
QUESTION = "Tell me a story."


@pytest.fixture
async def company(database_url: str, tmp_path: Path) -> AsyncIterator[list[ServerProcess]]:
    """Two processes that know of each other."""
    servers = [
        ServerProcess(tmp_path / name, CONFIG.format(url=database_url), own_database=False) for name in ("one", "two")
    ]
    try:
        for server in servers:
            await server.start()
        for server in servers:
            await answers(server, lambda ready: ready["bus"] == "connected")
        yield servers
        for server in servers:
            server.check()
    finally:
        for server in servers:
            await server.close()


async def answers(server: ServerProcess, check: Callable[[Any], bool]) -> None:
    """Ask the readiness probe until it answers so."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with server.http.get(f"{await server.address()}/ready") as response:
                if check(await response.json()):
                    return


class Session:
    """A session that is followed at both."""

    def __init__(self, servers: list[ServerProcess], session_id: str) -> None:
        self.ledger = Ledger(session_id)
        self.views: list[View] = []
        self.heard: list[list[tuple[str, dict[str, Any]]]] = []
        self.following: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        for server, transport in zip(servers, ("websocket", "sse"), strict=True):
            view = View(self.ledger, transport, from_start=True)
            heard: list[tuple[str, dict[str, Any]]] = []
            view.listeners.append(lambda event_type, payload, heard=heard: self._hear(heard, event_type, payload))  # type: ignore[misc]
            self.views.append(view)
            self.heard.append(heard)
            self.following.append(asyncio.create_task(Follower(server, view, transport).run()))  # type: ignore[arg-type]

    def _hear(self, heard: list[tuple[str, dict[str, Any]]], event_type: str, payload: dict[str, Any]) -> None:
        heard.append((event_type, payload))
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                for task in self.following:
                    if task.done():
                        task.result()
                self._changed.clear()
                await self._changed.wait()

    def has(self, place: int, event_type: str, **fields: Any) -> bool:
        """Whether the follower at one of them was told this."""
        return any(kind == event_type and fields.items() <= payload.items() for kind, payload in self.heard[place])

    async def close(self) -> None:
        for task in self.following:
            task.cancel()
        await asyncio.gather(*self.following, return_exceptions=True)


@pytest.fixture
async def session(company: list[ServerProcess]) -> AsyncIterator[Session]:
    """A session whose answer is being written at the first process, and read at both."""
    first = await company[0].address()
    async with company[0].http.post(f"{first}/sessions", json={}) as response:
        session = Session(company, (await response.json())["id"])
    try:
        await session.until(lambda: all(view.connections for view in session.views))
        command = {"type": "user_message", "id": uuid4().hex, "content": QUESTION}
        async with company[0].http.post(
            f"{first}/sessions/{session.ledger.session_id}/commands", json=command
        ) as response:
            assert response.status == 200, await response.text()
        await session.until(lambda: session.has(1, "message_delta"))
        assert not session.has(1, "task_completed"), "it is seen while it is written"
        yield session
    finally:
        await session.close()


async def log_of(database_url: str, session_id: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(database_url)
    try:
        return [
            tuple(row)
            for row in await connection.fetch(
                "SELECT seq, event_type, body FROM events WHERE session_id = $1::text::uuid ORDER BY seq", session_id
            )
        ]
    finally:
        await connection.close()


def check(session: Session, place: int) -> None:
    """The answer came whole, once, to whoever could see it."""
    (done,) = [payload for kind, payload in session.heard[place] if kind == "task_completed"]
    assert done["status"] == "completed"
    said = [payload for kind, payload in session.heard[place] if kind == "message_created"]
    assert [payload["role"] for payload in said] == ["user", "assistant"]


@pytest.mark.feature("T09", "T10", "S05")
async def test_a_killed_process_leaves_its_turn_to_the_other_and_its_clients_are_gone(
    company: list[ServerProcess], session: Session
) -> None:
    """Its lease of two seconds runs out, and that is all that anybody waits for."""
    one, _ = company
    # Its own follower goes with it, so that nothing of the session comes back there.
    session.following.pop(0).cancel()
    with one.kill("server"):
        await one.reap()
    await session.until(lambda: session.has(1, "task_completed"))
    check(session, 1)
    await session.until(lambda: session.has(1, "presence_changed", change="left"))
    assert max(payload["attempt"] for kind, payload in session.heard[1] if kind == "message_delta") == 2


@pytest.mark.feature("T10")
async def test_a_process_that_was_suspended_past_its_lease_writes_nothing_when_it_goes_on(
    company: list[ServerProcess], session: Session, database_url: str
) -> None:
    one, _ = company
    os.kill(one.pid, signal.SIGSTOP)
    try:
        await session.until(lambda: session.has(1, "task_completed"))
        check(session, 1)
        before = await log_of(database_url, session.ledger.session_id)
    finally:
        os.kill(one.pid, signal.SIGCONT)
    # It wakes up in the middle of its sentence, and finds out.
    async with asyncio.timeout(PATIENCE):
        while not any("turn_lost" in line for line in one.log):  # noqa: ASYNC110 - the log tells nobody
            await asyncio.sleep(0)
    await answers(one, lambda ready: ready["status"] == "ready" and ready["bus"] == "connected")
    await session.until(lambda: session.has(0, "task_completed"))
    check(session, 0)
    assert await log_of(database_url, session.ledger.session_id) == before
    attempts = [msgspec.json.decode(body).get("attempt") for _, kind, body in before if kind == "message_created"]
    assert attempts == [None, 2], "the answer that counts is the one that was begun again"
