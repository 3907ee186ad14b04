"""`parley tail`: what it shows, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from server.agents.interface import AgentContext, agent
from tests.cli.support import parley, start
from tests.support.server import MakeServer, RunningServer


@pytest.fixture
async def told(server: RunningServer) -> RunningServer:
    """A server with a session `notes` in which one thing was asked, with a tool, and answered."""
    session = await server.create_session(session_id="notes")
    await server.command(session, type="user_message", content="Calculate 6*7")
    code, *_ = await parley("tail", "notes", "--after", "0", "--exit-when-idle", PARLEY_URL=server.url)
    assert code == 0
    return server


async def events(server: RunningServer, *arguments: str) -> list[dict[str, Any]]:
    """What is shown of everything that happened."""
    code, out, errors = await parley(
        *("tail", "notes", "--after", "0", "--json", "--exit-when-idle", *arguments), PARLEY_URL=server.url
    )
    assert (code, errors) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def types(shown: list[dict[str, Any]]) -> list[str]:
    return [event["event_type"] for event in shown]


@pytest.mark.feature("E01")
async def test_it_shows_only_what_is_asked_for(told: RunningServer) -> None:
    everything = types(await events(told))
    assert {"connected", "sync", "message_created", "tool_call", "task_started", "task_completed"} <= set(everything)
    assert types(await events(told, "--type", "message_created,task_*")) == [
        event for event in everything if event.startswith(("message_created", "task_"))
    ]
    assert types(await events(told, "--type", "tool_*", "--type", "sync")) == ["tool_call", "tool_result", "sync"]
    assert types(await events(told, "--only", "control")) == ["connected", "sync"]
    assert set(types(await events(told, "--only", "durable"))) == set(everything) - {"connected", "sync"}
    said = await events(told, "--role", "user")
    assert [event["payload"]["content"] for event in said] == ["Calculate 6*7"]
    assert types(await events(told, "--role", "assistant", "--no-deltas")) == ["message_created"] * 2
    assert types(await events(told, "--only", "durable", "--grep", r"calculate 6\*7")) == ["message_created"]
    assert types(await events(told, "--grep", "calculate", "--type", "tool_*")) == ["tool_call", "tool_result"]


@pytest.fixture
async def gated(make_server: MakeServer) -> tuple[RunningServer, asyncio.Event]:
    """A server whose agent says two words, and the second one when it is told to."""
    gate = asyncio.Event()

    @agent("gated", description="Waits")
    async def waits(context: AgentContext) -> AsyncGenerator[str, None]:
        yield "one "
        await gate.wait()
        yield "two"

    return await make_server(waits), gate


@pytest.mark.feature("E01", "A01")
async def test_deltas_come_as_they_are_written_unless_they_are_not_wanted(
    gated: tuple[RunningServer, asyncio.Event],
) -> None:
    server, gate = gated
    session = await server.create_session(session_id="notes")
    async with (
        start("tail", "notes", "--exit-when-idle", "--json", "--after", "0", PARLEY_URL=server.url) as all_of_it,
        start("tail", "notes", "--until", "task_completed", "--no-deltas", PARLEY_URL=server.url) as messages,
    ):
        await messages.note("connected over WebSocket")
        # Nothing happens there yet, so it has ended; the next one finds a running turn.
        assert (await all_of_it.end())[0] == 0
        await server.command(session, type="user_message", content="go")
        async with start("tail", "notes", "--exit-when-idle", "--json", PARLEY_URL=server.url) as later:
            assert '"one ' in await later.line("message_delta")
            gate.set()
            code, out, _ = await later.end()
            assert (code, json.loads(out.splitlines()[-1])["event_type"]) == (0, "task_completed")
        assert (await messages.end())[:2] == (0, "user> go\ngated> one two\n")


async def test_it_does_not_end_while_a_message_waits(gated: tuple[RunningServer, asyncio.Event]) -> None:
    server, gate = gated
    session = await server.create_session(session_id="notes")
    await server.command(session, type="user_message", content="first")
    await server.command(session, type="user_message", content="second")
    async with start("tail", "notes", "--exit-when-idle", "--json", PARLEY_URL=server.url) as shown:
        await shown.line('"sync"')
        gate.set()
        code, out, _ = await shown.end()
    assert code == 0
    assert types([json.loads(line) for line in out.splitlines()]).count("task_completed") == 2


@pytest.mark.feature("E01")
async def test_it_ends_when_it_is_told_to(told: RunningServer) -> None:
    arguments = ("tail", "notes", "--after", "0", "--json")
    code, out, _ = await parley(*arguments, "--until", "tool_*", PARLEY_URL=told.url)
    assert (code, json.loads(out.splitlines()[-1])["event_type"]) == (0, "tool_call")
    code, out, _ = await parley(*arguments, "--limit", "2", "--only", "durable", PARLEY_URL=told.url)
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = await parley(*arguments, "--type", "sync", "--until", "task_completed", PARLEY_URL=told.url)
    assert (code, out) == (0, "")


async def test_lines_have_their_time_if_that_is_wanted(told: RunningServer) -> None:
    code, out, errors = await parley(
        *("tail", "notes", "--after", "0", "--exit-when-idle", "--timestamps"), PARLEY_URL=told.url
    )
    assert code == 0
    times = [line.split(" ", 1)[0] for line in out.splitlines()]
    assert times == sorted(times)
    assert all(time.endswith("Z") for time in times)
    assert [line.split(" ", 1)[1] for line in out.splitlines()] == [
        "user> Calculate 6*7",
        "offline> I call `calculate`.",
        "offline> `calculate` returned: 42",
    ]
    assert 'calls calculate(expression="6*7")' in errors
    assert "calculate → 42" in errors


async def test_mistakes_are_told_with_what_to_do(server: RunningServer, unused_tcp_port: int) -> None:
    await server.create_session(session_id="notes")
    here = ("--url", server.url)
    for arguments, expected, message in [
        (("nobody", *here), 1, "there is no session 'nobody'; yours are listed by: parley sessions"),
        (
            ("notes", "--type", "message_craeted", *here),
            2,
            "--type: there is no event of type 'message_craeted'; there",
        ),
        (("notes", "--until", "x", *here), 2, "--until: there is no event of type 'x'"),
        (("notes", "--only", "durables", *here), 2, "--only: 'durables' is none of durable, delta, transient, control"),
        (("notes", "--role", "model", *here), 2, "--role: 'model' is none of user, assistant, tool, system"),
        (("notes", "--grep", "(", *here), 2, "--grep: '(' is no regular expression"),
        (("notes", "--after", "yesterday", *here), 2, "after: 'yesterday' is not possible"),
        (("notes", "--url", "ftp://x"), 2, "--url: 'ftp://x' is no server's address"),
        (("notes", "--url", f"http://127.0.0.1:{unused_tcp_port}"), 1, "is it running? start it with: parley serve"),
        (("notes", "--url", f"http://127.0.0.2:{unused_tcp_port}"), 1, "is this its address (--url, PARLEY_URL)?"),
    ]:
        code, out, errors = await parley("tail", *arguments)
        assert (code, out) == (expected, ""), errors
        assert errors.startswith("parley: ")
        assert message in errors
