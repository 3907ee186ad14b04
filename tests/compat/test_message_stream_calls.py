"""The flat stream while calls wait for people, for clients and for other agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from server.agents.interface import AgentContext, AgentYield, FunctionAgent, Text, ToolCallDelta, agent
from server.agents.tools import tool
from server.turns.settings import PolicySettings
from tests.compat.support import ask, chunks
from tests.support.server import MakeServer, RunningServer

WRITE = {"path": "a.md", "content": "one"}
GO = {"type": "user_message", "content": "go"}
ALLOWED = {"policies": (PolicySettings(tool="*", effect="allow"),)}


def done(status: str) -> dict[str, Any]:
    return {"type": "done", "is_final": True, "metadata": {"status": status}}


def said(text: str) -> dict[str, Any]:
    return {"type": "assistant_message", "content": text, "is_final": True}


def called(call_id: str, name: str, arguments: Any, *, asks: bool, executor: str = "client") -> dict[str, Any]:
    return {
        "type": "tool_call",
        "is_final": True,
        "call_id": call_id,
        "tool_name": name,
        "arguments": arguments,
        "requires_approval": asks,
        "metadata": {"executor": executor},
    }


def caller(*wanted: tuple[str, dict[str, Any]], type: str = "caller", **more: Any) -> FunctionAgent:  # noqa: A002
    """An agent that makes these calls in one step, then says what came of them."""

    async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        results = [message.content for message in context.history if message.role == "tool"]
        if results:
            yield Text(" | ".join(results))
            return
        for index, (name, arguments) in enumerate(wanted):
            yield ToolCallDelta(index, name=name, arguments=json.dumps(arguments))

    more.setdefault("tools", ("*",))
    return agent(type, name=type, description="Does what a test says", **more)(script)


async def decide(server: RunningServer, call_id: str, decision: str, **more: Any) -> list[dict[str, Any]]:
    return await chunks(server, "s", {"type": "hitl_decision", "call_id": call_id, "decision": decision, **more})


async def result(server: RunningServer, call_id: str, value: Any, **more: Any) -> list[dict[str, Any]]:
    return await chunks(server, "s", {"type": "tool_result", "call_id": call_id, "result": value}, **more)


def without_tokens(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk for chunk in said if "token" not in chunk]


@pytest.mark.feature("S12", "S25", "S27", "S30")
async def test_a_call_is_asked_about_then_run_by_the_client_then_answered(make_server: MakeServer) -> None:
    server = await make_server(caller(("write_file", WRITE)))
    asked = await chunks(server, "s", GO)
    call_id = asked[0]["call_id"]
    assert asked == [called(call_id, "write_file", WRITE, asks=True), done("waiting")]
    approved = await decide(server, call_id, "approve")
    assert approved == [called(call_id, "write_file", WRITE, asks=False), done("waiting")]
    answered = await result(server, call_id, "written")
    assert without_tokens(answered) == [said("written"), done("completed")]
    status, problem = await ask(
        server,
        "POST",
        "/agent/message/stream",
        json={"session_id": "s", "message": {"type": "tool_result", "call_id": call_id, "result": "again"}},
    )
    assert (status, problem["code"]) == (409, "already_resolved")


@pytest.mark.feature("S12", "S27")
async def test_regression_17_an_edit_keeps_its_arguments(make_server: MakeServer) -> None:
    server = await make_server(caller(("write_file", WRITE)))
    call_id = (await chunks(server, "s", GO))[0]["call_id"]
    edited = {"path": "b.md", "content": "two"}
    approved = await decide(server, call_id, "edit", modified_arguments=edited)
    assert approved == [called(call_id, "write_file", edited, asks=False), done("waiting")]
    assert (await result(server, call_id, "ok"))[-1] == done("completed")


@pytest.mark.feature("S12", "S27")
@pytest.mark.parametrize(
    ("decision", "feedback", "words"),
    [("reject", "not this one", "not this one"), ("respond", "it is there already", "it is there already")],
)
async def test_a_person_answers_in_the_tools_place(
    make_server: MakeServer, decision: str, feedback: str, words: str
) -> None:
    server = await make_server(caller(("write_file", WRITE)))
    call_id = (await chunks(server, "s", GO))[0]["call_id"]
    *_, answer, end = await decide(server, call_id, decision, feedback=feedback)
    assert words in answer["content"]
    assert end == done("completed")


@pytest.mark.feature("S12")
async def test_regression_30_two_calls_are_decided_one_by_one(make_server: MakeServer) -> None:
    server = await make_server(caller(("write_file", WRITE), ("delete_file", {"path": "b"})))
    asked = await chunks(server, "s", GO)
    one, two = asked[0]["call_id"], asked[1]["call_id"]
    assert asked == [
        called(one, "write_file", WRITE, asks=True),
        called(two, "delete_file", {"path": "b"}, asks=True),
        done("waiting"),
    ]
    # The other one still waits, so nothing more is to be told.
    assert await decide(server, two, "respond", feedback="second") == [done("waiting")]
    assert without_tokens(await decide(server, one, "respond", feedback="first")) == [
        said("first | second"),
        done("completed"),
    ]


@pytest.mark.feature("S12", "S30")
async def test_a_tool_of_the_server_runs_once_it_is_allowed(make_server: MakeServer) -> None:
    ran: list[str] = []

    @tool
    async def launch(target: str) -> str:
        """Launch."""
        ran.append(target)
        return f"launched at {target}"

    server = await make_server(
        caller(("launch", {"target": "moon"}), tools=(launch,)),
        policies=(PolicySettings(tool="launch", effect="ask"),),
    )
    asked = await chunks(server, "s", GO)
    call_id = asked[0]["call_id"]
    assert asked == [called(call_id, "launch", {"target": "moon"}, asks=True, executor="server"), done("waiting")]
    assert ran == []
    assert without_tokens(await decide(server, call_id, "approve")) == [
        said("launched at moon"),
        done("completed"),
    ]
    assert ran == ["moon"]


@pytest.mark.feature("S12")
async def test_a_tool_of_the_server_that_needs_nobody_is_told_of(make_server: MakeServer) -> None:
    @tool(read_only=True)
    async def look() -> str:
        """Look."""
        return "seen"

    server = await make_server(caller(("look", {}), tools=(look,)), **ALLOWED)
    told = without_tokens(await chunks(server, "s", GO))
    assert told[1:] == [said("seen"), done("completed")]
    assert told[0] == called(told[0]["call_id"], "look", {}, asks=False, executor="server")


@pytest.mark.feature("S12", "S25")
async def test_a_call_that_nobody_else_offers_to_run_is_this_clients(make_server: MakeServer) -> None:
    server = await make_server(
        caller(("write_file", WRITE), ("write_file", {"path": "b", "content": "two"})), **ALLOWED
    )
    told = await chunks(server, "s", GO)
    first, second = told[0]["call_id"], told[1]["call_id"]
    assert [(one["type"], one.get("requires_approval")) for one in told] == [
        ("tool_call", False),
        ("tool_call", False),
        ("done", None),
    ]
    assert told[-1] == done("waiting")
    assert await result(server, first, "one") == [done("waiting")]
    assert without_tokens(await result(server, second, "two")) == [said("one | two"), done("completed")]


@pytest.mark.feature("S12", "S25")
async def test_a_call_that_another_client_runs_is_waited_for(make_server: MakeServer) -> None:
    server = await make_server(caller(("write_file", WRITE)), **ALLOWED)
    session = await server.create_session(session_id="s")
    async with server.client.ws_connect(f"/sessions/{session}/ws?client_id=ide") as editor:
        tools = [{"name": "write_file", "parameters": {"type": "object"}}]
        await editor.send_json({"type": "register_tools", "id": "tools", "tools": tools})

        async def heard(event_type: str) -> dict[str, Any]:
            async with asyncio.timeout(40):
                while True:
                    event: dict[str, Any] = await editor.receive_json()
                    if event["event_type"] == event_type:
                        return dict(event["payload"])

        await heard("ack")
        streaming = asyncio.create_task(chunks(server, "s", GO))
        dispatched = await heard("tool_dispatched")
        assert dispatched["client_id"] == "ide"
        await editor.send_json({"type": "tool_result", "id": "r", "call_id": dispatched["call_id"], "result": "done"})
        told = without_tokens(await streaming)
    assert told == [
        called(dispatched["call_id"], "write_file", WRITE, asks=False),
        said("done"),
        done("completed"),
    ]


@pytest.mark.feature("S12")
async def test_a_turn_is_handed_over(make_server: MakeServer) -> None:
    @agent("expert", name="Expert", description="Knows better")
    async def expert(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield Text("I know")

    handing = caller(("handoff", {"agent_type": "expert", "reason": "knows better"}), handoffs=("expert",))
    server = await make_server(handing, expert)
    told = without_tokens(await chunks(server, "s", GO))
    switched = next(chunk for chunk in told if chunk["type"] == "agent_switched")
    assert switched["metadata"] == {"from_agent": "caller", "to_agent": "expert", "reason": "knows better"}
    assert told[-2:] == [said("I know"), done("completed")]


@pytest.mark.feature("S12")
async def test_regression_31_what_an_asked_agent_wants_to_do_is_asked_about(make_server: MakeServer) -> None:
    asking = caller(("ask_agent", {"agent_type": "expert", "task": "write"}), delegates=("expert",))
    expert = caller(("write_file", WRITE), type="expert")
    server = await make_server(asking, expert)
    told = without_tokens(await chunks(server, "s", GO))
    assert [(one.get("tool_name"), one.get("requires_approval")) for one in told] == [
        ("ask_agent", False),
        ("write_file", True),
        (None, None),
    ]
    call_id = told[1]["call_id"]
    # What the asked agent says is said to the one that asked it.
    answered = await decide(server, call_id, "respond", feedback="no need")
    assert without_tokens(answered) == [said("no need"), done("completed")]
    assert "".join(chunk.get("token", "") for chunk in answered) == "no need"


@pytest.mark.feature("S12")
async def test_the_same_request_again_tells_the_turn_again_whatever_became_of_it(make_server: MakeServer) -> None:
    server = await make_server(caller(("write_file", WRITE)))
    go = {"headers": {"Idempotency-Key": "go"}}
    asked = await chunks(server, "s", GO, **go)
    assert await chunks(server, "s", GO, **go) == asked
    call_id = asked[0]["call_id"]
    answered = await decide(server, call_id, "respond", feedback="no need")
    assert (await chunks(server, "s", GO, **go))[-2:] == without_tokens(answered)


@pytest.mark.feature("S12", "S24")
async def test_who_cancels_ends_the_stream(make_server: MakeServer) -> None:
    gate = asyncio.Event()

    @agent("slow", name="Slow", description="Waits")
    async def slow(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield Text("I ")
        await gate.wait()

    server = await make_server(slow)
    session = await server.create_session(session_id="s")
    async with server.client.post("/agent/message/stream", json={"session_id": "s", "message": GO}) as stream:
        assert await stream.content.readline()
        assert (await server.command(session, type="cancel"))[0] == 200
        rest = await stream.content.read()
    assert json.loads(rest.splitlines()[-2].removeprefix(b"data: ")) == done("cancelled")


@pytest.mark.feature("S12")
async def test_a_stopping_server_says_that_the_stream_broke_off(make_server: MakeServer) -> None:
    gate = asyncio.Event()

    @agent("slow", name="Slow", description="Waits")
    async def slow(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield Text("I ")
        await gate.wait()

    server = await make_server(slow)
    body = {"session_id": "s", "message": GO}
    async with server.client.post("/agent/message/stream", json=body) as stream:
        assert await stream.content.readline()
        await server.services.hub.close()
        rest = (await stream.content.read()).decode()
    chunk = json.loads(next(line for line in rest.splitlines() if '"error"' in line).removeprefix("data: "))
    assert (chunk["type"], chunk["metadata"]["code"]) == ("error", "shutdown")
    assert '"done"' not in rest
