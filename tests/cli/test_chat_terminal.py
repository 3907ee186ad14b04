"""`parley chat` on a terminal: a real process on a real pty, with a real server behind it."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path

import pytest

from protocol.client import connect
from server.agents.interface import AgentContext, AgentYield, Reasoning, ToolCallDelta, agent
from server.agents.tools import tool
from tests.cli.emulator import Emulator
from tests.cli.support import Terminal, start, terminal
from tests.support.server import MakeServer, RunningServer


class Script:
    """An agent that says what the test gives it, when the test gives it."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[AgentYield | None] = asyncio.Queue()

    def say(self, *pieces: AgentYield) -> None:
        """Let the agent say this now."""
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def end(self, *pieces: AgentYield) -> None:
        """Let it say this, and end its step."""
        self.say(*pieces)
        self._pieces.put_nowait(None)

    async def pieces(self) -> AsyncGenerator[AgentYield, None]:
        while (piece := await self._pieces.get()) is not None:
            yield piece


@tool(read_only=True)
def shout(text: str) -> str:
    """Make it loud."""
    return text.upper()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
async def scripted(make_server: MakeServer, script: Script) -> RunningServer:
    """A server whose agent follows the script."""

    @agent("scripted", description="Says what the test wants", tools=[shout])
    async def scripted(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        async for piece in script.pieces():
            yield piece

    return await make_server(scripted)


def status_of(emulator: Emulator) -> str:
    """The line under the input."""
    return next((line for line in reversed(emulator.screen) if line.strip()), "")


def shows(text: str) -> Callable[[Emulator], object]:
    return lambda emulator: text in status_of(emulator)


async def ready(chat: Terminal, transport: str = "WebSocket") -> None:
    await chat.until(lambda emulator: f"● {transport}" in status_of(emulator), f"a status with {transport}")


async def idle(chat: Terminal) -> None:
    await chat.until(lambda emulator: "/help" in status_of(emulator), "an idle status")


@pytest.mark.feature("E01", "E03", "A01")
async def test_an_answer_is_seen_while_it_is_written_and_one_can_type_meanwhile(
    scripted: RunningServer, script: Script
) -> None:
    async with terminal("chat", "notes", url=scripted.url) as chat:
        await ready(chat)
        assert "session notes (a new session; there was none called notes)" in chat.emulator.text
        chat.say("how are you?")
        await chat.until("\n> how are you?\n")
        script.say("I am **well**, thank")
        await chat.until("● scripted\nI am well, thank\n")
        await chat.until(shows("answering"), "answering in the status")
        chat.type("and y")
        script.say(" you.\n\nAnd then")
        await chat.until("thank you.\n\nAnd then\n\n> and y\n")
        chat.type("ou?")
        script.end(" some more.")
        await idle(chat)
        assert "I am well, thank you.\n\nAnd then some more.\n\n> and you?\n" in chat.emulator.text
        assert "1" in chat.emulator.style_of("well").split(";")
        chat.type("\x03\x04")
        assert await chat.end() == 0
    assert chat.emulator.lines[-2:] == ["come back with: parley chat notes", ""]
    assert chat.emulator.strange == []


@pytest.mark.feature("E01", "A04")
async def test_ctrl_c_stops_the_answer_first_then_empties_the_input_and_then_leaves(
    scripted: RunningServer, script: Script
) -> None:
    async with terminal("chat", "notes", url=scripted.url) as chat:
        await ready(chat)
        chat.say("go on")
        script.say("on and on")
        await chat.until("on and on")
        chat.type("never said\x03")
        await chat.until("the turn was cancelled")
        await idle(chat)
        assert "> never said" in chat.emulator.text
        assert [
            message["finish_reason"] for message in await scripted.history("notes") if "finish_reason" in message
        ] == ["cancelled"]
        chat.type("\x03")
        await chat.until(lambda emulator: "never said" not in emulator.text)
        chat.type("\x03")
        assert await chat.end() == 0


@pytest.mark.feature("A04")
async def test_escape_stops_the_answer_and_never_leaves(scripted: RunningServer, script: Script) -> None:
    async with terminal("chat", "notes", url=scripted.url) as chat:
        await ready(chat)
        chat.type("\x1b")
        chat.say("go on")
        script.say("on and on")
        await chat.until("on and on")
        chat.type("\x1b")
        await chat.until("the turn was cancelled")
        await idle(chat)


async def test_leaving_does_not_stop_the_answer(scripted: RunningServer, script: Script) -> None:
    async with terminal("chat", "notes", url=scripted.url) as chat:
        await ready(chat)
        chat.say("go on")
        script.say("the beginning")
        await chat.until("the beginning")
        chat.type("\x04")
        assert await chat.end() == 0
    assert "the answer goes on without you; come back with: parley chat notes" in chat.emulator.text
    async with terminal("chat", "--continue", url=scripted.url) as chat:
        await chat.until("> go on")
        await chat.until("the beginning")
        script.end(", and the end")
        await chat.until("the beginning, and the end")


@pytest.mark.feature("E01", "E03", "T01")
@pytest.mark.parametrize(("transport", "name"), [("ws", "WebSocket"), ("sse", "SSE"), ("ndjson", "NDJSON")])
async def test_the_transport_is_shown_and_each_does_the_same(
    scripted: RunningServer, script: Script, transport: str, name: str
) -> None:
    async with terminal("chat", "notes", "--transport", transport, url=scripted.url) as chat:
        await ready(chat, name)
        chat.say("hi")
        script.say("one")
        await chat.until("\none\n")
        script.end(" two")
        await chat.until("\none two\n")
        await idle(chat)
        chat.say("/transport ws")
        await ready(chat)


GATED = """
from pathlib import Path
from server.agents.interface import agent

@agent("gated", description="Waits for a file")
async def gated(context):
    yield "First part\\n\\nSecond "
    while not Path({gate!r}).exists():
        await context.sleep(0.02)
    yield "part"
"""


@pytest.mark.feature("E01", "E03", "S16", "T02")
async def test_a_server_killed_in_mid_answer_is_waited_for_and_nothing_is_shown_twice(
    tmp_path: Path, database_url: str, unused_tcp_port: int
) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "gated.py").write_text(GATED.format(gate=str(gate)))
    config = tmp_path / "parley.toml"
    config.write_text('[agents]\npython = ["gated.py:gated"]\ndefault = "gated"\nentry_points = false\n')
    serve = ("serve", "--config", str(config), "--port", str(unused_tcp_port), "--database-url", database_url)
    url = f"http://127.0.0.1:{unused_tcp_port}"
    async with start(*serve) as server:
        await server.line("listens on")
        async with terminal("chat", "notes", url=url) as chat:
            await ready(chat)
            chat.say("go")
            await chat.until("First part\n\nSecond\n")
            server.process.kill()
            await chat.until(lambda emulator: "reconnecting" in status_of(emulator), "reconnecting")
            chat.say("and this")
            await chat.until("> and this (on its way)")
            async with start(*serve) as again:
                await again.line("listens on")
                await ready(chat)
                await chat.until("> and this (waits)")
                gate.touch()
                await chat.until("Second part")
                await chat.until("\n> and this\n")
                await chat.until(lambda emulator: emulator.text.count("Second part") == 2, "both answers")
                await idle(chat)
                text = chat.emulator.text
                assert re.findall(r"^(?:> .+|First part|Second.*)$", text, re.MULTILINE) == [
                    *("> go", "First part", "Second part", "> and this", "First part", "Second part")
                ]
                assert "afresh" not in text


@pytest.mark.feature("A01")
async def test_an_answer_that_says_something_else_the_second_time_is_begun_visibly_afresh(
    tmp_path: Path, database_url: str, unused_tcp_port: int
) -> None:
    (tmp_path / "fickle.py").write_text(
        "from server.agents.interface import agent\n"
        "@agent('fickle', description='Changes its mind')\n"
        "async def fickle(context):\n"
        "    yield 'Done so far\\n\\nYes' if context.attempt == 1 else 'On second thoughts, no'\n"
        "    while context.attempt == 1:\n"
        "        await context.sleep(0.02)\n"
    )
    config = tmp_path / "parley.toml"
    config.write_text('[agents]\npython = ["fickle.py:fickle"]\ndefault = "fickle"\nentry_points = false\n')
    serve = ("serve", "--config", str(config), "--port", str(unused_tcp_port), "--database-url", database_url)
    async with start(*serve) as server:
        await server.line("listens on")
        async with terminal("chat", "notes", url=f"http://127.0.0.1:{unused_tcp_port}") as chat:
            await ready(chat)
            chat.say("go")
            await chat.until("Done so far\n\nYes\n")
            server.process.kill()
            async with start(*serve):
                await chat.until("Done so far\n\nYes\n\nthe answer is begun afresh\n\nOn second thoughts, no\n")
                await idle(chat)


ATTACK = (
    "\x1b]52;c;aGVsbG8=\x07 \x1b]0;title\x07 \x1b[2J\x1b[H\x1b[31mred\x1b[0m \x9b2J \x1bc \x07\x08\x7f\u202egnp.exe "
    "[bold]plain[/bold] <b>html</b> [a link](https://example.org/there)"
)


@pytest.mark.feature("E01", "E03")
async def test_nothing_that_is_said_reaches_the_terminal_as_a_command(scripted: RunningServer, script: Script) -> None:
    async with terminal("chat", "notes", variables={"PARLEY_URL": scripted.url, "COLORTERM": "truecolor"}) as chat:
        await ready(chat)
        async with connect(scripted.url, "notes") as other:
            await other.say(f"somebody else: {ATTACK}")
            await chat.until("somebody else: ]52;c;aGVsbG8=")
            script.say(Reasoning(f"I think {ATTACK}\n\n"))
            await chat.until("I think ]52;c;aGVsbG8=")
            script.end("Hmm.", ToolCallDelta(0, None, "no\x1b[2Jsuch", '{"text": "\\u001b]0;x\\u0007"}'))
            script.say(f"# Heading {ATTACK}\n\n- item {ATTACK}\n\n```\x1b[2J\ncode {ATTACK}\n```\n\n")
            script.end(f"| a |\n|---|\n| {ATTACK} |")
            await idle(chat)
    assert chat.emulator.strange == []
    assert b"\x1b]" not in chat.written
    assert "[bold]plain[/bold] <b>html</b> a link (https://example.org/there)" in " ".join(chat.emulator.text.split())
    assert "31" not in chat.emulator.style_of("[31mred").split(";")
    assert "\u202e" not in chat.emulator.text


@pytest.mark.feature("A01", "A02")
async def test_reasoning_is_dim_tools_take_a_line_and_errors_are_red(scripted: RunningServer, script: Script) -> None:
    async with terminal("chat", "notes", url=scripted.url) as chat:
        await ready(chat)
        chat.say("hi")
        script.say(Reasoning("Let me think."))
        await chat.until("Let me think.")
        script.end("I shout.", ToolCallDelta(0, None, "shout", '{"text": "very loud"}'))
        await chat.until('▸ shout(text="very loud") → VERY LOUD')
        script.end(ToolCallDelta(0, None, "shout", '{"text": 5}'))
        await chat.until("✗ shout(text=5) failed: ")
        script.end("Done.")
        await chat.until("\n\nDone.\n")
        await idle(chat)
        assert "2" in chat.emulator.style_of("Let me think.").split(";")
        assert "31" in chat.emulator.style_of("failed: ").split(";")
        assert chat.emulator.text.count("Let me think.") == 1


async def test_what_failed_is_said_once_and_in_red(server: RunningServer) -> None:
    async with terminal("chat", "notes", url=server.url) as chat:
        await ready(chat)
        chat.say("fail late")
        await chat.until("requested: you asked for a failure")
        await idle(chat)
        assert chat.emulator.text.count("you asked for a failure") == 1
        assert "31" in chat.emulator.style_of("requested:").split(";")


@pytest.mark.feature("E01")
async def test_markdown_is_drawn_and_what_is_long_scrolls_away_whole(server: RunningServer) -> None:
    async with terminal("chat", "notes", rows=12, url=server.url) as chat:
        await ready(chat)
        chat.say("show markdown")
        await chat.until("And that is all.")
        text = chat.emulator.text
        assert "\nA heading\n\nA paragraph with bold, emphasis, code and a link (https://example.org/).\n" in text
        assert "\n 1 first\n 2 second\n    • with a nested item\n" in text
        assert "\nWebSocket  frames                frames\n" in text
        assert '\n  async def parrot(context):\n      """An agent that repeats what you say."""\n' in text
        chat.say("count to 3000")
        await chat.until("2999 3000")
        await idle(chat)
        counted = chat.emulator.text.partition("● offline\n1 2 3")[2].partition("\n\n")[0]
        assert ("1 2 3" + counted).split() == [str(number) for number in range(1, 3001)]


def _fills(columns: int, emulator: Emulator) -> bool:
    return any(columns - 12 < len(line) <= columns for line in emulator.screen)


@pytest.mark.feature("E01")
async def test_a_resize_leaves_no_row_behind(scripted: RunningServer, script: Script) -> None:
    words = [f"word{number}" for number in range(40)]
    async with terminal("chat", "notes", columns=100, url=scripted.url) as chat:
        await ready(chat)
        chat.say("hi")
        script.say(" ".join(words))
        await chat.until("word39")
        for columns in (60, 37, 120, 80, 79):
            chat.resize(columns, 24)
            await chat.until(partial(_fills, columns), f"rows of {columns} columns")
            await chat.until(lambda emulator: re.findall(r"word\d+", emulator.text) == words, "each word once")
        script.end(" end")
        await chat.until("word39 end")
        await idle(chat)
        assert re.findall(r"word\d+", chat.emulator.text) == words
        assert chat.emulator.text.count("●") == 2


@pytest.mark.feature("E01", "S19", "S26")
async def test_commands_begin_with_a_slash(server: RunningServer) -> None:
    await server.create_session(session_id="other", title="The other one")
    async with terminal("chat", "notes", columns=100, url=server.url) as chat:
        await ready(chat)
        chat.say("/help")
        await chat.until("/transport [NAME]")
        chat.say("/agents")
        await chat.until("* offline")
        chat.say("/agent coder")
        await chat.until("coder takes over from offline")
        await chat.until(lambda emulator: "coder" in status_of(emulator), "coder in the status")
        chat.say("/agent nobody")
        await chat.until("nobody")
        chat.say("/nonsense")
        await chat.until("there is no command /nonsense")
        chat.say("//etc/hosts is a file")
        await chat.until("\n> /etc/hosts is a file\n")
        await idle(chat)
        chat.say("/sessions")
        await chat.until("The other one")
        chat.say("/history 1")
        await idle(chat)
        chat.say("/open other")
        await chat.until("session other, The other one")
        await ready(chat)
        chat.say("/stop")
        await chat.until("nothing is being answered")
        chat.say("/quit")
        assert await chat.end() == 0
    assert chat.emulator.lines[-2] == "come back with: parley chat other"


async def test_commands_are_completed(server: RunningServer) -> None:
    async with terminal("chat", "notes", columns=100, url=server.url) as chat:
        await ready(chat)
        chat.type("/age")
        await chat.until("who answers from now on")
        chat.type("nt co")
        await chat.until("Writes and changes code")
        chat.type("\t")
        await chat.until("> /agent coder")
        chat.type("\r")
        await chat.until("coder takes over from offline")


@pytest.mark.feature("A04")
async def test_what_waits_is_shown_and_can_be_taken_back(scripted: RunningServer, script: Script) -> None:
    async with terminal("chat", "notes", url=scripted.url) as chat:
        await ready(chat)
        chat.say("first")
        script.say("answer one")
        await chat.until("answer one")
        chat.say("second")
        await chat.until("> second (waits)")
        chat.say("third")
        await chat.until("> third (waits)")
        await chat.until(shows("2 waiting"), "2 waiting in the status")
        chat.say("/queue")
        await chat.until("1. second\n2. third")
        chat.say("/queue drop 1")
        await chat.until(lambda emulator: "second (waits)" not in emulator.text)
        script.end()
        await chat.until("\n> third\n")
        script.end("answer three")
        await idle(chat)
        assert "\n> second\n" not in chat.emulator.text


async def test_lines_are_entered_with_alt_enter_and_pasted_as_they_are(server: RunningServer) -> None:
    async with terminal("chat", "notes", url=server.url) as chat:
        await ready(chat)
        chat.type("echo one\x1b\rtwo")
        await chat.until("> echo one\ntwo")
        chat.type("\x1b[200~\nthree\nfour\x1b[201~\r")
        await chat.until("● offline\none\ntwo\nthree\nfour")
        chat.type("\x1b[A")
        await chat.until(lambda emulator: emulator.text.count("echo one") == 2, "what was said before")
    assert [message["content"] for message in await server.history("notes")] == [
        "echo one\ntwo\nthree\nfour",
        "one\ntwo\nthree\nfour",
    ]


async def test_a_session_in_which_nothing_was_said_is_not_kept(server: RunningServer) -> None:
    async with terminal("chat", url=server.url) as chat:
        await ready(chat)
        chat.type("\x04")
        assert await chat.end() == 0
    async with server.client.get("/sessions") as response:
        assert (await response.json())["total"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_that_ends_it_leaves_the_terminal_as_it_was(server: RunningServer, number: int) -> None:
    async with terminal("chat", "notes", url=server.url) as chat:
        await ready(chat)
        chat.process.send_signal(number)
        await chat.end()
    assert chat.emulator.lines[-2:] == ["come back with: parley chat notes", ""]
    assert chat.written.rfind(b"\x1b[?2004l") > chat.written.rfind(b"\x1b[?2004h")


async def test_a_deleted_session_is_told_of_and_one_can_go_elsewhere(server: RunningServer) -> None:
    async with terminal("chat", "notes", url=server.url) as chat:
        await ready(chat)
        async with server.client.delete("/sessions/notes") as response:
            assert response.status == 204
        await chat.until(lambda emulator: "✗ disconnected" in status_of(emulator), "disconnected")
        chat.say("/new elsewhere")
        await chat.until("session elsewhere")
        await ready(chat)


@pytest.mark.parametrize(
    ("term", "no_color", "options"), [("dumb", "", ()), ("vt100", "1", ()), ("vt100", "", ("--plain",))]
)
async def test_plain_is_without_markdown_and_without_escapes(
    scripted: RunningServer, script: Script, term: str, no_color: str, options: tuple[str, ...]
) -> None:
    variables = {"PARLEY_URL": scripted.url, "TERM": term, "NO_COLOR": no_color}
    async with terminal("chat", "notes", *options, variables=variables) as chat:
        await chat.until("connected over WebSocket")
        chat.say("hi **there**")
        script.say("I am **well")
        await chat.until("scripted> I am **well")
        script.end("**.")
        await chat.until("scripted> I am **well**.\n")
        chat.say("go on")
        script.say("and on")
        await chat.until("scripted> and on")
        chat.type("\x03")
        await chat.until("the turn was cancelled")
        chat.say("/agents")
        await chat.until("* scripted")
        chat.type("\x04")
        assert await chat.end() == 0
    assert b"\x1b" not in chat.written
    assert chat.emulator.text.count("hi **there**") == 1
