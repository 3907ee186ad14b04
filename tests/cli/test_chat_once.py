"""One question to `parley chat`, as scripts ask it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from protocol.client import connect
from server.agents.interface import AgentContext, agent
from server.config import AuthSettings, TokenSettings
from tests.cli.support import asking, parley, start, terminal
from tests.support.server import MakeServer, RunningServer


@pytest.mark.feature("E01")
async def test_a_question_is_answered_and_nothing_else_is_printed(server: RunningServer) -> None:
    assert await parley("chat", "notes", "-m", "count to 5", PARLEY_URL=server.url) == (0, "1 2 3 4 5\n", "")
    assert await parley("chat", "-m", "count to 5", "--url", server.url) == (0, "1 2 3 4 5\n", "")
    said = [message["content"] for message in await server.history("notes")]
    assert said == ["count to 5", "1 2 3 4 5"]


@pytest.mark.feature("E01")
async def test_a_question_may_come_from_a_pipe(server: RunningServer) -> None:
    assert await asking("echo one\ntwo\n", "chat", "notes", PARLEY_URL=server.url) == (0, "one\ntwo\n", "")
    assert await asking("count to 3", "chat", "notes", "-m", "-", PARLEY_URL=server.url) == (0, "1 2 3\n", "")
    assert await asking("never read", "chat", "notes", "-m", "count to 2", PARLEY_URL=server.url) == (0, "1 2\n", "")


async def test_the_answer_is_what_was_said_last(server: RunningServer) -> None:
    code, out, _ = await parley("chat", "notes", "-m", "calculate 6*7", PARLEY_URL=server.url)
    assert (code, out) == (0, "`calculate` returned: 42\n")


@pytest.mark.feature("E01", "A07")
async def test_json_has_the_answer_and_what_is_known_about_it(server: RunningServer) -> None:
    code, out, errors = await parley("chat", "notes", "-m", "calculate 6*7", "--json", PARLEY_URL=server.url)
    assert (code, errors) == (0, "")
    answer = json.loads(out)
    assert answer["status"] == "completed"
    assert answer["answer"] == "`calculate` returned: 42"
    assert answer["calls"] == [{"name": "calculate", "arguments": {"expression": "6*7"}}]
    assert answer["usage"]["total_tokens"] > 0
    assert answer["error"] is None
    async with server.client.get("/sessions/notes") as response:
        assert (await response.json())["id"] == answer["session_id"]


async def test_json_keeps_what_a_terminal_must_not_see(server: RunningServer) -> None:
    text = "a\x1b[2Jb\u202ec"
    code, out, _ = await parley("chat", "notes", "-m", f"echo {text}", PARLEY_URL=server.url)
    assert (code, out) == (0, "a[2Jbc\n")
    code, out, _ = await parley("chat", "notes", "-m", f"echo {text}", "--json", PARLEY_URL=server.url)
    assert (code, json.loads(out)["answer"]) == (0, text)


async def test_a_turn_that_fails_is_exit_code_1(server: RunningServer) -> None:
    code, out, errors = await parley("chat", "notes", "-m", "fail late", PARLEY_URL=server.url)
    assert (code, out) == (1, "")
    assert errors == "parley: there is no whole answer: requested: you asked for a failure\n"
    code, out, errors = await parley("chat", "notes", "-m", "fail late", "--json", PARLEY_URL=server.url)
    assert (code, errors) == (1, "")
    assert json.loads(out)["error"] == {"code": "requested", "message": "you asked for a failure"}
    assert json.loads(out)["status"] == "failed"


@pytest.fixture
async def endless(make_server: MakeServer) -> RunningServer:
    @agent("endless", description="Never comes to an end")
    async def endless(context: AgentContext) -> AsyncGenerator[str, None]:
        yield "It begins."
        await asyncio.get_running_loop().create_future()

    return await make_server(endless)


@pytest.mark.feature("E01", "A04")
async def test_ctrl_c_stops_the_agent_too_and_is_exit_code_130(endless: RunningServer) -> None:
    session = await endless.create_session(session_id="notes")
    async with (
        connect(endless.url, session) as watcher,
        start("chat", "notes", "-m", "go", PARLEY_URL=endless.url) as chat,
    ):
        async for event in watcher:
            if event.event_type == "message_delta":
                chat.process.send_signal(signal.SIGINT)
            if event.event_type == "task_completed":
                break
        assert await chat.end() == (130, "", "")
    assert event.payload.status == "cancelled"  # type: ignore[union-attr]


async def test_ctrl_c_takes_back_a_message_that_still_waits(endless: RunningServer) -> None:
    session = await endless.create_session(session_id="notes")
    async with connect(endless.url, session) as watcher:
        await watcher.say("first")
        async with start("chat", "notes", "-m", "second", PARLEY_URL=endless.url) as chat:
            changes = []
            async for event in watcher:
                if event.event_type == "queue_changed":
                    changes.append(event.payload.change)  # type: ignore[union-attr]
                    if changes == ["added"]:
                        chat.process.send_signal(signal.SIGINT)
                    else:
                        break
            assert await chat.end() == (130, "", "")
        assert changes == ["added", "removed"]
        await watcher.cancel()


async def test_on_a_terminal_the_answer_is_drawn(server: RunningServer) -> None:
    async with terminal("chat", "notes", "-m", "show markdown", url=server.url) as chat:
        assert await chat.end() == 0
    text = chat.emulator.text
    assert text.startswith(
        "-- session notes (a new session; there was none called notes)\nA heading\n\nA paragraph with"
    )
    assert text.endswith("\nAnd that is all.\n")
    assert "1" in chat.emulator.style_of("bold").split(";")
    async with terminal("chat", "notes", "-m", "show markdown", "--plain", url=server.url) as chat:
        assert await chat.end() == 0
    assert "# A heading\n\nA paragraph with **bold**" in chat.emulator.text
    assert b"\x1b" not in chat.written


@pytest.mark.feature("E01")
async def test_which_session_and_which_agent(server: RunningServer) -> None:
    async def ask(*arguments: str) -> tuple[int, dict[str, Any], str]:
        code, out, errors = await parley("chat", *arguments, "--json", PARLEY_URL=server.url)
        return code, json.loads(out) if out else {}, errors

    _, first, _ = await ask("-m", "count to 1")
    _, named, _ = await ask("notes", "-m", "count to 1", "--agent", "coder")
    assert first["session_id"] != named["session_id"]
    assert (first["agent"], named["agent"]) == ("offline", "coder")
    _, again, _ = await ask("--continue", "-m", "count to 1")
    assert (again["session_id"], again["agent"]) == (named["session_id"], "coder")
    _, once, _ = await ask("notes", "-m", "count to 1", "--agent", "debug")
    assert (once["session_id"], once["agent"]) == (named["session_id"], "debug")
    _, after, _ = await ask(named["session_id"], "-m", "count to 1")
    assert after["agent"] == "coder"


@pytest.mark.feature("E01", "R01")
async def test_a_token_is_asked_for_and_used(make_server: MakeServer) -> None:
    token = "t" * 32
    server = await make_server(auth=AuthSettings(tokens=(TokenSettings(user="ada", token=token),)))
    here = ("--url", server.url)
    code, out, errors = await parley("chat", "-m", "count to 3", *here)
    assert (code, out) == (1, "")
    assert errors == f"parley: {server.url} wants to know who is asking: set PARLEY_TOKEN to your token\n"
    code, out, errors = await parley("sessions", "--token", "wrong" * 8, *here)
    assert (code, out) == (1, "")
    assert errors == f"parley: {server.url} does not know this token: set PARLEY_TOKEN to your token\n"
    assert await parley("chat", "notes", "-m", "count to 3", *here, PARLEY_TOKEN=token) == (0, "1 2 3\n", "")
    assert (await parley("sessions", "--token", token, *here))[0] == 0


async def test_mistakes_are_told_with_what_to_do(server: RunningServer, unused_tcp_port: int) -> None:
    nobody = "01890000-0000-7000-8000-000000000000"
    asked = ("-m", "hi", "--url", server.url)
    for arguments, expected, message in [
        (("chat", nobody, *asked), 1, f"there is no session '{nobody}'; yours are listed by: parley sessions"),
        (("chat", "no/name", *asked), 2, "SESSION: an id has 1-128 characters out of A-Z a-z 0-9 . _ : -"),
        (("chat", "x", "--agent", "nobody", *asked), 2, "--agent: there is no agent 'nobody'"),
        (("chat", "x", "--continue", *asked), 2, "--continue goes on in the session used last"),
        (("chat", "x", "-m", " "), 2, "there is no question: it is empty"),
        (("chat", "x"), 2, "there is no question: it is empty"),
        (("chat", "x", "-m", "a", "--url", "ftp://x"), 2, "--url: 'ftp://x' is no server's address"),
        (("chat", "x", "-m", "a", "--url", "localhost:80"), 2, "did you mean http://localhost:80?"),
        (("chat", "-m", "a", "--url", f"http://127.0.0.1:{unused_tcp_port}"), 1, "start it with: parley serve"),
    ]:
        code, out, errors = await parley(*arguments)
        assert (code, out) == (expected, ""), errors
        assert errors.startswith("parley: ")
        assert message in errors
        assert errors.count("\n") == 1
