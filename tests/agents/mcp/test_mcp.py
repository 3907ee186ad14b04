"""Tools of other servers: real ones, started as programs or reached over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from server.agents.config import AgentsConfig
from server.agents.mcp import tool as mcp_tool
from server.agents.mcp.server import McpServer
from server.agents.mcp.settings import McpSettings
from server.agents.mcp.source import McpServers
from server.agents.registry import Registry
from server.agents.tools import ToolError
from server.clock import SystemClock
from tests.agents.support import tool_context
from tests.support.clock import ManualClock

HERE = Path(__file__).parent
PATIENCE = 60.0


class Hurried(SystemClock):
    """The machine's clock, on which every pause is over at once."""

    async def sleep(self, seconds: float) -> None:
        del seconds
        await asyncio.sleep(0)


def plain(log: Path, **more: Any) -> McpSettings:
    return McpSettings(command=sys.executable, args=(str(HERE / "plain_server.py"), str(log)), **more)


def real(**more: Any) -> McpSettings:
    return McpSettings(command=sys.executable, args=(str(HERE / "real_server.py"), "stdio"), **more)


@asynccontextmanager
async def running(settings: McpSettings, clock: Any = None, *, name: str = "it") -> AsyncIterator[McpServer]:
    server = McpServer(name, settings, HERE, clock or Hurried())
    server.start()
    try:
        async with asyncio.timeout(PATIENCE):
            await server.tried()
        yield server
    finally:
        await server.stop()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what happens in another process sets no event here
            await asyncio.sleep(0)


async def call(server: McpServer, name: str, /, **arguments: Any) -> Any:
    return await server.tools[f"{server.name}__{name}"].call(json.dumps(arguments), tool_context())


async def refused(server: McpServer, name: str, /, **arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await call(server, name, **arguments)
    return caught.value.message


def received(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def methods(log: Path) -> list[str]:
    return [message["method"] for message in received(log)]


def processes(argument: str) -> list[int]:
    """Those that were started with an argument."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [number for number in numbers if argument in command_of(number)]


def child(log: Path) -> int:
    (found,) = processes(str(log))
    return found


def command_of(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8").split("\0")
    except (OSError, UnicodeError):
        return []


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "messages"


# --- what it offers


@pytest.mark.feature("A02")
async def test_a_program_offers_tools_page_by_page(log: Path) -> None:
    async with running(plain(log)) as server:
        assert server.problem is None
        names = list(server.tools)
        assert names[:4] == ["it__echo", "it__die", "it__slow", "it__grow"]
        assert names[4].startswith("it__odd_name__")
        assert len(names) == 5
        assert list(server.left_out) == ["broken schema"]
        assert "properties.text.type: 'text' has none of the forms" in server.left_out["broken schema"]
        spec = server.tools["it__echo"].spec
        assert (spec.description, spec.executor, spec.extra, spec.agents) == ("It is echo.", "server", True, None)
        assert await call(server, "echo", text="hello") == "hello"
        process = child(log)
    assert not is_running(process)
    assert server.tools == {}


async def test_what_a_server_says_of_its_tools_counts_where_it_is_trusted(log: Path) -> None:
    async with running(plain(log)) as server:
        assert not any(tool.spec.read_only or tool.spec.idempotent for tool in server.tools.values())
    async with running(
        plain(log, trust=True, read_only=("slow",), agents=("ask",), tools=("echo", "grow", "slow"))
    ) as it:
        specs = {name: (tool.spec.read_only, tool.spec.idempotent) for name, tool in it.tools.items()}
        assert specs == {"it__echo": (True, True), "it__slow": (True, True), "it__grow": (False, True)}
        assert {tool.spec.agents for tool in it.tools.values()} == {("ask",)}


async def test_a_list_that_changes_is_read_again(log: Path) -> None:
    async with running(plain(log)) as server:
        assert await call(server, "grow", text="new") == "new"
        await until(lambda: "it__new" in server.tools)
        assert await call(server, "new", text="x") == "x"


# --- what goes wrong


@pytest.mark.feature("A02")
async def test_a_server_that_is_killed_in_the_middle_of_a_call_is_started_again(log: Path) -> None:
    async with running(plain(log)) as server:
        first = child(log)
        calling = asyncio.create_task(refused(server, "slow"))
        await until(lambda: "tools/call" in methods(log))
        os.kill(first, signal.SIGKILL)
        assert await calling == "the server it of it__slow went away while it ran; it may or may not have taken effect"
        assert "it__echo" in server.tools, "it is back in a moment"
        assert await call(server, "echo", text="again") == "again"
        assert child(log) != first


async def test_a_server_that_ends_by_itself_in_a_call(log: Path) -> None:
    async with running(plain(log)) as server:
        assert "went away while it ran" in await refused(server, "die")
        assert await call(server, "echo", text="again") == "again"


@pytest.mark.feature("A02")
async def test_a_call_that_takes_too_long_is_stopped_and_told_to_the_server(log: Path) -> None:
    async with running(plain(log, timeout=0.05)) as server:
        assert await refused(server, "slow") == "it__slow took longer than 0.05 s and was stopped"
        await until(lambda: "notifications/cancelled" in methods(log))


@pytest.mark.feature("A02")
async def test_cancelling_a_call_is_told_to_the_server(log: Path) -> None:
    async with running(plain(log)) as server:
        calling = asyncio.create_task(call(server, "slow"))
        await until(lambda: "tools/call" in methods(log))
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await until(lambda: "notifications/cancelled" in methods(log))
        (number,) = [message["id"] for message in received(log) if message["method"] == "tools/call"]
        told = [message["params"] for message in received(log) if message["method"] == "notifications/cancelled"]
        assert [params["requestId"] for params in told] == [number]
        assert await call(server, "echo", text="well") == "well"


async def test_arguments_that_are_no_object_never_leave(log: Path) -> None:
    async with running(plain(log)) as server:
        for arguments in ("[]", "{", "7", "[" * 10_000):
            with pytest.raises(ToolError, match="the arguments for it__echo are no JSON object"):
                await server.tools["it__echo"].call(arguments, tool_context())
        assert await server.tools["it__echo"].call("", tool_context()) == "done"
        assert methods(log).count("tools/call") == 1


async def test_what_the_server_says_of_a_failure_is_told(log: Path) -> None:
    async with running(plain(log)) as server:
        assert await refused(server, "echo", text="fail") == "fail"


@pytest.mark.parametrize(
    ("command", "args", "reason"),
    [
        ("/no/such/program", (), "No such file or directory"),
        (sys.executable, ("-c", "raise SystemExit('no licence')"), "its last words: no licence"),
        (sys.executable, ("-c", "print('hello')"), "closed"),
        (sys.executable, ("-c", "import sys; sys.stdout.buffer.write(b'\\xff' * 100_000)"), ""),
    ],
)
async def test_a_program_that_is_no_server_is_tried_again_later(
    command: str, args: tuple[str, ...], reason: str
) -> None:
    clock = ManualClock()
    with capture_logs() as logs:
        async with running(McpSettings(command=command, args=args), clock) as server:
            assert server.tools == {}
            assert server.problem is not None
            assert reason.lower() in server.problem.lower()
            for _ in range(3):
                await until(lambda: clock.sleepers)
                await clock.advance(60)
            await until(lambda: clock.sleepers)
    assert 1 <= len([entry for entry in logs if entry["event"] == "mcp_away" and entry["log_level"] == "warning"]) <= 4


@pytest.mark.parametrize("timeout", [0.05, 3600])
async def test_a_program_that_never_answers_is_ended(timeout: float, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"import time, pathlib; pathlib.Path({str(begun)!r}).write_text('x')\nwhile True: time.sleep(1000)"
    settings = McpSettings(command=sys.executable, args=("-c", code), start_timeout=timeout)
    server = McpServer("it", settings, HERE, ManualClock())
    server.start()
    if timeout < 1:
        async with asyncio.timeout(PATIENCE):
            await server.tried()
        assert server.problem is not None
        assert server.problem.startswith("it did not answer within 0.05 s")
    else:
        await until(lambda: begun.exists() and begun.read_text())
    await server.stop()
    assert processes(code) == []


async def test_a_program_that_ignores_everything_is_killed(tmp_path: Path) -> None:
    """The worst: it neither reads nor ends, and it is deaf to SIGTERM."""
    begun = tmp_path / "begun"
    code = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(begun)!r}).write_text('x')\nwhile True: time.sleep(1000)"
    )
    server = McpServer("it", McpSettings(command=sys.executable, args=("-c", code)), HERE, ManualClock())
    server.start()
    await until(lambda: begun.exists() and begun.read_text())
    await server.stop()
    assert processes(code) == []


async def test_a_call_to_a_server_that_stays_away_does_not_wait_for_ever(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_tool, "_PATIENCE", 0.01)
    clock = ManualClock()
    async with running(plain(log), clock) as server:
        echo = server.tools["it__echo"]
        os.kill(child(log), signal.SIGKILL)
        await until(lambda: clock.sleepers)
        assert server.problem == "it closed the connection"
        with pytest.raises(ToolError, match="the server it of it__echo is away"):
            await echo.call("{}", tool_context())


def test_secrets_are_in_no_message() -> None:
    settings = McpSettings(command="x", args=("--key=s3cret-argument",), env={"KEY": "s3cret-variable"})
    server = McpServer("it", settings, HERE, ManualClock())
    told = server._without_secrets("refused --key=s3cret-argument and s3cret-variable")
    assert told == "refused *** and ***"


async def test_starting_and_stopping_twice_is_once(log: Path) -> None:
    async with running(plain(log)) as server:
        server.start()
        assert methods(log).count("initialize") == 1
        await server.stop()
        await server.stop()
        server.start()
        await until(lambda: server.tools)
        assert methods(log).count("initialize") == 2


# --- by the protocol's own package


@pytest.fixture(params=["stdio", "http"])
async def modern(request: pytest.FixtureRequest, unused_tcp_port: int) -> AsyncIterator[McpServer]:
    if request.param == "stdio":
        async with running(real()) as server:
            yield server
        return
    async with serving(unused_tcp_port), running(address(unused_tcp_port)) as server:
        await until(lambda: server.tools)
        yield server


def address(port: int, **more: Any) -> McpSettings:
    return McpSettings(url=f"http://127.0.0.1:{port}/mcp", **more)


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HERE / "real_server.py"), str(port)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.feature("A02")
async def test_results_of_all_kinds(modern: McpServer, tmp_path: Path) -> None:
    assert await call(modern, "add", a=1, b=2) == 3
    about = await call(modern, "about", name="Ada")
    assert (about["name"], about["length"]) == ("Ada", 3)
    assert "no reason" in await refused(modern, "fail", why="no reason")
    assert await call(modern, "picture") == "before\n\n[image, image/png, about 300 bytes: not shown]\n\nafter"
    much = await call(modern, "much")
    assert len(much) < 140_000
    assert much.endswith("[cut off: 1000000 bytes in all]")
    assert "validation error" in await refused(modern, "add", a="x")
    # A cancelled call ends there, and a list that grows is read again.
    marker = tmp_path / "marker"
    calling = asyncio.create_task(call(modern, "wait", marker=str(marker)))
    await until(lambda: marker.exists() and marker.read_text() == "begun")
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await until(lambda: marker.read_text() == "cancelled")
    assert await call(modern, "grow") == "grown"
    await until(lambda: "it__grown" in modern.tools)
    assert await call(modern, "grown") == "here"


async def test_a_server_elsewhere_that_goes_and_comes_back(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_tool, "_PATIENCE", 0.01)
    clock = ManualClock()
    async with running(address(unused_tcp_port), clock) as server:
        assert server.tools == {}
        assert server.problem == "All connection attempts failed"
        async with serving(unused_tcp_port) as process:
            await clock.advance(60)
            await until(lambda: server.tools)
            assert server.problem is None
            add = server.tools["it__add"]
            process.kill()
            await process.wait()
            with pytest.raises(ToolError, match=r"went away while it ran|is away"):
                await add.call('{"a": 1, "b": 2}', tool_context())
            await until(lambda: clock.sleepers)
            await clock.advance(60)
            await until(lambda: not server.tools)
        async with serving(unused_tcp_port):
            await until(lambda: clock.sleepers)
            await clock.advance(60)
            await until(lambda: server.tools)
            assert await call(server, "add", a=1, b=2) == 3


class Sessions:
    """A server of the protocol's second to last kind over HTTP: it gives out sessions, and forgets them when told."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.seen: list[str] = []
        self.headers: list[str] = []

    async def post(self, request: web.Request) -> web.StreamResponse:
        message = await request.json()
        method, session = message["method"], request.headers.get("Mcp-Session-Id")
        self.seen.append(method)
        self.headers.append(request.headers.get("X-Key", ""))
        if method == "server/discover":
            return web.Response(status=400)
        if method == "initialize":
            session = f"session-{len(self.seen)}"
            self.known.add(session)
            about = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "old", "version": "1"}}
            return self.answer(message, {**about, "capabilities": {"tools": {}}}, session)
        if session not in self.known:
            return web.Response(status=404)
        if "id" not in message:
            return web.Response(status=202)
        if method == "tools/list":
            return self.answer(message, {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})
        return self.answer(message, {"content": [{"type": "text", "text": session}]})

    @staticmethod
    def answer(message: dict[str, Any], result: dict[str, Any], session: str | None = None) -> web.Response:
        headers = {"Mcp-Session-Id": session} if session else {}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], "result": result}, headers=headers)


async def test_a_server_elsewhere_that_has_forgotten_the_session_gets_the_call_again(unused_tcp_port: int) -> None:
    sessions = Sessions()
    app = web.Application()
    app.router.add_post("/mcp", sessions.post)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    try:
        async with running(address(unused_tcp_port, headers={"X-Key": "s3cret"})) as server:
            assert await call(server, "echo") == "session-2"
            sessions.known.clear()
            assert (await call(server, "echo")).startswith("session-")
            assert sessions.seen.count("initialize") == 2
            assert {*sessions.headers} == {"s3cret"}
    finally:
        await runner.cleanup()


# --- as a source of the registry's


@pytest.mark.feature("A02")
async def test_the_registry_has_what_the_servers_have(log: Path, tmp_path: Path) -> None:
    settings = {
        "files": plain(log, agents=("ask",)),
        "more": plain(tmp_path / "other"),
        "off": plain(tmp_path / "third", enabled=False),
        "gone": McpSettings(command="/no/such/program"),
    }
    servers = McpServers(settings, HERE, Hurried())
    registry = Registry.build(AgentsConfig(entry_points=False), sources=[servers])
    assert "files__echo" not in registry.server_tools
    await servers.start()
    try:
        await servers.settled(PATIENCE)
        assert {name.partition("__")[0] for name in registry.server_tools if "__" in name} == {"files", "more"}

        def names(agent: str) -> set[str]:
            specs = registry.tools_for(registry.get(agent).definition)
            return {spec.name for spec in specs if spec.name.endswith("__echo")}

        assert names("ask") == {"files__echo"}
        assert names("coder") == names("universal") == names("offline") == {"more__echo"}
        assert names("debug") == set()
        assert await registry.server_tools["more__echo"].call('{"text": "x"}', tool_context()) == "x"
    finally:
        await servers.stop()
    assert not [name for name in registry.server_tools if "__" in name]


async def test_without_servers_nothing_of_the_protocol_is_loaded() -> None:
    code = (
        "import sys, server.app\nfrom server.agents.mcp.source import McpServers\n"
        "assert not {'mcp', 'pydantic', 'anyio', 'jsonschema'} & {name.partition('.')[0] for name in sys.modules}"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    assert await process.wait() == 0
