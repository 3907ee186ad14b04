"""The Python client and servers that are none, or mean no good: a clear error in bounded time, never a busy loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web

from protocol.client import Client, Server, Status, Timings, connect
from protocol.client.choice import Memory
from protocol.commands import UserMessage
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Sync
from tests.protocol.support import QUICK, Handler, Script, connected, durable, encoded, numbers, serving, sync, until

streams = pytest.mark.parametrize("transport", ["ws", "sse", "ndjson"])


@pytest.fixture(autouse=True)
def new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are used again, and what was found out about them is about others."""
    monkeypatch.setattr("protocol.client.choice.SHARED", Memory())


async def refused(url: str, **options: Any) -> ParleyError:
    """Why a client gave up: while it connected, or while it was iterated over."""
    options.setdefault("timings", QUICK)
    with pytest.raises(ParleyError) as caught:
        async with connect(url, "x", **options) as client, asyncio.timeout(30):
            await until(client, "never")
    return caught.value


# --- strange frames


@streams
@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\x00\xff\xfe garbage", "not an event"),
        (b"[]", "not an event"),
        (b'{"event_type": "connected"}', "not an event"),
        (b"[" * 100_000, "not an event"),
        (sync(), "began with 'sync'"),
        (durable(1), "began with 'from_the_future'"),
        ({"event_type": "connected", "payload": {}}, "connected: "),
        (connected(cursor="a cursor of some other kind"), "connected: "),
    ],
    ids=str,
)
async def test_who_does_not_begin_as_a_server_does_is_none(transport: Any, frame: Any, words: str) -> None:
    if transport == "ws" and isinstance(frame, bytes):
        frame = frame.decode("utf-8", "replace")
    script = Script([frame])
    async with serving(script.handle) as url:
        error = await refused(url, transport=transport)
    assert error.code is ErrorCode.PROTOCOL_ERROR
    assert words in error.message
    assert len(script.asked) == 1


@streams
@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([b"not JSON"], "not an event"),
        ([durable(2)], "events are missing between e.0 and e.2"),
        ([durable(1, epoch="f")], "events are missing between e.0 and f.1"),
        ([durable(1), sync("e.2")], "events are missing between e.1 and e.2"),
        ([sync("nowhere")], "sync: "),
        ([{"event_type": "x", "payload": {}, "seq": 1, "cursor": "?"}], "an event's cursor: "),
        ([{"event_type": "resync_required", "payload": {"reason": "ahead", "cursor": "?"}}], "resync_required: "),
    ],
    ids=str,
)
async def test_who_goes_on_otherwise_is_given_up_after_some_tries(transport: Any, frames: Any, words: str) -> None:
    if transport == "ws":
        frames = [frame.decode() if isinstance(frame, bytes) else frame for frame in frames]
    script = Script([connected(), *frames])
    async with serving(script.handle) as url:
        error = await refused(url, transport=transport)
    assert error.code is ErrorCode.PROTOCOL_ERROR
    assert words in error.message
    assert len(script.asked) == 5


async def test_what_is_no_websocket_message() -> None:
    async def mangled(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False, protocols=("parley.v1.json",))
        await socket.prepare(request)
        assert request.transport is not None
        # All reserved bits are set.
        request.transport.write(b"\xf1\x01x")
        async for _ in socket:
            pass
        return socket

    async with serving(mangled) as url:
        error = await refused(url, transport="ws")
    assert "no WebSocket message" in error.message


@pytest.mark.parametrize("stable", [0.0, 3600.0])
async def test_pauses_begin_small_again_after_a_connection_that_lived_long(
    stable: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script([connected(), sync()], then_end=True)
    timings = Timings(shortest_pause=0.001, longest_pause=0.01, stable=stable)
    async with serving(script.handle) as url, connect(url, "x", transport="sse", timings=timings) as client:
        await until(client, "connected", 5)
        assert (client._stream._backoff._tries > 1) == (stable > 0)


async def test_a_hole_is_read_again() -> None:
    script = Script([connected(), durable(1), durable(3)], [connected(), durable(2), durable(3), sync("e.3")])
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson", timings=QUICK) as client:
        events = await until(client, "sync")
    assert numbers(events) == [1, 2, 3]
    assert script.asked == [("events", ""), ("events", "e.1")]


async def test_unknown_events_are_passed_on_and_repeated_ones_are_not() -> None:
    script = Script([connected(), durable(1, x=1), durable(1, x=1), sync("e.1")])
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson") as client:
        seen = await until(client, "sync")
    assert [event.event_type for event in seen] == ["connected", "from_the_future", "sync"]
    assert seen[1].payload is None
    assert isinstance(seen[2].payload, Sync)


@pytest.mark.feature("S07")
async def test_what_a_newer_server_says_in_an_old_place_breaks_nothing() -> None:
    newer = durable(1, "task_completed", turn_id="a turn of some other kind", status="postponed")
    status = {"event_type": "agent_status_changed", "payload": {"agent_type": "a", "status": "dreaming"}}
    script = Script([connected(unknown=1), newer, status, sync("e.1")])
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson") as client:
        seen = await until(client, "sync")
    assert [(event.event_type, event.payload is None) for event in seen[1:3]] == [
        ("task_completed", True),
        ("agent_status_changed", True),
    ]
    assert b"postponed" in seen[1].raw


@pytest.mark.feature("T03")
async def test_silence_is_a_lost_connection() -> None:
    script = Script([connected(heartbeat_ms=20), durable(7)])
    timings = Timings(grace=0, shortest_pause=0.01, longest_pause=0.01)
    async with (
        serving(script.handle) as url,
        connect(url, "x", transport="ndjson", after="e.6", timings=timings) as client,
    ):
        # On a machine that stands still, silence may come before the event once or twice.
        while ("events", "e.7") not in script.asked:
            await until(client, "connected")
    assert script.asked[0] == ("events", "e.6")
    assert script.asked == sorted(script.asked)


@pytest.mark.feature("T03")
@pytest.mark.parametrize("heartbeat_ms", [0, 10**15])
async def test_strange_heartbeats_are_kept_within_reason(heartbeat_ms: int) -> None:
    script = Script([connected(heartbeat_ms=heartbeat_ms), sync()])
    async with serving(script.handle) as url, connect(url, "x", transport="ws") as client:
        await until(client, "sync")
        assert 0.1 <= client._stream._heartbeat <= 300


async def test_a_snapshot_moves_the_cursor() -> None:
    resync = {"event_type": "resync_required", "payload": {"reason": "epoch_changed", "cursor": "f.9"}}
    script = Script([connected(), resync, durable(10, epoch="f")])
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson", after="e.50") as client:
        await until(client, "resync_required")
        cursors = [client.cursor]
        await until(client, "from_the_future")
        cursors.append(client.cursor)
    assert cursors == ["f.9", "f.10"]


# --- too much


@streams
async def test_an_event_without_an_end(transport: Any) -> None:
    script = Script([connected(), "x" * 500_000 if transport == "ws" else b"x" * 500_000])
    async with serving(script.handle) as url:
        error = await refused(url, transport=transport, timings=Timings(largest_event=8192))
    assert error.code is ErrorCode.TOO_LARGE
    assert len(script.asked) == 1


@asynccontextmanager
async def raw(answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Any]:
    """A server that answers connections with whatever it wants; its address, and how many there were."""
    tasks: set[asyncio.Task[Any]] = set()

    class Counted(list[str]):
        url = ""

    counted = Counted()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        counted.append("one")
        try:
            await answer(reader, writer)
        except OSError:
            counted.append("lost")
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    counted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield counted
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()


@pytest.mark.parametrize("transport", ["auto", "ws", "sse", "ndjson"])
async def test_nobody_is_waited_for_longer_than_was_promised(transport: Any) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    timings = Timings(opening=0.3, opening_websocket=0.1, answer=0.3)
    async with raw(silent) as server:
        with pytest.raises(ConnectionError, match=r"does not answer: nothing came within 0\.3 s"):
            async with connect(server.url, "x", transport=transport, timings=timings):
                pass
        with pytest.raises(ConnectionError, match=r"does not answer: nothing came within 0\.3 s"):
            async with connect(server.url, transport=transport, timings=timings):
                pass


async def test_nobody_there_is_told(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(ConnectionError, match=f"{url} does not answer: nothing listens on port {unused_tcp_port}"):
        async with connect(url, "x", timings=Timings(opening=2.0)):
            pass


@pytest.mark.parametrize("transport", ["auto", "ws", "sse", "ndjson"])
@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n", b"\x16\x03\x01\x00\x00"],
    ids=["nothing", "ssh", "half", "tls"],
)
async def test_regression_27_who_closes_at_once_is_not_asked_in_a_loop(transport: Any, answer: bytes) -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(answer)
        await writer.drain()

    async with raw(closing) as server:
        with pytest.raises(ConnectionError, match="does not answer"):
            async with connect(server.url, "x", transport=transport, timings=Timings(opening=0.5)):
                pass
        # Pauses of 0.25 s on the average, which double; two transports, and a question in words.
        assert server.count("one") < 30


async def test_an_answer_without_an_end() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    async with serving(endless) as url, Server(url, timings=Timings(largest_event=1 << 20)) as server:
        with pytest.raises(ParleyError, match="more than 1048576 bytes"):
            await server.agents()


async def test_a_farewell_without_an_end() -> None:
    """A peer that goes on and on while we say goodbye."""

    async def chatty(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("parley.v1.json",), autoclose=False)
        await socket.prepare(request)
        for frame in (connected(), sync()):
            await socket.send_str(encoded(frame).decode())
        while True:
            await socket.send_str(encoded({"event_type": "heartbeat", "payload": {}}).decode())
            await asyncio.sleep(0)

    async with serving(chatty) as url:
        async with connect(url, "x", transport="ws", timings=Timings(closing=0.2)) as client:
            await until(client, "sync")
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5


# --- strange answers


@streams
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (4500, ErrorCode.UNAUTHORIZED),
        (4502, ErrorCode.SESSION_GONE),
        (4504, ErrorCode.REPLACED),
        (4999, ErrorCode.PROTOCOL_ERROR),
        (1002, ErrorCode.PROTOCOL_ERROR),
        (1009, ErrorCode.PROTOCOL_ERROR),
    ],
)
@pytest.mark.feature("T04")
async def test_a_final_end_is_final(transport: Any, code: int, expected: ErrorCode) -> None:
    known = ErrorCode.of_close(code)
    farewell = {"code": known.code if known else "from_the_future", "reason": "go away", "reconnect": False}
    end = code if transport == "ws" else {"event_type": "disconnect", "payload": farewell}
    script = Script([connected(), sync(), end], then_end=True)
    async with serving(script.handle) as url:
        error = await refused(url, transport=transport)
    assert error.code is expected
    assert len(script.asked) == 1


@streams
@pytest.mark.parametrize("code", [1000, 1001, 1011, 3333, 4000, 4001, 4003, 4004, 4099])
@pytest.mark.feature("T04")
async def test_any_other_end_is_none(transport: Any, code: int) -> None:
    known = ErrorCode.of_close(code)
    farewell = {"code": known.code if known else "from_the_future", "reason": "see you", "reconnect": True}
    end = code if transport == "ws" else {"event_type": "disconnect", "payload": farewell}
    script = Script([connected(), sync(), end], [connected(), durable(1), sync("e.1")], then_end=True)
    async with serving(script.handle) as url, connect(url, "x", transport=transport, timings=QUICK) as client:
        events = await until(client, "from_the_future")
    assert numbers(events) == [1]
    assert script.asked[1][1] == "e.0"


@pytest.mark.feature("T04")
async def test_the_server_says_when_to_come_back() -> None:
    farewell = {"code": "shutdown", "reason": "bye", "reconnect": True, "retry_after_ms": 400}
    end = {"event_type": "disconnect", "payload": farewell}
    script = Script([connected(), sync(), end], [connected(), sync(), asyncio.Event()], then_end=True)
    loop = asyncio.get_running_loop()
    async with serving(script.handle) as url, connect(url, "x", transport="ndjson", timings=QUICK) as client:
        watching = asyncio.create_task(statuses(client))
        await until(client, "disconnect")
        left = loop.time()
        await until(client, "connected")
        assert loop.time() - left >= 0.39
    (away,) = [status for status in await watching if status.state == "reconnecting"]
    assert away.retry_in is not None
    assert away.retry_in >= 0.4
    assert "bye" in (away.reason or "")


async def statuses(client: Client) -> list[Status]:
    """How its connection stood, up to the end."""
    return [status async for status in client.changes()]


def answering(**response: Any) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(**response)

    return answer


@pytest.mark.parametrize("transport", ["auto", "ws", "sse", "ndjson"])
@pytest.mark.parametrize(
    ("response", "code", "words"),
    [
        (
            {"text": "<h1>Welcome to the hotel</h1>", "content_type": "text/html"},
            "protocol_error",
            "does not answer as",
        ),
        ({"status": 301, "headers": {"Location": "https://there"}}, "protocol_error", "go to https://there"),
        ({"status": 403}, "forbidden", "the server answered 403"),
        ({"status": 410, "text": "not JSON", "content_type": "application/problem+json"}, "session_gone", "deleted"),
        ({"status": 418}, "protocol_error", "the server answered 418"),
    ],
    ids=["html", "redirect", "forbidden", "gone", "teapot"],
)
async def test_answers_of_others_are_told_apart(transport: Any, response: Any, code: str, words: str) -> None:
    async with serving(answering(**response)) as url:
        error = await refused(url, transport=transport)
    assert error.code.code == code
    assert words in error.message


@pytest.mark.parametrize("transport", ["auto", "ws", "sse"])
async def test_a_server_that_is_away_for_a_moment_is_waited_for(transport: Any) -> None:
    script, tries = Script([connected(), sync()]), 0

    async def starting(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        return web.Response(status=503) if tries <= 6 else await script.handle(request)

    async with serving(starting) as url, connect(url, "x", transport=transport, timings=QUICK) as client:
        await until(client, "sync")


async def test_a_token_goes_to_nobody_else() -> None:
    seen: list[str | None] = []

    async def thief(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({})

    async with serving(thief) as there:
        response: dict[str, Any] = {"status": 307, "headers": {"Location": f"{there}/agents"}}
        async with serving(answering(**response)) as url, Server(url, "secret") as server:
            with pytest.raises(ParleyError, match="go to"):
                await server.agents()
    assert seen == []


async def test_a_server_that_takes_another_subprotocol() -> None:
    async def other(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("parley.v1.json",))
        await socket.prepare(request)
        await socket.send_str(encoded(connected()).decode())
        async for _ in socket:
            pass
        return socket

    async with serving(other) as url:
        error = await refused(url, transport="ws", encoding="msgpack")
        assert "where events are msgpack" in error.message
    script = Script([b"\x80"])
    async with serving(script.handle) as url:
        assert "where events are json" in (await refused(url, transport="ws")).message


# --- commands


@pytest.mark.parametrize(
    "response",
    [
        {"text": "<h1>Welcome to the hotel</h1>", "content_type": "text/html"},
        {"text": '{"id": "another", "status": "accepted"}', "content_type": "application/json"},
        {"status": 500},
    ],
    ids=["html", "another", "500"],
)
async def test_a_command_that_is_never_acknowledged_fails_in_the_end(
    response: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script([connected(), sync()])
    posts: list[bytes] = []
    pauses: list[float] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            return await script.handle(request)
        posts.append(await request.read())
        if len(posts) == 12:
            return await script.handle(request)
        return web.Response(**response)

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with serving(handle) as url, connect(url, "x", transport="sse") as client:
        monkeypatch.setattr(client._outbox, "_pause", pause)
        if response.get("status") == 500:
            # What passes by itself is waited for.
            await client.say("hello")
        else:
            with pytest.raises(ParleyError) as caught:
                await client.say("hello")
            assert caught.value.code is ErrorCode.PROTOCOL_ERROR
            assert len(posts) == 8
    assert len({msgspec.json.decode(post, type=UserMessage).id for post in posts}) == 1
    assert len(pauses) >= 7


async def test_a_websocket_that_takes_commands_and_answers_none_is_bypassed() -> None:
    script = Script([connected(), sync()])
    timings = Timings(answer=1.0)
    async with serving(script.handle) as url, connect(url, "x", transport="ws", timings=timings) as client:
        await until(client, "sync")
        assert (await client.say("hello")).status == "accepted"
    assert len(script.commands) == 1


async def test_waiting_for_an_acknowledgement_has_an_end() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503) if request.method == "POST" else await script.handle(request)

    script = Script([connected(), sync()])
    async with serving(handle) as url, connect(url, "x", transport="sse") as client:
        with pytest.raises(TimeoutError, match=r"'c1' was not acknowledged within 1\.0 s .*unavailable"):
            await client.send(UserMessage(id="c1", content="hello"), timeout=1.0)
