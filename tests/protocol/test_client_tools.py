"""Tools of the Python client, with a server that the test plays: each call runs once, whatever happens in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from msgspec import Meta

from protocol.client import CallContext, ClientTool, calls, client_tool, connect, connect_sync
from protocol.client.choice import Memory
from protocol.client.tools import Outcome
from protocol.commands import Ping, ToolDescription
from protocol.errors import ErrorCode, ParleyError
from protocol.tools import ToolError
from tests.protocol.server import PATIENCE, Played, dispatched, playing
from tests.protocol.support import ENVELOPE, QUESTION, QUICK, TURN, WAYS

ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture(autouse=True)
def new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are used again, and what was found out about them is about others."""
    monkeypatch.setattr("protocol.client.choice.SHARED", Memory())


def me(played: Played, *tools: Any, **options: Any) -> Any:
    options.setdefault("timings", QUICK)
    return connect(played.url, "x", client_id="me", tools=tools, **options)


class Counter:
    """A tool that counts how often it runs, and goes on when it is told to."""

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = 0

    async def double(self, n: int, context: CallContext) -> int:
        """Double a number, slowly."""
        self.runs.append(context.call_id)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return 2 * n


@client_tool(read_only=True)
def double(n: Annotated[int, Meta(ge=0, description="A number.")]) -> int:
    """Double a number."""
    return 2 * n


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens in this loop soon."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for belongs to the client, and happens soon
            await asyncio.sleep(0)


# --- what a tool is


def test_a_function_is_described_by_its_signature() -> None:
    about = double.description
    assert (about.name, about.description, about.read_only, about.idempotent) == (
        "double",
        "Double a number.",
        True,
        True,
    )
    assert about.parameters["properties"]["n"] == {"type": "integer", "minimum": 0, "description": "A number."}
    assert about.parameters["additionalProperties"] is False


def test_what_is_no_tool() -> None:
    def undocumented(n: int) -> int:
        return n

    def untyped(n) -> None:  # type: ignore[no-untyped-def]
        """Do something."""

    with pytest.raises(ValueError, match="docstring"):
        connect("http://127.0.0.1:1", tools=[undocumented])
    with pytest.raises(TypeError, match="'n' needs a type"):
        connect("http://127.0.0.1:1", tools=[untyped])
    with pytest.raises(ValueError, match="two tools have one name"):
        connect("http://127.0.0.1:1", tools=[double, double])
    with pytest.raises(ValueError, match="must be 1-64 characters"):
        ClientTool(ToolDescription(name="two words", parameters={}), lambda _, __: None)
    with pytest.raises(ValueError, match="at least 1"):
        connect("http://127.0.0.1:1", concurrency=0)


# --- a call


@pytest.mark.feature("A02", "S25")
@ways
async def test_a_call_is_run_and_answered_over_each_transport(way: Any) -> None:
    async with playing() as played, me(played, double, **way) as client:
        assert [tool["name"] for tool in played.of("register_tools")[0]["tools"]] == ["double"]
        played.dispatch("a", n=21)
        result = await played.next()
        assert (result["call_id"], result["result"], result.get("error")) == ("a", 42, None)
        await until(lambda: not client.running)


async def test_what_goes_wrong_is_the_models_to_read() -> None:
    async def fail(how: str) -> Any:
        """Fail in some way."""
        match how:
            case "told":
                raise ToolError("there is no such file")
            case "exit":
                raise SystemExit(3)
            case "cancelled":
                raise asyncio.CancelledError
            case "nul":
                return "a\0b"
            case "surrogate":
                raise ValueError("\ud800\0")
            case "object":
                return object()
            case "large":
                return "x" * 5000
            case _:
                raise ZeroDivisionError("by nothing")

    wanted = {
        "told": "there is no such file",
        "other": "fail failed: ZeroDivisionError: by nothing",
        "exit": "fail failed: SystemExit: 3",
        "cancelled": "fail failed: CancelledError: ",
        "nul": "the result of fail cannot be sent: ",
        "surrogate": "fail failed: ValueError: \ufffd\ufffd",
        "object": "the result of fail is no JSON value: ",
        "large": "the result of fail cannot be sent: at most 4000 bytes are allowed",
    }
    async with playing() as played:
        played.limits = {"max_command_bytes": 4000}
        async with me(played, fail):
            for how, words in wanted.items():
                played.dispatch(how, "fail", how=how)
                assert (await played.next())["error"].startswith(words), how
            for call_id, payload in (
                ("unknown", dispatched("unknown", "no_such_tool")),
                ("field", dispatched("field", "fail", when=1)),
                ("type", dispatched("type", "fail", how=1)),
                ("none", dispatched("none", "fail") | {"arguments": "not an object"}),
            ):
                played.durable("tool_dispatched", **payload)
                result = await played.next()
                assert result["call_id"] == call_id
                assert "fail" in result["error"]


async def test_functions_that_block_run_in_threads_and_handlers_get_what_came() -> None:
    seen: list[Any] = []

    def handler(arguments: dict[str, Any], context: CallContext) -> Any:
        seen.append((arguments, context.name, str(context.turn_id), threading.current_thread().name))
        return {"done": True}

    tool = ClientTool(ToolDescription(name="raw", parameters={"type": "object"}), handler)
    async with playing() as played, me(played, tool):
        played.dispatch("a", "raw", x=[1])
        assert (await played.next())["result"] == {"done": True}
    assert seen == [({"x": [1]}, "raw", TURN, "parley-client-tool")]


# --- once


@pytest.mark.feature("A02")
async def test_regression_15_a_call_that_is_said_again_is_not_run_again_and_has_one_result() -> None:
    counter = Counter()
    async with playing() as played, me(played, counter.double) as client:
        played.dispatch("a", n=1)
        await counter.begun.wait()
        # Numbered, as after a change of executors, and unnumbered, as after `sync`.
        played.dispatch("a", n=1)
        played.say({"event_type": "tool_dispatched", "payload": dispatched("a", n=1)})
        # Whoever says it again is told that it is being done.
        assert (await played.next("tool_progress"))["call_id"] == "a"
        counter.go.set()
        first = await played.next()
        await until(lambda: not client.running)
        played.say({"event_type": "tool_dispatched", "payload": dispatched("a", n=1)})
        again = await played.next()
        assert (first, first["result"]) == (again, 2)
        await until(lambda: not client.running)
    assert counter.runs == ["a"]


@ways
async def test_regression_32_a_call_goes_on_while_the_connection_is_made_anew(way: Any) -> None:
    counter = Counter()
    async with playing() as played, me(played, counter.double, **way):
        played.dispatch("a", n=1)
        await counter.begun.wait()
        played.again = [{"event_type": "tool_dispatched", "payload": dispatched("a", n=1)}]
        played.say(None)
        await until(lambda: played.connections == 2)
        await played.next("register_tools")
        await until(lambda: len(played.of("register_tools")) == 2)
        counter.go.set()
        assert (await played.next())["result"] == 2
    assert counter.runs == ["a"]


async def test_a_replay_runs_only_what_is_still_open_and_ours() -> None:
    counter = Counter()
    counter.go.set()
    async with playing() as played:
        other = "00000000-0000-0000-0000-000000000009"
        for call_id in ("answered", "taken", "given", "over", "open"):
            played.dispatch(call_id, n=1)
        played.result("answered")
        played.dispatch("taken", client_id="somebody", n=1)
        played.dispatch("given", client_id="somebody", n=1)
        played.dispatch("given", n=2)
        played.log[3]["payload"]["turn_id"] = other
        played.durable("task_cancelling", turn_id=other, command_id="c")
        async with me(played, counter.double, after="0"):
            assert {(await played.next())["call_id"], (await played.next())["call_id"]} == {"open", "given"}
    assert sorted(counter.runs) == ["given", "open"]


async def test_a_result_is_sent_until_it_is_taken() -> None:
    async with playing() as played:
        tries: list[str] = []

        def refuse(command: Any) -> tuple[str, int] | None:
            if command["type"] != "tool_result":
                return None
            tries.append(command["id"])
            return ("unavailable", 503) if len(tries) < 3 else None

        played.refuse = refuse
        async with me(played, double) as client:
            played.dispatch("a", n=1)
            await until(lambda: len(tries) == 3 and not client.running)
    assert len(set(tries)) == 1


@pytest.mark.parametrize("code", ["already_resolved", "not_found", "conflict", "forbidden"])
async def test_that_somebody_else_was_quicker_is_no_trouble(code: str) -> None:
    async with playing() as played:
        played.refuse = lambda command: (code, 409) if command["type"] == "tool_result" else None
        async with me(played, double) as client:
            played.dispatch("a", n=1)
            await played.next()
            await until(lambda: not client.running)
            assert client.state == "open"
    assert len(played.of("tool_result")) == 1


# --- lease, progress, cancellation


@pytest.mark.feature("A02")
async def test_a_lease_is_renewed_while_a_call_runs_or_waits_to_run() -> None:
    counter = Counter()
    async with playing() as played, me(played, counter.double, concurrency=1):
        played.dispatch("a", n=1, lease=0.3)
        played.dispatch("b", n=1, lease=0.3)
        told: set[str] = set()
        while told != {"a", "b"} or len(played.of("tool_progress")) < 6:
            told.add((await played.next("tool_progress"))["call_id"])
        assert counter.runs == ["a"]
        counter.go.set()
        assert {(await played.next())["call_id"], (await played.next())["call_id"]} == {"a", "b"}


async def test_progress_is_told_and_what_comes_too_fast_is_merged() -> None:
    go = threading.Event()

    def slow(context: CallContext) -> str:
        """Take a while."""
        for number in range(1000):
            context.progress(f"step {number}\0", number)
        context.progress("\ud800" + "x" * 1000, float("nan"))
        assert go.wait(PATIENCE)
        return "done"

    async with playing() as played, me(played, slow):
        played.dispatch("a", "slow")
        seen = [await played.next("tool_progress")]
        while "fraction" in seen[-1]:
            seen.append(await played.next("tool_progress"))
        go.set()
        await played.next()
    assert len(seen) < 10
    assert seen[-1]["message"] == "\ufffd" + "x" * 498 + "…"


@pytest.mark.feature("A02")
@pytest.mark.parametrize("how", ["result", "task_cancelling", "task_completed", "already_resolved"])
async def test_a_call_that_nobody_wants_any_more_is_cancelled(how: str) -> None:
    counter = Counter()
    async with playing() as played, me(played, counter.double) as client:
        played.dispatch("a", n=1, lease=0.3)
        await counter.begun.wait()
        match how:
            case "result":
                played.result("a")
            case "task_cancelling":
                played.durable(how, turn_id=TURN, command_id="c")
            case "task_completed":
                usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
                played.durable(how, turn_id=TURN, status="failed", usage=usage, steps=1, duration_ms=1)
            case _:
                played.refuse = lambda command: (how, 409) if command["type"] == "tool_progress" else None
        await until(lambda: counter.cancelled == 1 and not client.running)
        assert played.of("tool_result") == []


async def test_a_thread_that_was_given_up_keeps_its_place() -> None:
    """Otherwise one who calls and cancels would have us begin threads without end."""
    go, contexts = threading.Event(), []

    def stuck(context: CallContext) -> str:
        """Hang."""
        contexts.append(context)
        assert go.wait(PATIENCE)
        return "late"

    async with playing() as played, me(played, stuck, concurrency=1) as client:
        played.dispatch("a", "stuck")
        await until(lambda: contexts)
        played.result("a")
        await until(lambda: not client.running)
        assert contexts[0].cancelled
        played.dispatch("b", "stuck")
        await until(lambda: client.running == ["b"])
        assert len(contexts) == 1
        go.set()
        assert (await played.next())["call_id"] == "b"
    assert [command["call_id"] for command in played.of("tool_result")] == ["b"]


async def test_regression_38_leaving_cancels_what_runs_here_and_stops_no_turn() -> None:
    counter = Counter()
    async with playing() as played:
        async with me(played, counter.double):
            played.dispatch("a", n=1)
            await counter.begun.wait()
        assert counter.cancelled == 1
        assert {command["type"] for command in played.commands} == {"register_tools"}


# --- which tools


async def test_other_tools_may_be_offered_later_and_calls_go_on() -> None:
    counter = Counter()
    async with playing() as played, me(played) as client:
        assert played.of("register_tools") == []
        await client.offer(counter.double)
        played.dispatch("a", n=1)
        await counter.begun.wait()
        await client.offer()
        assert [len(command["tools"]) for command in played.of("register_tools")] == [1, 0]
        counter.go.set()
        assert (await played.next())["result"] == 2
        played.dispatch("b", n=1)
        assert (await played.next())["error"] == "this client has no tool double; it has: none"


async def test_who_may_not_have_tools_is_told_so() -> None:
    async with playing() as played:
        played.refuse = lambda command: ("forbidden", 403) if command["type"] == "register_tools" else None
        with pytest.raises(ParleyError) as caught:
            async with me(played, double):
                pass
        assert caught.value.code is ErrorCode.FORBIDDEN
        played.refuse = lambda _: None
        async with me(played, double) as client:
            played.refuse = lambda command: ("forbidden", 403) if command["type"] == "register_tools" else None
            played.say(None)
            with pytest.raises(ParleyError, match="forbidden"):
                await client.serve()
            assert client.state == "closed"


async def test_a_long_replay_that_nobody_reads_yet_keeps_nobody_from_connecting() -> None:
    async with playing() as played:
        for _ in range(30):
            played.durable("from_the_future")
        few = type(QUICK)(shortest_pause=0.01, longest_pause=0.05, waiting_events=10)
        async with me(played, double, after="0", timings=few) as client:
            assert played.of("register_tools") == []
            serving = asyncio.create_task(client.serve())
            await played.next("register_tools")
            played.dispatch("a", n=1)
            assert (await played.next())["result"] == 2
        await serving


def test_tools_of_a_client_without_a_loop() -> None:
    ran = threading.Event()
    ready: list[Played] = []
    over, listening = threading.Event(), threading.Event()

    async def serve() -> None:
        async with playing() as played:
            ready.append(played)
            listening.set()
            command = await played.next("ping")
            played.dispatch("a", n=int(command["id"]))
            result = await played.next()
            assert result["result"] == 6
            ran.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert listening.wait(PATIENCE)
        with connect_sync(ready[0].url, "x", client_id="me", tools=[double], timings=QUICK) as session:
            session.send(Ping(id="3"))
            assert ran.wait(PATIENCE)
            assert (session.approvals, session.clients) == ([], [])
            session.offer()
    finally:
        over.set()
        thread.join()


# --- servers that mean no good


async def test_dispatches_that_make_no_sense_are_passed_over() -> None:
    strange: list[dict[str, Any]] = [
        {"call_id": 1},
        {"call_id": ""},
        {"call_id": "x" * 257},
        {"turn_id": "none"},
        {"deadline": "tomorrow"},
        {"client_id": "somebody-else"},
    ]
    async with playing() as played, me(played, double) as client:
        for number, change in enumerate(strange):
            played.durable("tool_dispatched", **(dispatched(f"s{number}", n=1) | change))
        # A day that does not exist is no lease, and no trouble.
        played.durable("tool_dispatched", **(dispatched("a", n=1) | {"deadline": "2026-99-99T00:00:00.000Z"}))
        assert (await played.next())["call_id"] == "a"
        await until(lambda: not client.running)
    assert len(played.of("tool_result")) == 1


async def test_ten_thousand_dispatches_at_once_do_no_harm() -> None:
    counter = Counter()
    async with playing() as played, me(played, counter.double, concurrency=2) as client:
        serving = asyncio.create_task(client.serve())
        for number in range(10_000):
            played.say({"event_type": "tool_dispatched", "payload": dispatched(f"c{number}", n=1)})
        played.durable("from_the_future")
        await until(lambda: client.cursor == "e.1")
        assert len(client.running) == 1000
        assert len(counter.runs) == 2
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        played.durable("task_completed", turn_id=TURN, status="failed", usage=usage, steps=1, duration_ms=1)
        await until(lambda: not client.running)
    await serving
    assert played.of("tool_result") == []


# --- approvals, presence


APPROVAL = {
    "approval_id": TURN,
    "turn_id": TURN,
    "message_id": TURN,
    "name": "write_file",
    "arguments": {"path": "a"},
    "arguments_hash": "h",
    "allowed_decisions": ["approve", "edit", "reject", "respond"],
    "expires_at": None,
}


def asked(call_id: str) -> dict[str, Any]:
    return {"event_type": "approval_required", "payload": APPROVAL | {"call_id": call_id}}


@pytest.mark.feature("A03", "S27")
@ways
async def test_regression_30_approvals_are_seen_and_each_decision_names_its_call(way: Any) -> None:
    async with playing() as played:
        played.again = [asked("old")]
        async with me(played, **way) as client:
            await until(lambda: client.approvals)
            for call_id in "abcd":
                played.durable("approval_required", **asked(call_id)["payload"])
            await until(lambda: len(client.approvals) == 5)
            assert [one.call_id for one in client.approvals] == ["old", *"abcd"]
            await client.approve("a", remember="session")
            await client.edit("b", {"path": "b"})
            await client.reject("c", "not that one")
            await client.respond("d", "it says 42")
            resolved = {"approval_id": TURN, "turn_id": TURN, "decision": "approve", "cause": "person"}
            played.durable("approval_resolved", call_id="a", **resolved)
            await until(lambda: [one.call_id for one in client.approvals] == ["old", *"bcd"])
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            played.durable("task_completed", turn_id=TURN, status="failed", usage=usage, steps=1, duration_ms=1)
            await until(lambda: client.approvals == [])
    said = [
        {key: value for key, value in one.items() if key not in {"id", "type"}} for one in played.of("hitl_decision")
    ]
    assert said == [
        {"call_id": "a", "decision": "approve", "remember": {"scope": "session"}},
        {"call_id": "b", "decision": "edit", "modified_arguments": {"path": "b"}},
        {"call_id": "c", "decision": "reject", "feedback": "not that one"},
        {"call_id": "d", "decision": "respond", "feedback": "it says 42"},
    ]


@pytest.mark.feature("A03")
async def test_a_decision_after_somebody_elses_is_told_so() -> None:
    async with playing() as played, me(played) as client:
        played.refuse = lambda _: ("already_resolved", 409)
        with pytest.raises(ParleyError) as caught:
            await client.approve("a")
        assert caught.value.code is ErrorCode.ALREADY_RESOLVED


@pytest.mark.feature("T09")
async def test_who_is_here_is_known() -> None:
    async with playing() as played, me(played) as client:

        def change(what: str, client_id: str, *tools: str) -> None:
            about = {"client_id": client_id, "transport": "ws", "tools": list(tools)}
            payload = {"change": what, "client": about, "clients": 1}
            played.say({"event_type": "presence_changed", "payload": payload})

        change("joined", "editor")
        change("updated", "editor", "read_file")
        change("joined", "tab")
        await until(lambda: len(client.clients) == 2)
        assert [(one.client_id, one.tools) for one in client.clients] == [("editor", ["read_file"]), ("tab", [])]
        change("left", "tab")
        await until(lambda: [one.client_id for one in client.clients] == ["editor"])


# --- answers, with agents that ask agents


@pytest.mark.feature("A05")
async def test_regression_31_an_asked_agents_approvals_show_but_what_it_says_is_no_part_of_the_answer() -> None:
    child = "00000000-0000-0000-0000-00000000000c"
    moment = ENVELOPE["timestamp"]
    agent = {"agent_type": "a", "agent_id": TURN, "agent_name": "A"}

    def delta(message: int, text: str) -> dict[str, Any]:
        about = {"message_id": f"00000000-0000-0000-0000-0000000000{message:02}", "attempt": 1, "part": "content"}
        return {"event_type": "message_delta", "payload": about | {"offset": 0, "text": text}}

    def said(message: int, text: str, turn: str, **more: Any) -> None:
        identity = f"00000000-0000-0000-0000-0000000000{message:02}"
        payload = {"message_id": identity, "role": "assistant", "content": text, "timestamp": moment, "turn_id": turn}
        played.durable("message_created", **payload, **more)

    def over(turn: str, **more: Any) -> None:
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        payload = {"turn_id": turn, "status": "completed", "usage": usage, "steps": 1, "duration_ms": 1}
        played.durable("task_completed", **payload, **more)

    async with playing() as played, me(played) as client:
        growing = client.ask("?")
        chunks = []

        async def read() -> None:
            chunks.extend([chunk async for chunk in growing])

        reading = asyncio.create_task(read())
        command = await played.next("user_message")
        assert command["content"] == "?"
        played.durable("task_started", turn_id=TURN, message_id=QUESTION, **agent)
        played.say(delta(10, "I ask. "))
        said(10, "I ask.", TURN)
        played.durable("task_started", turn_id=child, message_id=TURN, parent_call_id="call", **agent)
        played.say(delta(11, "the child thinks"))
        played.durable("approval_required", **(asked("deep")["payload"] | {"turn_id": child}))
        said(11, "the child has said", child, parent_call_id="call")
        over(child, parent_call_id="call")
        played.say(delta(11, "late"))
        played.say(delta(12, "So it is."))
        said(12, "So it is.", TURN)
        over(TURN)
        async with asyncio.timeout(PATIENCE):
            await reading
        # Its turn is over, and so is what it asked.
        assert client.approvals == []
    assert growing.text == "I ask.\n\nSo it is."
    assert "child" not in "".join(chunk.text for chunk in chunks)
    assert "approval_required" in [chunk.event.event_type for chunk in chunks]


def test_what_is_remembered_of_calls_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_MOST_DONE", 4)
    monkeypatch.setattr(calls, "_MOST_KEPT_BYTES", 250)
    done = calls.Done()
    for number in range(6):
        done.add(f"c{number}", Outcome.failed("x" * 100))
    done.add("given up", None)
    kept = [done.outcome(f"c{number}") for number in range(6)]
    # Forgotten; known to have run; kept whole.
    assert [one is None for one in kept] == [True, True, True, False, False, False]
    assert ["does not have its result" in str(one.error) for one in kept[3:] if one] == [True, False, False]
    assert done.outcome("given up") is not None
