"""The promise in one story: an approval outlives the server, and what a person reviewed is what runs, once.

An agent asks to write a file. The server is killed at some moment between the call and its result, and starts again.
The call is edited and approved from another client, over the other transport. The IDE's client writes once, exactly
what was reviewed; the turn completes; the audit tells who, when, from where, what was asked for and what was run.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import pytest

from protocol.client import Client, Events, connect
from protocol.events import ApprovalRequired, ApprovalResolved, TaskCompleted, ToolDispatched
from tests.chaos.conftest import Report
from tests.support.process import ServerProcess, serving

#: Moments at which the server is killed. Those with a number in them: so many turns of the loop after.
MOMENTS: Final = (
    "approval_required",
    "deciding",
    "approval_resolved",
    "tool_dispatched",
    "running",
    "ran",
    "answering",
)
CONFIG: Final = f"""\
[server]
shutdown_timeout = 5

[agents]
python = ["{Path(__file__).with_name("writer.py")}:writer"]
default = "writer"
"""
PATIENCE: Final = 60.0


class Story:
    """One telling of it."""

    def __init__(self, server: ServerProcess, moment: str, turns: int, dice: random.Random) -> None:
        self.server = server
        self.moment = moment
        self.turns = turns
        self.part = dice.choice(("server", "tree"))
        self.transports = dice.sample(("ws", "sse"), 2)
        self.reviewed = {"path": "final.txt", "content": f"reviewed {dice.random()}"}
        self.written: list[tuple[str, str]] = []
        self.heard: list[str] = []
        self._again: asyncio.Task[None] | None = None

    def __str__(self) -> str:
        return f"{self.part} killed at {self.moment}+{self.turns}, transports {self.transports}, heard {self.heard}"

    async def strike(self, moment: str) -> None:
        """Kill the server if this is its moment, and start it again meanwhile."""
        if moment == self.moment and self._again is None:
            for _ in range(self.turns):
                await asyncio.sleep(0)
            killed = self.server.kill(self.part)  # type: ignore[arg-type]
            self._again = asyncio.create_task(self._restart(killed))

    async def _restart(self, killed: Any) -> None:
        await self.server.reap()
        await self.server.start()
        with killed:
            await killed.gone()

    async def write_file(self, path: str, content: str) -> str:
        """Write a text file."""
        await self.strike("running")
        self.written.append((path, content))
        await self.strike("ran")
        if self.moment == "answering":
            # By the time the loop has turned so often the answer is on its way, or has arrived.
            self._answering = asyncio.create_task(self.strike("answering"))
        return f"wrote {path}"

    async def tell(self, port: int) -> UUID:
        """From the question to the last word; the session."""
        url = f"http://127.0.0.1:{port}"
        ide_transport, phone_transport = self.transports
        async with (
            connect(url, transport=ide_transport, client_id="ide", tools=[self.write_file]) as ide,  # type: ignore[arg-type]
            connect(url, ide.session, transport=phone_transport, client_id="phone") as phone,  # type: ignore[arg-type]
        ):
            # One iteration for the story: what another one has taken is over for those that begin later.
            events = aiter(phone)
            following = asyncio.create_task(self._follow(phone, ToolDispatched, "tool_dispatched"))
            await ide.say("the draft")
            required = await self._until(events, ApprovalRequired)
            await self.strike("approval_required")
            deciding = asyncio.create_task(phone.edit(required.call_id, self.reviewed))
            await self.strike("deciding")
            resolved = await self._until(events, ApprovalResolved)
            assert (resolved.decision, resolved.arguments) == ("edit", self.reviewed)
            await self.strike("approval_resolved")
            await deciding
            completed = await self._until(events, TaskCompleted)
            assert completed.status == "completed"
            if self._again is not None:
                await self._again
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            return UUID(ide.session)

    async def _until(self, events: Events, kind: type[Any]) -> Any:
        async with asyncio.timeout(PATIENCE):
            async for received in events:
                self.heard.append(received.event_type)
                if isinstance(received.payload, kind):
                    return received.payload
        raise AssertionError(f"the stream ended before {kind.__name__}")

    async def _follow(self, client: Client, kind: type[Any], moment: str) -> None:
        async for received in client:
            if isinstance(received.payload, kind):
                await self.strike(moment)

    async def check(self, session_id: UUID) -> Counter[str]:
        """What must be true of it, whatever was killed."""
        assert self.written == [(self.reviewed["path"], self.reviewed["content"])]
        connection = await asyncpg.connect(**self.server.database())
        try:
            events = await connection.fetch("SELECT * FROM events WHERE session_id = $1 ORDER BY seq", session_id)
            audit = await connection.fetch("SELECT * FROM audit WHERE session_id = $1", session_id)
            answers = await connection.fetch(
                "SELECT content FROM messages WHERE session_id = $1 AND role = 'tool'", session_id
            )
        finally:
            await connection.close()
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        types = Counter(event["event_type"] for event in events)
        once = ("tool_call", "approval_required", "approval_resolved", "tool_result", "task_completed")
        assert {name: types[name] for name in once} == dict.fromkeys(once, 1)
        dispatched = [
            msgspec.json.decode(event["body"]) for event in events if event["event_type"] == "tool_dispatched"
        ]
        assert dispatched
        assert all((each["client_id"], each["arguments"]) == ("ide", self.reviewed) for each in dispatched)
        (answer,) = answers
        assert "wrote final.txt" in answer["content"]
        assert "The user changed the arguments" in answer["content"]
        (entry,) = audit
        assert (entry["user_id"], entry["client_id"], entry["decision"]) == ("local", "phone", "edit")
        # What was not acknowledged over a WebSocket may be sent again over POST.
        assert entry["transport"] in ({"websocket", "http"} if self.transports[1] == "ws" else {"http"})
        assert msgspec.json.decode(entry["arguments"]) == {"path": "draft.txt", "content": "the draft"}
        assert msgspec.json.decode(entry["executed"]) == self.reviewed
        assert entry["at"] is not None
        return types


async def _tell(rounds: int, seed: str, data_dir: Path, port: int, report: Report) -> None:
    dice = random.Random(f"{seed}-headline")
    loop = asyncio.get_running_loop()
    began, tally, moments = loop.time(), Counter[str](), Counter[str]()
    try:
        async with serving(data_dir, CONFIG, port=port) as server:
            for _ in range(rounds):
                moment = dice.choice(MOMENTS)
                turns = dice.choice((0, 0, 1, 3, 10, 30, 100)) if moment in {"deciding", "answering"} else 0
                story = Story(server, moment, turns, dice)
                try:
                    tally += await story.check(await story.tell(port))
                except BaseException as error:
                    error.add_note(f"{story}, and the server's last words:\n" + "\n".join(server.log[-20:]))
                    raise
                moments[f"{moment}"] += 1
                tally[f"kills of {story.part}"] += 1
    except BaseException as error:
        error.add_note(f"replay with PARLEY_CHAOS_SEED={seed} PARLEY_CHAOS_ROUNDS={rounds} and -k headline")
        raise
    tally.update({"sessions": rounds, "completed": tally["task_completed"], "durable": tally.total()})
    report(
        "headline: " + ", ".join(f"{n} at {name}" for name, n in sorted(moments.items())),
        seed,
        loop.time() - began,
        tally,
    )


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("A02", "A03", "R02", "S30")
async def test_headline_a_hundred_times(seed: str, data_dir: Path, unused_tcp_port: int, report: Report) -> None:
    await _tell(int(os.environ.get("PARLEY_HEADLINE_ROUNDS", "100")), seed, data_dir, unused_tcp_port, report)


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("A02", "A03", "R02", "S30")
async def test_headline_a_few_times(same_seed: str, data_dir: Path, unused_tcp_port: int, report: Report) -> None:
    await _tell(3, same_seed, data_dir, unused_tcp_port, report)
