"""The Python client's tools, approvals and branches against the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from protocol.client import Client, Server, client_tool, connect, connect_sync
from protocol.client.choice import Memory
from protocol.commands import Remember
from protocol.errors import ErrorCode, ParleyError
from protocol.events import ApprovalRequired, ToolDispatched, ToolProgressEvent
from server.agents.interface import AgentContext, AgentYield, ToolCallDelta, agent
from server.turns.settings import ToolsSettings
from tests.protocol.support import QUICK, WAYS
from tests.support.proxy import proxy
from tests.support.server import MakeServer, RunningServer

ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture(autouse=True)
def new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are used again, and what was found out about them is about others."""
    monkeypatch.setattr("protocol.client.choice.SHARED", Memory())


@agent("caller", tools=["*"])
async def caller(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Calls what the user says, `name {arguments}`, and tells what came of it."""
    last = context.history[-1]
    name, _, arguments = last.content.partition(" ")
    if last.role == "user" and arguments.startswith("{"):
        yield ToolCallDelta(0, call_id="c", name=name, arguments=arguments)
    else:
        yield f"so: {last.content}"


@pytest.fixture
async def server(make_server: MakeServer) -> RunningServer:
    return await make_server(caller)


class Editor:
    """A tool that changes something, and what it was asked to do."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def write_file(self, path: str, content: str) -> str:
        """Write a file."""
        self.written.append((path, content))
        self.begun.set()
        await self.go.wait()
        return f"wrote {path}"


WRITE = f"write_file {json.dumps({'path': 'a', 'content': 'x'})}"


async def answer(session: Client, decide: Callable[[ApprovalRequired], Awaitable[object]], text: str = WRITE) -> str:
    """The answer to a message, all of whose calls are decided in one way."""
    growing = session.ask(text)
    async with asyncio.timeout(30):
        async for chunk in growing:
            if isinstance(chunk.event.payload, ApprovalRequired):
                await decide(chunk.event.payload)
    return growing.text


@pytest.mark.feature("A02", "A03", "S25", "S27", "E02")
@ways
async def test_a_call_is_approved_run_and_answered_over_each_transport(server: RunningServer, way: Any) -> None:
    editor = Editor()
    async with connect(server.url, **way, tools=[editor.write_file]) as session:
        assert [(one.client_id, one.tools) for one in session.clients] == [(session.client_id, ["write_file"])]
        assert await answer(session, lambda call: session.approve(call.call_id)) == "so: wrote a"
        assert session.approvals == []
    assert editor.written == [("a", "x")]


@pytest.mark.feature("A03", "S27")
async def test_all_four_decisions_and_a_rule(server: RunningServer) -> None:
    editor = Editor()
    async with connect(server.url, tools=[editor.write_file]) as session:
        edited = {"path": "b", "content": "y"}
        assert "wrote b" in await answer(session, lambda call: session.edit(call.call_id, edited))
        assert "not now" in await answer(session, lambda call: session.reject(call.call_id, "not now"))
        assert "as if" in await answer(session, lambda call: session.respond(call.call_id, "as if"))
        rule = Remember(scope="session", tool="write_file", arguments={"path": "a*"})
        assert "wrote a" in await answer(session, lambda call: session.approve(call.call_id, remember=rule))

        async def nobody(call: ApprovalRequired) -> None:
            raise AssertionError(call)

        assert "wrote a" in await answer(session, nobody)
        with pytest.raises(ParleyError) as caught:
            await session.approve("00000000-0000-7000-8000-000000000000")
        assert caught.value.code is ErrorCode.NOT_FOUND
        (found,) = (await session.server.policies(session.session)).rules
        assert (found.tool, found.effect, found.arguments) == ("write_file", "allow", {"path": "a*"})
        await session.server.revoke(found.rule_id)
        assert (await session.server.policies(session.session)).rules == []
    assert [path for path, _ in editor.written] == ["b", "a", "a"]


@pytest.mark.feature("A02")
@ways
async def test_a_call_outlives_its_connection(server: RunningServer, way: Any) -> None:
    editor = Editor()
    editor.go.clear()
    async with (
        proxy(server.port) as network,
        connect(network.url, await server.create_session(), **way, timings=QUICK, tools=[editor.write_file]) as session,
    ):
        asked = asyncio.create_task(answer(session, lambda call: session.approve(call.call_id)))
        async with asyncio.timeout(30):
            await editor.begun.wait()
            before = session.connected
            network.cut()
            async for status in session.changes():
                if status.state == "open" and session.connected is not before:
                    break
        editor.go.set()
        assert await asked == "so: wrote a"
    assert editor.written == [("a", "x")]


@pytest.mark.feature("A02")
async def test_a_client_that_is_started_again_gets_its_call_again(server: RunningServer, tmp_path: Any) -> None:
    editor = Editor()
    editor.go.clear()
    session_id = await server.create_session()
    options: dict[str, Any] = {"client_id": "editor", "journal": tmp_path / "calls"}
    async with connect(server.url, session_id) as other:
        async with connect(server.url, session_id, tools=[editor.write_file], **options):
            asked = asyncio.create_task(answer(other, lambda call: other.approve(call.call_id)))
            async with asyncio.timeout(30):
                await editor.begun.wait()
        async with connect(server.url, session_id, tools=[editor.write_file], **options):
            assert "whether it took effect is not known" in await asked
    assert editor.written == [("a", "x")]


@pytest.mark.feature("A02", "T09")
async def test_another_client_takes_over_what_its_executor_has_left(make_server: MakeServer) -> None:
    server = await make_server(caller, tools=ToolsSettings(grace=0.0))
    first, second = Editor(), Editor()
    first.go.clear()
    session_id = await server.create_session()
    async with connect(server.url, session_id, tools=[second.write_file], client_id="b") as b:
        async with connect(server.url, session_id, tools=[first.write_file], client_id="a"):
            asked = asyncio.create_task(answer(b, lambda call: b.approve(call.call_id)))
            async with asyncio.timeout(30):
                # It came last, so it is asked first.
                await first.begun.wait()
            assert {one.client_id for one in b.clients} == {"a", "b"}
        assert await asked == "so: wrote a"
    assert (len(first.written), len(second.written)) == (1, 1)


@pytest.mark.feature("A02")
async def test_a_lease_is_kept_for_as_long_as_a_call_takes(make_server: MakeServer) -> None:
    server = await make_server(caller, tools=ToolsSettings(deadline=1.0))
    editor = Editor()
    editor.go.clear()
    async with connect(server.url, tools=[editor.write_file]) as session:
        growing = session.ask(WRITE)
        renewed: set[str | None] = set()
        async with asyncio.timeout(60):
            async for chunk in growing:
                match chunk.event.payload:
                    case ApprovalRequired(call_id=call_id):
                        await session.approve(call_id)
                    case ToolProgressEvent(deadline=deadline):
                        renewed.add(deadline)
                        # Longer than it was given for in the beginning.
                        if len(renewed) == 6:
                            editor.go.set()
                    case _:
                        pass
    assert growing.text == "so: wrote a"


async def test_decisions_and_calls_without_a_loop(server: RunningServer) -> None:
    @client_tool
    def write_file(path: str, content: str) -> str:
        """Write a file."""
        return f"wrote {path}"

    def work() -> str:
        with connect_sync(server.url, tools=[write_file]) as session:
            growing = session.stream(WRITE, timeout=30)
            for chunk in growing:
                if isinstance(chunk.event.payload, ApprovalRequired):
                    assert [one.call_id for one in session.approvals] == [chunk.event.payload.call_id]
                    session.approve(chunk.event.payload.call_id)
                if isinstance(chunk.event.payload, ToolDispatched):
                    assert chunk.event.payload.client_id == session.client_id
            return growing.so_far.text

    assert await asyncio.to_thread(work) == "so: wrote a"


@pytest.mark.feature("A03", "A07", "A08")
async def test_what_is_asked_once(server: RunningServer) -> None:
    editor = Editor()
    async with Server(server.url) as api, connect(server.url, tools=[editor.write_file]) as session:

        async def over_rest(call: ApprovalRequired) -> None:
            (waiting,) = (await api.approvals()).approvals
            assert (waiting.call_id, waiting.tool_name) == (type(waiting.call_id)(call.call_id), "write_file")
            await api.decide(waiting.request_id, "edit", modified_arguments={"path": "r", "content": "x"})
            approval = await api.approval(waiting.request_id)
            assert (approval.state, approval.executed) == ("edited", {"path": "r", "content": "x"})
            with pytest.raises(ParleyError) as caught:
                await session.approve(call.call_id)
            assert caught.value.code is ErrorCode.ALREADY_RESOLVED

        assert "wrote r" in await answer(session, over_rest)
        turns = (await api.turns(session.session)).turns
        assert [(turn.state, turn.steps) for turn in turns] == [("completed", 2)]
        assert (await api.usage(session.session, by="agent")).by == "agent"
        assert (await api.update_session(session.session, title="T")).title == "T"
        page = await session.history()
        fork = await api.fork(session.session, page.messages[0].message_id, title="F")
        assert (fork.message_count, fork.title) == (1, "F")
        again = await api.edit(session.session, page.messages[0].message_id, "hello")
        assert again.turn_id is not None
        assert (await api.retry(session.session)).message_id is not None
