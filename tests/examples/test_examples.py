"""Each example does what it says, against the real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from examples import websocket
from protocol.client import connect
from protocol.durable import MessageCreated, TaskCompleted, ToolResultEvent
from server.agents.loading import FileLoader
from server.agents.tools import ServerTool, ToolError
from server.config import AuthSettings, ServerSettings, TokenSettings
from tests.agents.support import tool_context
from tests.cli.support import environment, start
from tests.support.model_endpoint import answer, call, calls, chunk, model_endpoint, stream
from tests.support.server import MakeServer, RunningServer

if TYPE_CHECKING:
    from playwright.async_api import Page

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
TOKEN = "a-token-for-the-examples"
AWKWARD = "echo a \"b\" \\c\\ 'd'\n\t$(e) `f` & %s é😀"
SHELL = shutil.which("bash") if shutil.which("curl") else None
needs_curl = pytest.mark.skipif(SHELL is None, reason="this example is for bash and curl")


async def run(*command: str | Path, **variables: str) -> tuple[int | None, str, str]:
    """Run a program to its end: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(PYTHONPATH=str(ROOT), **variables),
    )
    try:
        out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), errors.decode()


async def say(*arguments: str, **variables: str) -> tuple[int | None, str, str]:
    return await run(sys.executable, EXAMPLES / "say.py", *arguments, **variables)


async def guarded(make_server: MakeServer) -> RunningServer:
    """A server that asks for a token."""
    return await make_server(auth=AuthSettings(tokens=(TokenSettings(user="ada", token=TOKEN),)))


# --- say.py


@pytest.mark.feature("E02")
async def test_say_prints_the_answer(server: RunningServer) -> None:
    assert await say(server.url, "count to 30") == (0, " ".join(map(str, range(1, 31))) + "\n", "")


async def test_say_says_what_went_wrong(server: RunningServer, make_server: MakeServer, unused_tcp_port: int) -> None:
    code, out, errors = await say(server.url, "fail late")
    assert (code, "you asked for a failure" in errors) == (1, True)
    assert "last one before the failure" in out
    code, _, errors = await say((await guarded(make_server)).url, "hello")
    assert (code, errors.startswith("say: "), "a token is needed" in errors) == (1, True, True)
    assert "Say something to an agent" in (await say())[2]


async def test_say_takes_a_token_from_the_environment(make_server: MakeServer) -> None:
    assert await say((await guarded(make_server)).url, "echo hello", PARLEY_TOKEN=TOKEN) == (0, "hello\n", "")


# --- sse.py, websocket.py


class Relay:
    """A middlebox: it cuts the streams that go through it, each in the middle of something."""

    def __init__(self, port: int, *places: int) -> None:
        """`places`: after how many bytes from the server the first streams are cut; later ones are let be."""
        self.left = list(places)
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Its URL."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._port)
        most: list[int] = []
        up = asyncio.create_task(self._up(reader, downstream, most))
        try:
            while data := await upstream.read(1 << 16):
                writer.write(data[: most[0]] if most else data)
                await writer.drain()
                if most:
                    most[0] -= len(data)
                    if most[0] <= 0:
                        break
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            for one in (writer, downstream):
                one.close()

    async def _up(self, reader: asyncio.StreamReader, downstream: asyncio.StreamWriter, most: list[int]) -> None:
        """Hand on what the client sends; connections are used again, so that any request may be the stream's."""
        while data := await reader.read(1 << 16):
            if re.search(rb"GET \S+/(?:events|ws)\b", data) and self.left:
                most.append(self.left.pop(0))
            downstream.write(data)
            await downstream.drain()


@pytest.mark.feature("T02", "S31")
async def test_sse_goes_on_where_it_was_cut(server: RunningServer) -> None:
    relay = Relay(server.port, 1500, 2500)
    async with relay.run() as url:
        code, out, errors = await run(sys.executable, EXAMPLES / "sse.py", url, "use tool clock {}")
    assert (code, relay.left) == (0, []), errors
    assert errors.count("the stream was cut") == 2
    shown = [(kind, json.loads(data)) for kind, data in (line.split(" ", 1) for line in out.splitlines())]
    assert [kind for kind, _ in shown] == [
        "message_created",
        "message_created",
        "tool_call",
        "tool_result",
        "message_created",
    ]
    seqs = [event["seq"] for _, event in shown]
    assert seqs == sorted(set(seqs))


@pytest.mark.feature("T02", "A01")
async def test_websocket_goes_on_where_it_was_cut(server: RunningServer) -> None:
    relay = Relay(server.port, 2000, 3000)
    text = "echo " + "é😀 words that are cut, " * 40
    async with relay.run() as url:
        code, out, errors = await run(sys.executable, EXAMPLES / "websocket.py", url, text)
    assert (code, relay.left) == (0, []), errors
    assert out == text.removeprefix("echo ").rstrip() + "\n"
    (session,) = await sessions(server)
    # Sent three times, said once.
    assert [message["role"] for message in await server.history(session)] == ["user", "assistant"]


def test_websocket_shows_what_is_repeated_missed_or_begun_anew(capsys: pytest.CaptureFixture[str]) -> None:
    shown: dict[str, tuple[int, bytes]] = {}

    def delta(offset: int, text: str, attempt: int = 1) -> None:
        payload = {"message_id": "m", "attempt": attempt, "part": "content", "offset": offset, "text": text}
        websocket.show({"event_type": "message_delta", "payload": payload}, shown)

    delta(0, "a😀")
    delta(1, "😀b")
    delta(0, "a😀b")
    delta(9, "missed some")
    delta(0, "x", attempt=2)
    created = {"message_id": "m", "role": "assistant", "content": "xyz"}
    websocket.show({"event_type": "message_created", "payload": created}, shown)
    websocket.show({"event_type": "news", "payload": {}}, shown)
    assert capsys.readouterr().out == "a😀b\nxyz\n"


async def sessions(server: RunningServer) -> list[str]:
    async with server.client.get("/sessions") as response:
        return [session["id"] for session in (await response.json())["sessions"]]


@pytest.mark.parametrize("script", ["sse.py", "websocket.py"])
async def test_a_script_takes_a_token_and_says_what_went_wrong(make_server: MakeServer, script: str) -> None:
    server = await guarded(make_server)
    name = script.removesuffix(".py")
    program = (sys.executable, EXAMPLES / script, server.url)
    code, _, errors = await run(*program, "hello")
    assert (code, errors.startswith(f"{name}: "), "401" in errors) == (1, True, True)
    assert (await run(*program, "hello", PARLEY_TOKEN=TOKEN))[0] == 0
    code, _, errors = await run(*program, "fail late", PARLEY_TOKEN=TOKEN)
    assert (code, "you asked for a failure" in errors) == (1, True)
    assert "PARLEY_TOKEN" in (await run(sys.executable, EXAMPLES / script))[2]


# --- tools.py, tools.toml


@pytest.mark.feature("A02", "A06")
async def test_the_finder_shows_a_file_and_a_model_has_its_tools(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "notes.txt").write_text("first\nsecond\n")
    for name in ("tools.py", "tools.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    arguments = ("serve", "--port", "0", "--config", str(tmp_path / "tools.toml"), "--database-url", database_url)
    async with model_endpoint() as fake:
        fake.reply(*stream(calls(call(0, "a", "show_file", '{"path": "../tools.py"}')), chunk("tool_calls")))
        fake.reply(*stream(calls(call(0, "b", "show_file", '{"path": "notes.txt", "first": 2}')), chunk("tool_calls")))
        fake.reply(*answer("It says: second"))
        model = {"PARLEY_MODEL": "m", "PARLEY_MODEL_BASE_URL": fake.url, "PROJECT": str(tmp_path / "project")}
        async with start(*arguments, cwd=None, **model) as process:
            address = (await process.line("listens on")).split()[-1]
            async with connect(address) as client, asyncio.timeout(30):
                await client.say("*.txt")
                await client.say("What does my second line say?", agent_type="ask")
                said, turns = [], 0
                async for event in client:
                    match event.payload:
                        case MessageCreated(role="assistant") as message:
                            said.append(message.content)
                        case TaskCompleted(status=status):
                            assert status == "completed"
                            turns += 1
                            if turns == 2:
                                break
                        case _:
                            pass
            process.process.terminate()
            assert (await process.end())[0] == 0
    assert [text for text in said if text] == ["first\nsecond\n", "It says: second"]
    offered = {tool["function"]["name"]: tool["function"] for tool in fake.asked[0].body["tools"]}
    assert offered.keys() == {"find_files", "show_file"}
    assert offered["show_file"]["parameters"]["properties"]["first"]["minimum"] == 1
    results = [message["content"] for message in fake.asked[2].body["messages"] if message["role"] == "tool"]
    assert results[-2:] == [
        "there is no file '../tools.py' in the project; find_files tells which there are",
        "second\n",
    ]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ServerTool, ServerTool]:
    """The tools of the example, for a folder with traps in it."""
    root = tmp_path / "project"
    (root / "docs").mkdir(parents=True)
    (root / ".git").mkdir()
    for name in ("a.txt", "docs/b.txt", ".env", ".git/config", "../outside.txt"):
        (root / name).write_text(name)
    (root / "long").write_text("x" * 3000 + "\0end")
    (root / "out").symlink_to(tmp_path / "outside.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "hidden").symlink_to(root / ".env")
    (root / "in").symlink_to(root / "a.txt")
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "pipe")
    monkeypatch.setenv("PROJECT", str(root))
    loader = FileLoader(EXAMPLES)
    found = [loader.load("tools.py:find_files"), loader.load("tools.py:show_file")]
    assert isinstance(found[0], ServerTool)
    assert isinstance(found[1], ServerTool)
    return found[0], found[1]


async def test_the_tools_see_what_is_to_be_seen(project: tuple[ServerTool, ServerTool]) -> None:
    find, show = project
    assert await find.call('{"pattern": "**/*"}', tool_context()) == ["a.txt", "docs/b.txt", "in", "long"]
    assert await find.call('{"pattern": "*.md"}', tool_context()) == []
    for path, text in (("docs/b.txt", "docs/b.txt"), ("./a.txt", "a.txt"), ("in", "a.txt")):
        assert await show.call(json.dumps({"path": path}), tool_context()) == text
    assert await show.call('{"path": "long", "first": 4, "count": 1}', tool_context()) == "\ufffdend"
    assert await show.call('{"path": "long", "first": 9}', tool_context()) == ""


@pytest.mark.parametrize(
    "path",
    [
        *("../outside.txt", "docs/../a.txt", "up/outside.txt", "out", "hidden", "circle", "pipe", "docs", "no"),
        *(".env", ".git/config", "docs/../.env", "/etc/passwd", "a.txt\0", "~/x", "..", "/"),
    ],
)
async def test_the_tools_show_nothing_else(project: tuple[ServerTool, ServerTool], path: str) -> None:
    with pytest.raises(ToolError, match="no file"):
        await project[1].call(json.dumps({"path": path}), tool_context())


@pytest.mark.parametrize("pattern", ["../*", "docs/../../**", "/**", "***", "", "**/**.txt"])
async def test_the_tools_look_nowhere_else(project: tuple[ServerTool, ServerTool], pattern: str) -> None:
    try:
        found = await project[0].call(json.dumps({"pattern": pattern}), tool_context())
    except ToolError as error:
        assert "pattern" in error.message  # noqa: PT017 - what newer versions of Python take for one is searched for
    else:
        assert set(found) <= {"a.txt", "docs/b.txt", "in", "long"}


# --- parrot.py, parrot.toml


@pytest.mark.feature("A06")
async def test_the_parrot_speaks_and_lends_its_tool_whatever_lies_beside_it(tmp_path: Path, database_url: str) -> None:
    for name in ("parrot.py", "parrot.toml"):
        shutil.copy(EXAMPLES / name, tmp_path)
    # Files of the user's, called like packages and modules of ours.
    for name in ("server.py", "protocol.py", "storage.py", "parley.py", "msgspec.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the user was imported')\n")
    arguments = ("serve", "--port", "0", "--config", "parrot.toml", "--database-url", database_url)
    async with start(*arguments, cwd=tmp_path) as process:
        address = (await process.line("listens on")).split()[-1]
        assert "parrot (Parrot)" in await process.line("agent")
        async with connect(address) as client, asyncio.timeout(30):
            await client.say("Polly wants a cracker")
            await client.say('use tool backwards {"text": "Hello"}', agent_type="offline")
            said, results, turns = [], [], 0
            async for event in client:
                match event.payload:
                    case MessageCreated(role="assistant") as message:
                        said.append((message.agent_name, message.content))
                    case ToolResultEvent() as result:
                        results.append((result.name, result.result))
                    case TaskCompleted(status="completed"):
                        turns += 1
                        if turns == 2:
                            break
                    case _:
                        pass
        process.process.terminate()
        assert (await process.end())[0] == 0
    assert said[0] == ("Parrot", "Polly wants a cracker ")
    assert said[-1] == ("Offline", "`backwards` returned: olleH")
    assert results == [("backwards", "olleH")]


# --- follow.sh


@needs_curl
@pytest.mark.feature("S08", "S10")
@pytest.mark.parametrize("text", ["count to 30", AWKWARD])
async def test_follow_prints_the_events_up_to_the_end_of_the_turn(server: RunningServer, text: str) -> None:
    code, out, errors = await run(str(SHELL), EXAMPLES / "follow.sh", server.url, text)
    assert code == 0, errors
    events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert events[0]["event_type"] == "connected"
    assert events[-1]["event_type"] == "task_completed"
    durable = [event for event in events if "seq" in event]
    assert [event["seq"] for event in durable] == list(range(1, len(durable) + 1))
    question, answer = (event["payload"] for event in durable if event["event_type"] == "message_created")
    assert (question["role"], question["content"]) == ("user", text)
    assert (answer["role"], answer["agent_name"]) == ("assistant", "Offline")


@needs_curl
async def test_follow_takes_a_token_and_shows_a_refusal(make_server: MakeServer) -> None:
    server = await guarded(make_server)
    follow = (str(SHELL), EXAMPLES / "follow.sh", server.url, "hello")
    code, out, errors = await run(*follow)
    assert (code, out) == (22, "")
    assert "a token is needed" in errors
    assert (await run(*follow, PARLEY_TOKEN=TOKEN))[0] == 0


# --- page.html

ADDRESS = "http://127.0.0.1:8080"


def page_for(server: RunningServer) -> str:
    text = (EXAMPLES / "page.html").read_text(encoding="utf-8")
    assert text.count(ADDRESS) == 1
    return text.replace(ADDRESS, server.url)


async def test_the_page_imports_what_there_is(server: RunningServer) -> None:
    found = re.search(r"const \{ (.*) \} = await import\(`\$\{url\}(.*)`\)", page_for(server))
    assert found is not None
    async with server.client.get(found[2]) as response:
        library = await response.text()
    exported = re.findall(r"^export (?:async )?(?:function|class|const) (\w+)", library, re.MULTILINE)
    for names in re.findall(r"^export \{ (.*) \} from", library, re.MULTILINE):
        exported += names.split(", ")
    assert set(found[1].split(", ")) <= set(exported)


async def talk(page: Page) -> None:
    from playwright.async_api import expect

    await expect(page.locator("#state")).to_have_text("open (websocket)")
    await page.fill("#text", "echo <b>hello</b>")
    await page.click("button")
    await expect(page.locator("li.assistant")).to_have_text("<b>hello</b>")
    await expect(page.locator("li")).to_have_count(2)


async def elsewhere(aiohttp_server: AiohttpServer, pages: dict[str, str]) -> str:
    """A web server that is not Parley; its origin."""

    async def serve(request: web.Request) -> web.Response:
        return web.Response(text=pages["page"], content_type="text/html")

    app = web.Application()
    app.router.add_get("/page.html", serve)
    return str((await aiohttp_server(app)).make_url("/")).rstrip("/")


@pytest.mark.feature("E02")
async def test_the_page_works_where_parley_itself_is(page: Page, server: RunningServer) -> None:
    # As behind a proxy that serves both under one name. A page that the browser got from no server would be kept from
    # WebSockets to this machine (Local Network Access), so one that came from there is given our content.
    await page.goto(f"{server.url}/health")
    await page.set_content(page_for(server))
    await talk(page)


@pytest.mark.feature("E02")
async def test_the_page_works_on_an_origin_that_is_allowed(
    page: Page, aiohttp_server: AiohttpServer, make_server: MakeServer
) -> None:
    pages: dict[str, str] = {}
    origin = await elsewhere(aiohttp_server, pages)
    server = await make_server(server=ServerSettings(port=0, shutdown_timeout=1.0, allowed_origins=(origin,)))
    pages["page"] = page_for(server)
    await page.goto(f"{origin}/page.html")
    await talk(page)


async def test_the_page_says_what_is_missing_on_an_origin_that_is_not(
    page: Page, aiohttp_server: AiohttpServer, server: RunningServer
) -> None:
    from playwright.async_api import expect

    origin = await elsewhere(aiohttp_server, {"page": page_for(server)})
    await page.goto(f"{origin}/page.html")
    await expect(page.locator("#state")).to_contain_text(f"and {origin} in its allowed_origins?")


# --- all of them


def test_each_example_is_short_and_named_by_the_readme() -> None:
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {path.name: path for path in EXAMPLES.iterdir() if path.is_file() and path.name != "README.md"}
    assert {name for name in files if f"`{name}`" not in readme} == set()
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    # The check is for operators to use, not for newcomers to read; the editor's part is whole.
    lines.pop("check_messages.py")
    assert lines.pop("ide_client.py") < 120
    assert {name: count for name, count in lines.items() if count > 75 or (name == "page.html" and count > 60)} == {}
