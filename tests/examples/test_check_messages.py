"""The check of a deployment passes where all is well, and fails for everything that it looks at."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from aiohttp import web

from examples import check_messages
from tests.examples.test_examples import EXAMPLES, TOKEN, guarded, run
from tests.support.server import MakeServer, RunningServer

CHECK = EXAMPLES / "check_messages.py"
TRANSPORTS = ["sse", "ws", "ndjson"]
SESSION = "0197f000-0000-7000-8000-000000000001"
AGENT = "0197f000-0000-7000-8000-00000000000a"
USER = "0197f000-0000-7000-8000-0000000000b0"
TIME = "2026-01-02T03:04:05.678Z"

Events = list[dict[str, Any]]


async def check(url: str, *arguments: str, **variables: str) -> tuple[int | None, str]:
    """Run it; its exit code, and what it printed."""
    code, out, errors = await run(sys.executable, "-I", CHECK, url, *arguments, **variables)
    assert errors == ""
    return code, out


# --- against Parley


@pytest.mark.feature("S10", "S01", "S02", "S03")
@pytest.mark.parametrize("over", TRANSPORTS)
async def test_all_is_well_over_each_transport(server: RunningServer, over: str) -> None:
    code, out = await check(server.url, "--over", over, "--say", "echo hello")
    first, user, assistant, last = out.splitlines()
    assert (code, first, last) == (0, f"{over}:", "  all there")
    assert user.startswith("  message_created user ")
    assert user.endswith(" 'echo hello'")
    assert assistant.startswith("  message_created assistant ")
    assert " Offline " in assistant
    assert assistant.endswith(" 'hello'")
    # It leaves nothing behind.
    async with server.client.get("/sessions") as response:
        assert (await response.json())["total"] == 0


@pytest.mark.feature("S10", "S37")
async def test_all_transports_with_a_token(make_server: MakeServer) -> None:
    server = await guarded(make_server)
    code, out = await check(server.url)
    assert (code, out.count("WRONG: POST /sessions: 401")) == (1, 3)
    code, out = await check(server.url + "/", PARLEY_TOKEN=TOKEN)
    assert (code, out.count("all there")) == (0, 3)


async def test_a_turn_that_fails_is_no_success(server: RunningServer) -> None:
    code, out = await check(server.url, "--over", "sse", "--say", "fail late")
    assert (code, "WRONG: turn_error" in out, "you asked for a failure" in out) == (1, True, True)


async def test_nobody_answers() -> None:
    code, out = await check("http://127.0.0.1:1", "--over", "ws")
    assert (code, "refused" in out) == (1, True)


# --- against servers that lie


def truth() -> Events:
    """What comes for a message that says `hello`."""

    def made(number: int, **payload: Any) -> dict[str, Any]:
        body = {"message_id": f"0197f000-0000-7000-8000-0000000000b{number}", "timestamp": TIME, **payload}
        return {"event_type": "message_created", "session_id": SESSION, "timestamp": TIME, "payload": body}

    done = {
        "event_type": "task_completed",
        "session_id": SESSION,
        "timestamp": TIME,
        "payload": {"status": "completed"},
    }
    agent = {"agent_id": AGENT, "agent_name": "Liar"}
    return [made(0, role="user", content="hello"), made(1, role="assistant", content="I never lie", **agent), done]


class Fake:
    """As little of Parley as the check needs, in all three transports; `events` come when something was said."""

    def __init__(self, events: Events | None) -> None:
        """`None`: it says nothing at all, and ends nothing."""
        self._events = events or []
        self._silent = events is None
        self._said = asyncio.Event()

    @asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Its URL."""
        app = web.Application()
        app.router.add_post("/sessions", self._create)
        app.router.add_delete("/sessions/{session}", self._create)
        app.router.add_post("/sessions/{session}/commands", self._command)
        app.router.add_get("/sessions/{session}/events", self._stream)
        app.router.add_get("/sessions/{session}/ws", self._websocket)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{site.port}"
        finally:
            await runner.cleanup()

    async def _create(self, _request: web.Request) -> web.Response:
        return web.json_response({"id": SESSION})

    async def _command(self, _request: web.Request) -> web.Response:
        if not self._silent:
            self._said.set()
        return web.json_response({"status": "accepted"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": request.headers["Accept"]})
        await response.prepare(request)
        await self._said.wait()
        frame = "event: x\ndata: %s\n\n" if "event-stream" in request.headers["Accept"] else "%s\n"
        for event in self._events:
            await response.write((frame % json.dumps(event)).encode())
        return response

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert (await socket.receive_json())["content"] == "hello"
        if self._silent:
            await self._said.wait()
        for event in self._events:
            await socket.send_json(event)
        await socket.close()
        return socket


Lie = Callable[[Events], object]


async def verdict(events: Events | None, over: str = "sse", patience: float = 30) -> str:
    """What is wrong, or nothing; without a process of its own, for there are many lies."""
    async with Fake(events).run() as url:
        with closing(check_messages.Server(url, patience)) as server:
            try:
                await asyncio.to_thread(check_messages.check, server, check_messages.CHANNELS[over], "hello")
            except (check_messages.CheckError, TimeoutError) as error:
                return str(error)
    return ""


@pytest.mark.parametrize("over", TRANSPORTS)
async def test_the_liar_may_say_the_truth(over: str) -> None:
    assert await verdict(truth(), over) == ""


@pytest.mark.feature("S01", "S02", "S03", "S10")
@pytest.mark.parametrize("place", ["session_id", "timestamp", "message_id", "content", "payload.timestamp"])
@pytest.mark.parametrize("role", ["user", "assistant"])
async def test_a_field_that_is_missing_is_named(role: str, place: str) -> None:
    events = truth()
    event = events[role == "assistant"]
    of_envelope = place in {"session_id", "timestamp"}
    del (event if of_envelope else event["payload"])[place.removeprefix("payload.")]
    field = place if of_envelope or "." in place else f"payload.{place}"
    assert await verdict(events) == f"message_created ({role}): {field} is missing"


@pytest.mark.feature("S01", "S10")
@pytest.mark.parametrize("name", ["agent_id", "agent_name"])
@pytest.mark.parametrize("over", TRANSPORTS)
async def test_the_assistant_says_who_it_is(name: str, over: str) -> None:
    events = truth()
    del events[1]["payload"][name]
    assert await verdict(events, over) == f"message_created (assistant): payload.{name} is missing"


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (lambda events: events[0].update(session_id=AGENT), "session_id is '0197"),
        (lambda events: events[1].update(timestamp="yesterday"), "timestamp is 'yesterday'"),
        (lambda events: events[0].pop("event_type"), "message_created came for: assistant"),
        (lambda events: events[1].pop("payload"), "message_created of nobody"),
        (lambda events: events[0]["payload"].pop("role"), "message_created of nobody"),
        (lambda events: events[1]["payload"].update(role="system"), "message_created of nobody"),
        (lambda events: events[0]["payload"].update(message_id="7"), "payload.message_id is '7'"),
        (lambda events: events[0]["payload"].update(content="hullo"), "payload.content is 'hullo'"),
        (lambda events: events[1]["payload"].update(content=None), "payload.content is None"),
        (lambda events: events[1]["payload"].update(content=""), "the turn is over"),
        (lambda events: events[1]["payload"].update(agent_id="offline"), "payload.agent_id is 'offline'"),
        (lambda events: events[1]["payload"].update(agent_name=""), "payload.agent_name is ''"),
        (lambda events: events[1].update(payload=events[1]["payload"] | {"message_id": USER}), "the same message_id"),
        (lambda events: events.pop(0), "message_created came for: assistant"),
        (lambda events: events.pop(1), "message_created came for: user"),
        (lambda events: events.pop(2), "the stream ended before the turn did"),
        (lambda events: events.clear(), "the stream ended before the turn did"),
        (lambda events: events.insert(1, {"event_type": "turn_error", "payload": {"code": "x"}}), "turn_error: "),
    ],
)
async def test_a_lie_is_found(lie: Lie, said: str) -> None:
    events = truth()
    lie(events)
    assert said in await verdict(events)


@pytest.mark.parametrize("over", TRANSPORTS)
async def test_silence_is_not_waited_for_for_ever(over: str) -> None:
    assert await verdict(None, over, patience=0.3) in {"timed out", "it takes too long"}


async def test_a_lie_is_told_to_the_shell() -> None:
    async with Fake(truth()[:2]).run() as url:
        code, out = await check(url, "--over", "ndjson", "--say", "hello")
    assert (code, out.splitlines()[-1]) == (1, "  WRONG: the stream ended before the turn did")
