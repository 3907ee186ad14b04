"""A server goes on without its database, stays the only one on it, and reads the same log to everybody for ever."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from server.turns.settings import TurnSettings
from storage.embedded.locks import try_lock
from storage.embedded.places import Places
from tests.chaos.clients import TRANSPORTS, Follower
from tests.chaos.scene import CONFIG, Stage, Trigger
from tests.support.checker import Ledger, Record, View
from tests.support.process import ServerProcess, Watched, serving, tree

#: Seconds; several servers one after the other. Less than what ends the run (`faulthandler_timeout`).
pytestmark = pytest.mark.timeout(110)


@asynccontextmanager
async def followed(server: ServerProcess) -> AsyncIterator[Stage]:
    """A session with its clients connected."""
    stage = await Stage.open(server, random.Random(1), Trigger())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follower.run()) for follower in stage.followers]
        yield stage
        for task in tasks:
            task.cancel()


async def ask(server: ServerProcess, method: str, path: str, **more: Any) -> tuple[int, dict[str, str], dict[str, Any]]:
    async with server.http.request(method, f"{await server.address()}{path}", **more) as response:
        return response.status, dict(response.headers), await response.json()


async def streamed(view: View, count: int) -> None:
    """Wait until a client was shown so many more deltas."""
    came = asyncio.Semaphore(0)
    view.listeners.append(lambda event_type, _: came.release() if event_type == "message_delta" else None)
    for _ in range(count):
        await came.acquire()


async def attempted(view: View, attempt: int) -> None:
    """Wait until a client was shown a delta of an attempt."""
    came = asyncio.Event()
    view.listeners.append(lambda _, payload: came.set() if payload.get("attempt") == attempt else None)
    await came.wait()


@contextmanager
def barred(server: ServerProcess) -> Iterator[None]:
    """Within the block no new database can start: the lock that it would need is somebody else's, who has no hurry."""
    path = Places(server.data_dir).server_lock
    path.unlink()
    lock = try_lock(path)
    assert lock is not None
    try:
        yield
    finally:
        os.close(lock)


@pytest.mark.feature("S14", "T02", "R03")
async def test_without_its_database_a_server_refuses_commands_for_a_while_and_keeps_its_streams(data_dir: Path) -> None:
    async with asyncio.timeout(100), serving(data_dir, CONFIG) as server, followed(server) as stage:
        path = f"/sessions/{stage.ledger.session_id}/commands"
        socket = stage.followers[0]
        speaking = asyncio.create_task(streamed(socket.view, 1))
        answer = await stage.talker.send(type="user_message", content="count to 1000 at 300 per second", answer=None)
        await speaking
        held = {"type": "user_message", "id": "held", "content": "hello"}
        with barred(server), server.kill("postmaster"):
            while (await ask(server, "GET", "/ready"))[0] == 200:
                pass
            status, headers, problem = await ask(server, "POST", path, json=held)
            assert (status, problem["code"]) == (503, "unavailable"), problem
            assert int(headers["Retry-After"]) >= 1
            assert (await ask(server, "GET", "/ready"))[2]["database"] == "away"
            assert (await ask(server, "GET", "/health"))[0] == 200
            refused = await socket.ask({**held, "id": "held.too"})
            assert refused["code"] == "unavailable", refused
            assert refused["retry_after_ms"] > 0
            # The agent is not disturbed: its text goes on, to everybody.
            await asyncio.gather(*(streamed(follower.view, 3) for follower in stage.followers))
        await server.ready()
        # What was refused has left nothing behind: the same command is taken now.
        stage.ledger.sent["held"] = {**held, "answer": None}
        status, _, ack = await ask(server, "POST", path, json=held)
        assert status == 200, ack
        stage.ledger.acknowledged("held", ack)
        stage.stop()
        await stage.quiet()
        said = [record.body for record in stage.ledger.events.values() if record.event_type == "message_created"]
        assert [body["role"] for body in said] == ["user", "assistant"] * 2
        assert said[0]["message_id"] == answer["message_id"]
        assert said[1]["content"].endswith("999 1000")
        assert [follower.drops for follower in stage.followers] == [0] * len(TRANSPORTS)


@pytest.mark.feature("R03")
async def test_an_answer_whose_server_dies_too_often_is_closed_as_interrupted(data_dir: Path) -> None:
    attempts = TurnSettings().max_attempts
    async with serving(data_dir, CONFIG) as server, followed(server) as stage:
        await stage.talker.send(type="user_message", content="count to 300", answer=None)
        for attempt in range(1, attempts + 1):
            await attempted(stage.followers[0].view, attempt)
            with server.kill("server"):
                await server.reap()
                await server.start()
        stage.stop()
        await stage.quiet()
        closed, over = (stage.ledger.events[seq].body for seq in (3, 4))
        assert (closed["finish_reason"], over["status"], stage.ledger.head) == ("interrupted", "interrupted", 4)
        # The text of the last checkpoint: a beginning of what it would have become.
        assert " ".join(str(number) for number in range(1, 301)).startswith(closed["content"])
        assert set(stage.ledger.opened.values()) == {attempts}


@pytest.mark.feature("S16", "T02")
async def test_a_log_reads_the_same_over_every_downlink_and_after_every_death(data_dir: Path) -> None:
    async with serving(data_dir, CONFIG) as server:
        async with followed(server) as stage:
            for content in ("call clock then calculate 6*7", "show emoji", "fail late"):
                await stage.talker.send(type="user_message", content=content, answer=None)
            stage.stop()
            head = await stage.quiet()
        live = dict(stage.ledger.events)
        for death in ("none", "server", "tree"):
            if death != "none":
                with server.kill("server" if death == "server" else "tree"):
                    await server.reap()
                    await server.start()
            for transport in TRANSPORTS:
                assert await replay(server, stage.ledger.session_id, transport) == live, (death, transport)
        assert list(live) == list(range(1, head + 1))


async def replay(server: ServerProcess, session_id: str, transport: Any) -> dict[int, Record]:
    """The whole log as one client sees it that nobody told anything."""
    ledger = Ledger(session_id)
    await Follower(server, View(ledger, f"replay-{transport}"), transport).once()
    return ledger.events


async def test_a_suspended_database_does_not_hold_up_the_end(data_dir: Path) -> None:
    async with serving(data_dir, CONFIG) as server:
        with Watched(tree(server.postmaster())) as database:
            database.kill(signal.SIGSTOP)
            assert await server.stop() == 0
            await database.gone()


async def test_a_data_directory_has_one_server(data_dir: Path) -> None:
    async with serving(data_dir, CONFIG) as server:
        second = ServerProcess(data_dir, CONFIG)
        try:
            with pytest.raises(AssertionError, match=str(server.pid)):
                await second.start()
        finally:
            await second.close()
        assert server.owners() == [server.pid]
        status, _, session = await ask(server, "POST", "/sessions", json={})
        assert (status, UUID(session["id"]).version) == (201, 7)
