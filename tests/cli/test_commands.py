"""The commands as processes, on a real database."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from protocol.client import Client, Received, connect
from tests.cli.support import Process, parley, start
from tests.support.database import Cluster
from tests.support.server import MakeServer, RunningServer

FAST = '[agents]\nentry_points = false\n[agents.offline]\nspeed = 0\n[log]\nlevel = "warning"\n'


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "parley.toml").write_text(FAST)
    return str(tmp_path / "parley.toml")


async def address_of(process: Process) -> str:
    return (await process.line("listens on")).split()[-1]


@pytest.mark.feature("E01")
async def test_serve_says_where_it_is_and_stops_in_order(config: str, database_url: str) -> None:
    async with start("serve", "--port", "0", "--config", config, "--database-url", database_url) as process:
        address = await address_of(process)
        assert "console" in await process.line("console")
        assert "offline" in await process.line("agent")
        assert "PostgreSQL 18" in await process.line("database")
        assert "no tokens" in await process.line("access")
        async with aiohttp.ClientSession(address) as http, http.get("/ready") as response:
            assert response.status == 200
        process.process.terminate()
        assert await process.end() == (0, "", "")


@pytest.mark.feature("S18", "S10")
async def test_serve_needs_nothing_but_a_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "parley.toml").write_text(FAST)
    async with start("serve", "--port", "0", "--data-dir", str(data), cwd=tmp_path) as process:
        address = await address_of(process)
        database = await process.line("database")
        assert "embedded PostgreSQL 18" in database
        assert str(data) in database
        async with connect(address) as client:
            await client.say("hello")
            events = [event.event_type async for event in until(client, "task_completed")]
        assert events.count("message_created") == 2
        process.process.terminate()
        code, _, errors = await process.end()
        assert (code, errors) == (0, "")
    assert await parley("migrate", "--check", "--data-dir", str(data)) == (0, "nothing to do\n", "")


async def until(client: Client, event_type: str) -> AsyncIterator[Received]:
    async for event in client:
        yield event
        if event.event_type == event_type:
            return


async def test_a_second_server_on_the_port_is_told_so(config: str, server: RunningServer, database_url: str) -> None:
    code, out, errors = await parley(
        "serve", "--port", str(server.port), "--config", config, "--database-url", database_url
    )
    assert (code, out) == (1, "")
    assert f"127.0.0.1 port {server.port} is in use; choose another with --port" in errors


async def test_a_stopping_server_sends_its_streams_away_and_a_second_signal_hurries(
    tmp_path: Path, database_url: str
) -> None:
    config = tmp_path / "parley.toml"
    config.write_text(FAST + "[server]\nshutdown_timeout = 3000\n[channel]\nclose_timeout = 3000\n")
    arguments = ("serve", "--port", "0", "--config", str(config), "--database-url", database_url)
    async with start(*arguments) as process, aiohttp.ClientSession(await address_of(process)) as http:
        async with http.post("/sessions", json={"session_id": "a"}) as response:
            assert response.status == 201
        async with http.ws_connect("/sessions/a/ws", protocols=("parley.v1.json",), autoclose=False) as socket:
            assert (await socket.receive_json())["event_type"] == "connected"
            process.process.send_signal(signal.SIGINT)
            while (event := await socket.receive_json())["event_type"] != "disconnect":
                pass
            assert (event["payload"]["code"], event["payload"]["reconnect"]) == ("shutdown", True)
            # The close handshake is left unanswered: the server would wait for as long as it was told.
            process.process.send_signal(signal.SIGTERM)
            code, _, errors = await process.end()
    assert (code, "second signal" in errors) == (0, True)


@pytest.mark.feature("E01")
async def test_migrate_says_what_is_pending_and_applies_it(cluster: Cluster) -> None:
    name = await cluster.create("template0")
    url = cluster.dsn(name)
    try:
        code, out, _ = await parley("migrate", "--check", "--database-url", url)
        assert (code, "pending: 0001_" in out) == (3, True)
        code, out, _ = await parley("migrate", PARLEY_DATABASE_URL=url)
        assert (code, "applied: 0001_" in out) == (0, True)
        assert (await parley("migrate", "--database-url", url))[:2] == (0, "nothing to do\n")
        assert (await parley("migrate", "--check", "--database-url", url))[:2] == (0, "nothing to do\n")
    finally:
        await cluster.drop(name)


async def test_migrate_tells_when_nobody_answers_and_hides_the_password(unused_tcp_port: int) -> None:
    url = f"postgresql://ada:s3cret@127.0.0.1:{unused_tcp_port}/x"
    code, out, errors = await parley("migrate", "--database-url", url)
    assert (code, out) == (1, "")
    assert "does not answer" in errors
    assert "s3cret" not in errors


@pytest.mark.feature("E01", "T02")
@pytest.mark.parametrize("transport", ["auto", "ws", "sse", "ndjson"])
async def test_tail_shows_events_over_each_transport_and_over_a_restart(
    make_server: MakeServer, database_url: str, transport: str, unused_tcp_port: int
) -> None:
    first = await make_server(port=unused_tcp_port)
    session = await first.create_session(session_id="mine")
    arguments = ("tail", "mine", "--json", "--after", "0", "--transport", transport)
    async with start(*arguments, PARLEY_URL=first.url) as process:
        await process.line('"sync"')
        await first.command(session, type="user_message", content="one")
        seen = [await event_of(process) for _ in range(2)]
        await first.stop()
        second = await make_server(port=unused_tcp_port)
        await second.command(session, type="user_message", content="two")
        while len([event for event in seen if event["event_type"] == "task_completed"]) < 2:
            seen.append(await event_of(process))
    assert [event["seq"] for event in seen if "seq" in event] == list(range(1, seen[-1]["seq"] + 1))
    said = [event["payload"]["content"] for event in seen if event["event_type"] == "message_created"]
    assert said[0] == "one"
    assert "two" in said
    assert [event["event_type"] for event in seen].count("connected") == 1


async def event_of(process: Process) -> dict[str, Any]:
    event = json.loads(await process.line("{"))
    assert isinstance(event, dict)
    return event


async def test_tail_ends_quietly_when_its_reader_does_or_on_ctrl_c(server: RunningServer) -> None:
    await server.create_session(session_id="mine")
    async with start("tail", "mine", "--json", PARLEY_URL=server.url) as process:
        await process.line('"sync"')
        process.process.send_signal(signal.SIGINT)
        code, out, errors = await process.end()
    # That it is there itself may still have been told.
    assert (code, errors, [line for line in out.splitlines() if '"presence_changed"' not in line]) == (130, "", [])


@pytest.mark.parametrize("transport", ["auto", "ws", "sse", "ndjson"])
async def test_tail_tells_why_it_cannot_go_on(server: RunningServer, transport: str) -> None:
    code, out, errors = await parley("tail", "nobody", "--url", server.url, "--transport", transport)
    assert (code, out) == (1, "")
    assert errors.startswith("parley: ")
    assert "404" in errors or "there is no session 'nobody'" in errors
