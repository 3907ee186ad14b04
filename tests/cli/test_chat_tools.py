"""`parley chat --folder`: an agent works in a folder, and its user decides about its calls."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from protocol.client import connect
from protocol.events import ApprovalRequired
from server.agents.interface import AgentContext, AgentYield, FunctionAgent, ToolCallDelta, agent
from tests.cli.emulator import Emulator
from tests.cli.support import Terminal, asking, parley, terminal
from tests.support.server import MakeServer, RunningServer

TOOLS = (
    "read_file",
    "write_file",
    "list_files",
    "execute_command",
    "delete_file",
    "ask_followup_question",
    "attempt_completion",
)


def calls(text: str) -> list[tuple[str, str]]:
    """What a message asks for: a line a call, a tool's name and its arguments."""
    found = (line.partition(" ") for line in text.splitlines())
    return [(name, arguments) for name, _, arguments in found if arguments.startswith("{")]


def obedient(name: str) -> FunctionAgent:
    """An agent that calls what the user names, and then says what came of it."""

    @agent(name, tools=TOOLS)
    async def run(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        last = context.history[-1]
        wanted = calls(last.content) if last.role == "user" else []
        for index, (tool, arguments) in enumerate(wanted):
            yield ToolCallDelta(index, call_id=f"c{index}", name=tool, arguments=arguments)
        if not wanted:
            results: list[str] = []
            for message in reversed(context.history):
                if message.role != "tool":
                    break
                results.insert(0, message.content)
            yield "came of it: " + " | ".join(results or [last.content])

    return run


@pytest.fixture
async def server(make_server: MakeServer) -> RunningServer:
    server = await make_server(obedient("worker"))
    await server.create_session(session_id="notes")
    return server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.txt").write_text("one\ntwo\n")
    return folder


def status_of(emulator: Emulator) -> str:
    return next((line for line in reversed(emulator.screen) if line.strip()), "")


async def ready(chat: Terminal) -> None:
    await chat.until(lambda emulator: "● WebSocket" in status_of(emulator), "a status")


async def decided(chat: Terminal) -> None:
    await chat.until(lambda emulator: "for you to decide" not in status_of(emulator), "no decision is waited for")


WRITE = 'write_file {"path": "a.txt", "content": "one\\n2\\n"}'


@pytest.mark.feature("E01", "A02", "A03")
async def test_a_change_is_shown_approved_and_made(server: RunningServer, folder: Path) -> None:
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat:
        await ready(chat)
        assert "commands with all that you may do" in " ".join(chat.emulator.text.split())
        chat.say('read_file {"path": "a.txt"}')
        # What only reads is not asked about.
        await chat.until("came of it: one")
        chat.say(WRITE)
        await chat.until("? worker wants to call write_file")
        await chat.until("y yes · n [WHY] no · e edit · a always write_file")
        for line in ("  -two", "  +2", "   one"):
            assert line in chat.emulator.text
        await chat.until(lambda emulator: "1 for you to decide" in status_of(emulator), "the status says so")
        assert (folder / "a.txt").read_text() == "one\ntwo\n"
        chat.say("y")
        await chat.until("came of it: replaced a.txt")
        assert "is approved" in chat.emulator.text
        assert (folder / "a.txt").read_text() == "one\n2\n"
        chat.type("\x04")
        assert await chat.end() == 0
    assert chat.emulator.strange == []


@pytest.mark.feature("A03", "S27")
async def test_a_call_is_rejected_with_a_reason_and_what_is_no_answer_is_a_message(
    server: RunningServer, folder: Path
) -> None:
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat:
        await ready(chat)
        chat.say('delete_file {"path": "a.txt"}')
        await chat.until("? worker wants to call delete_file")
        chat.say("yes, but why?")
        await chat.until("> yes, but why? (waits)")
        chat.say("n it is mine")
        await chat.until("is rejected: it is mine")
        await chat.until("came of it: yes, but why?")
        assert "They said: it is mine" in " ".join(chat.emulator.text.split())
    assert (folder / "a.txt").exists()


@pytest.mark.feature("A03")
async def test_arguments_are_changed_on_a_line(server: RunningServer, folder: Path) -> None:
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat:
        await ready(chat)
        chat.say(WRITE)
        await chat.until("y yes · n [WHY] no")
        chat.say("e")
        await chat.until('arguments> {"path": "a.txt"')
        # Escape leaves them as they were, and stops nothing.
        chat.type("\x1b")
        await chat.until("y yes · n [WHY] no")
        chat.say("e")
        await chat.until('arguments> {"path": "a.txt"')
        chat.type("\x7f")
        chat.say(', "mode": 1}')
        await chat.until("e edits it again")
        await chat.until("y yes · n [WHY] no")
        chat.say("e")
        await chat.until("change the arguments; Enter takes them")
        assert '"mode": 1}' in chat.emulator.text
        chat.type("\x7f" * 200)
        chat.say('{"path": "b.txt", "content": "edited"}')
        await chat.until("is approved as edited")
        await chat.until("wrote b.txt: 1 lines")
    assert (folder / "b.txt").read_text() == "edited"
    assert (folder / "a.txt").read_text() == "one\ntwo\n"


@pytest.mark.feature("A03")
async def test_arguments_are_changed_in_the_users_editor(server: RunningServer, folder: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import sys; path = sys.argv[1]; text = open(path).read(); print('EDITOR IS HERE'); input();"
        " open(path, 'w').write(text.replace('2', 'from the editor'))"
    )
    variables = {"EDITOR": f"{sys.executable} {editor}"}
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40, variables=variables) as chat:
        await ready(chat)
        chat.say(WRITE)
        await chat.until("y yes · n [WHY] no")
        chat.say("e")
        await chat.until("EDITOR IS HERE")
        chat.type("\n")
        await chat.until("is approved as edited")
        await chat.until("replaced a.txt: 2 lines")
        chat.type("\x04")
        assert await chat.end() == 0
    assert (folder / "a.txt").read_text() == "one\nfrom the editor\n"


@pytest.mark.feature("A03")
async def test_always_is_asked_once_and_of_a_command_means_that_command(server: RunningServer, folder: Path) -> None:
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=50) as chat:
        await ready(chat)
        chat.say('execute_command {"command": "echo hello"}')
        await chat.until("  $ echo hello")
        await chat.until("a always this command")
        chat.say("a")
        await chat.until("came of it:")
        chat.say('execute_command {"command": "echo hello"}')
        await chat.until(lambda emulator: emulator.text.count("came of it:") == 2, "another answer")
        assert chat.emulator.text.count("wants to call") == 1
        chat.say('execute_command {"command": "echo goodbye"}')
        await chat.until("  $ echo goodbye")
        chat.say("n")
        await chat.until(lambda emulator: emulator.text.count("came of it:") == 3, "the last answer")
    assert '"stdout":"hello' in chat.emulator.text.replace("\n", "").replace(" ", "")


@pytest.mark.feature("A03")
async def test_what_was_being_typed_when_a_question_appeared_answers_nothing(
    server: RunningServer, folder: Path
) -> None:
    async with (
        terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat,
        connect(server.url, "notes") as other,
    ):
        await ready(chat)
        chat.type("y")
        await chat.until("> y")
        await other.say('delete_file {"path": "a.txt"}')
        await chat.until("what you are typing is a message")
        chat.type("\r")
        await chat.until("> y (waits)")
        assert (folder / "a.txt").exists()
        chat.say("y")
        await chat.until("came of it: deleted a.txt")


@pytest.mark.feature("A03")
async def test_somebody_elses_decision_ends_the_question(server: RunningServer, folder: Path) -> None:
    async with (
        terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat,
        connect(server.url, "notes") as other,
    ):
        await ready(chat)
        chat.say('delete_file {"path": "a.txt"}')
        await chat.until("? worker wants to call delete_file")
        async for event in other:
            if isinstance(event.payload, ApprovalRequired):
                await other.reject(event.payload.call_id, "from the other one")
                break
        await decided(chat)
        await chat.until("came of it:")
        assert "from the other one" in " ".join(chat.emulator.text.split())


@pytest.mark.feature("A04")
async def test_ctrl_c_stops_a_turn_that_waits_for_the_user(server: RunningServer, folder: Path) -> None:
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat:
        await ready(chat)
        chat.say('delete_file {"path": "a.txt"}')
        await chat.until("? worker wants to call delete_file")
        chat.type("\x03")
        await chat.until("the turn was cancelled")
        await decided(chat)
    assert (folder / "a.txt").exists()


async def test_an_agent_asks_and_presents(server: RunningServer, folder: Path) -> None:
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat:
        await ready(chat)
        chat.say('ask_followup_question {"question": "Which one?", "options": ["red", "blue"]}')
        await chat.until("? Which one?")
        await chat.until("  2. blue")
        chat.say("2")
        await chat.until("came of it: blue")
        chat.say('attempt_completion {"result": "All is done.", "command": "make"}')
        await chat.until("see: make")
        assert "All is done." in chat.emulator.text
        chat.say("/who")
        await chat.until("(you), owner, WebSocket: read_file")


async def test_calls_at_once_are_asked_one_after_the_other(server: RunningServer, folder: Path) -> None:
    both = 'delete_file {"path": "a.txt"}\x1b\rdelete_file {"path": "b.txt"}'
    (folder / "b.txt").write_text("b")
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat:
        await ready(chat)
        chat.say(both)
        await chat.until("1 of 2: y yes")
        chat.say("n keep it")
        await chat.until("is rejected: keep it")
        await chat.until("1 for you to decide")
        chat.say("y")
        await chat.until("came of it:")
    # Each answer went to its call.
    assert os.listdir(folder) == ["a.txt"]


@pytest.mark.feature("A05")
async def test_what_an_asked_agent_does_is_shown_below_and_its_calls_are_asked(
    make_server: MakeServer, folder: Path
) -> None:
    @agent("boss", tools=["ask_agent"], delegates=("worker",))
    async def boss(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        last = context.history[-1]
        if last.role == "user":
            task = json.dumps({"agent_type": "worker", "task": 'delete_file {"path": "a.txt"}'})
            yield ToolCallDelta(0, call_id="c", name="ask_agent", arguments=task)
        else:
            yield f"the worker says: {last.content}"

    server = await make_server(boss, obedient("worker"))
    async with terminal("chat", "notes", "--folder", str(folder), url=server.url, rows=40) as chat:
        await ready(chat)
        chat.say("delete it")
        await chat.until("? worker wants to call delete_file")
        assert "\n  ● asks: delete_file" in chat.emulator.text
        chat.say("y")
        await chat.until("the worker says: came of it: deleted a.txt")
        assert "\n  ▸ delete_file" in chat.emulator.text
        assert "\n  ● worker: came of it: deleted a.txt" in chat.emulator.text
    assert not (folder / "a.txt").exists()


# --- line by line


async def test_questions_line_by_line(server: RunningServer, folder: Path) -> None:
    async with terminal("chat", "notes", "--plain", "--folder", str(folder), url=server.url, rows=60) as chat:
        await chat.until("connected over WebSocket")
        chat.say(WRITE)
        await chat.until("-- ? worker wants to call write_file")
        await chat.until("--   +2")
        await chat.until("-- y yes")
        chat.say("e")
        await chat.until("enter the arguments anew")
        chat.say('{"path": "a.txt", "content": "three"}')
        await chat.until("replaced a.txt: 1 lines, 5 bytes\n")
        chat.say('delete_file {"path": "a.txt"}')
        await chat.until("-- ? worker wants to call delete_file")
        chat.say("n no")
        await chat.until("is rejected: no")
        chat.type("\x04")
        assert await chat.end() == 0
    assert (folder / "a.txt").read_text() == "three"


# --- one question


@pytest.mark.feature("E01", "A02")
@pytest.mark.parametrize(
    ("how", "write", "read"),
    [
        ("never", "nobody is there to approve it", "one"),
        ("reads", "nobody is there to approve it", "one"),
        ("all", "replaced a.txt", "one"),
        ("ask", "nobody is there to approve it", "one"),
    ],
)
async def test_a_question_from_a_pipe(server: RunningServer, folder: Path, how: str, write: str, read: str) -> None:
    arguments = ("chat", "--folder", str(folder), "--approve", how)
    code, out, errors = await asking(WRITE, *arguments, PARLEY_URL=server.url)
    assert (code, write in out) == (0, True), (out, errors)
    code, out, _ = await asking('read_file {"path": "a.txt"}', *arguments, PARLEY_URL=server.url)
    assert (code, f"came of it: {read}" in out) == (0, True)
    code, out, _ = await asking('ask_followup_question {"question": "?"}', *arguments, PARLEY_URL=server.url)
    assert "nobody is there to answer" in out


async def test_somebody_else_may_be_waited_for(server: RunningServer, folder: Path) -> None:
    async with connect(server.url, "notes") as other:
        task = asyncio.create_task(
            asking(WRITE, "chat", "notes", "--folder", str(folder), "--approve", "wait", PARLEY_URL=server.url)
        )
        async for event in other:
            if isinstance(event.payload, ApprovalRequired):
                await other.approve(event.payload.call_id)
                break
        code, out, _ = await task
    assert (code, "replaced a.txt" in out) == (0, True)


async def test_one_question_at_a_terminal_asks_there(server: RunningServer, folder: Path) -> None:
    async with terminal("chat", "--folder", str(folder), "-m", WRITE, url=server.url, rows=40) as chat:
        await chat.until("-- ? worker wants to call write_file")
        await chat.until("-- y yes")
        chat.say("what?")
        await chat.until(lambda emulator: emulator.text.count("-- y yes") == 2, "the keys again")
        chat.say("y")
        assert await chat.end() == 0
    assert "came of it: replaced a.txt" in chat.emulator.text
    assert (folder / "a.txt").read_text() == "one\n2\n"


async def test_folders_that_are_none_or_too_much(tmp_path: Path) -> None:
    for folder, words in (
        (str(tmp_path / "none"), "No such file or directory"),
        (__file__, "Not a directory"),
        ("/", "holds much more than a project"),
        (str(Path.home()), "holds much more than a project"),
    ):
        code, _, errors = await parley("chat", "-m", "hello", "--folder", folder)
        assert (code, "--folder: " in errors, words in errors) == (2, True, True), errors
