"""A crowd of turns that wait for people: what they cost, and that a server's death is nothing to them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import asyncpg
import pytest

from tests.chaos.test_headline import CONFIG
from tests.support.process import ServerProcess, serving

#: Requests under way at once.
_HANDS: Final = 32
#: What a waiting turn may leave behind in the server: what it remembers of sessions lately used, and slack.
_MOST_BYTES: Final = 4_096

#: So many waiting turns as rows, as the server itself would have left them: one open approval each.
_CROWD: Final = """
WITH n AS (SELECT gen_random_uuid() AS s, gen_random_uuid() AS t, gen_random_uuid() AS m, gen_random_uuid() AS c
             FROM generate_series(1, $1::integer)),
     ses AS (INSERT INTO sessions (session_id, owner, epoch, current_agent, active_turn, created_at, last_activity)
             SELECT s, 'crowd', '1', 'writer', t, now(), now() FROM n),
     tur AS (INSERT INTO turns (turn_id, session_id, user_message_id, message_id, worker_id, created_at, agent_type,
                                state, step_state)
             SELECT t, s, m, m, gen_random_uuid(), now(), 'writer', 'waiting', 'tools' FROM n),
     cal AS (INSERT INTO tool_calls (call_id, session_id, turn_id, step, ordinal, name, arguments, executor, state,
                                     created_at)
             SELECT c, s, t, 1, 1, 'write_file', '{}', 'client', 'awaiting_approval', now() FROM n)
INSERT INTO approvals (approval_id, session_id, turn_id, call_id, owner, agent_type, name, arguments_hash,
                       allowed_decisions, created_at, expires_at, due_at)
SELECT gen_random_uuid(), s, t, c, 'crowd', 'writer', 'write_file', '', '{approve}', now(), now() + '1 day',
       now() + '1 day'
  FROM n
"""


class _Crowd:
    """Sessions over REST."""

    def __init__(self, server: ServerProcess, url: str) -> None:
        self.server = server
        self.url = url
        self.sessions: list[str] = []

    async def all(self, items: Iterable[Any], work: Callable[[Any], Awaitable[None]]) -> None:
        """Do something for each, some at a time."""
        hands = asyncio.Semaphore(_HANDS)

        async def one(item: Any) -> None:
            async with hands:
                await work(item)

        async with asyncio.TaskGroup() as group:
            for item in items:
                group.create_task(one(item))

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self.server.http.post(f"{self.url}{path}", json=body) as response:
            assert response.status < 300, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def begin(self, count: int) -> None:
        """So many more sessions, each with a turn that asks for approval."""

        async def one(_number: int) -> None:
            session = (await self.post("/sessions", {}))["id"]
            self.sessions.append(session)
            body = {"type": "user_message", "id": "say", "content": f"for {session}"}
            await self.post(f"/sessions/{session}/commands", body)

        await self.all(range(count), one)
        await self.states({"waiting": len(self.sessions)})

    async def decide_all(self) -> None:
        """Answer each in the tool's place, as found where people find them."""

        async def one(session: str) -> None:
            async with self.server.http.get(f"{self.url}/sessions/{session}/pending-approvals") as response:
                (pending,) = (await response.json())["pending_approvals"]
            assert pending["arguments"]["content"] == f"for {session}"
            body = {"type": "hitl_decision", "id": "decide", "call_id": pending["call_id"], "decision": "respond"}
            await self.post(f"/sessions/{session}/commands", {**body, "feedback": "written"})

        await self.all(self.sessions, one)

    async def states(self, wanted: dict[str, int]) -> None:
        """Wait until the turns are in these states."""
        connection = await asyncpg.connect(**self.server.database())
        try:
            async with asyncio.timeout(120):
                found: Counter[str] = Counter()
                while found != wanted:
                    # A round trip each: the database sets the pace.
                    rows = await connection.fetch("SELECT state, count(*) FROM turns GROUP BY state")
                    found = Counter(dict(rows))
        finally:
            await connection.close()


def resident(pid: int) -> int:
    """A process's resident memory in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


async def _survive(count: int, data_dir: Path, port: int, note: Callable[[str], None]) -> float:
    """So many turns through a kill; the bytes that each took in the server's memory before it."""
    async with serving(data_dir, CONFIG, port=port) as server:
        crowd = _Crowd(server, await server.address())
        # What the first of them bring about once and for all is not theirs.
        await crowd.begin(max(20, count // 5))
        before, warm = resident(server.pid), len(crowd.sessions)
        await crowd.begin(count - warm)
        each = (resident(server.pid) - before) / (count - warm)
        note(f"{count} turns wait for people: {each:.0f} bytes of the server's memory each")
        with server.kill("server") as killed:
            await server.reap()
            await server.start()
            await killed.gone()
        await crowd.states({"waiting": count})
        await crowd.decide_all()
        await crowd.states({"completed": count})
        return each


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("A03", "S16")
async def test_waiting_turns_survive_a_restart(
    data_dir: Path, unused_tcp_port: int, report_line: Callable[[str], None]
) -> None:
    # Too few to tell their memory from the allocator's pages, which is the long test's to judge.
    await _survive(100, data_dir, unused_tcp_port, report_line)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("A03", "S16")
async def test_a_thousand_waiting_turns_survive_a_restart(
    data_dir: Path, unused_tcp_port: int, report_line: Callable[[str], None]
) -> None:
    assert await _survive(1000, data_dir, unused_tcp_port, report_line) < _MOST_BYTES


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("long")
@pytest.mark.feature("A03")
async def test_a_hundred_thousand_waiting_turns_are_rows(
    data_dir: Path, unused_tcp_port: int, report_line: Callable[[str], None]
) -> None:
    async with serving(data_dir, CONFIG, port=unused_tcp_port) as server:
        alone = resident(server.pid)
        connection = await asyncpg.connect(**server.database())
        try:
            await connection.execute("SET synchronous_commit = off")
            await connection.execute("ANALYZE")
            await connection.fetch(_CROWD, 100_000)
            await connection.execute("ANALYZE")
        finally:
            await connection.close()
        assert await server.stop() == 0
        began = asyncio.get_running_loop().time()
        await server.start()
        took = asyncio.get_running_loop().time() - began
        crowd = _Crowd(server, await server.address())
        # Among them another one begins, waits and goes on as ever.
        session = (await crowd.post("/sessions", {}))["id"]
        crowd.sessions = [session]
        body = {"type": "user_message", "id": "say", "content": f"for {session}"}
        await crowd.post(f"/sessions/{session}/commands", body)
        await crowd.states({"waiting": 100_001})
        await crowd.decide_all()
        await crowd.states({"waiting": 100_000, "completed": 1})
        grown = resident(server.pid) - alone
        report_line(f"100,000 waiting turns: started in {took:.2f} s, the server {grown / 1024:.0f} KiB larger")
        assert grown < 16 << 20
