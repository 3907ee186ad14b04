"""What a stream keeps while it lives, and what it leaves behind: frames, places, lines in the log, connections."""

from __future__ import annotations

import asyncio
import gc
from types import CoroutineType
from uuid import UUID

import pytest

from protocol.errors import ErrorCode
from server.channel.sse import events
from server.channel.websocket import websocket
from server.rest.middleware import requests
from tests.channel.clients import PATIENCE, TRANSPORTS, connect, until
from tests.observe.conftest import Log, log
from tests.support.server import RunningServer

__all__ = ["log"]

_EVERY = pytest.mark.parametrize("transport", TRANSPORTS)


@_EVERY
async def test_an_idle_stream_keeps_no_frames_of_handler_and_middlewares(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.until("sync")
        waiting = {found.__qualname__ for found in gc.get_objects() if isinstance(found, CoroutineType)}
        assert "Connection.write_eof" in waiting
        assert not waiting & {events.__qualname__, websocket.__qualname__, requests.__qualname__}


@_EVERY
async def test_a_stream_that_is_left_has_its_line_in_the_log(server: RunningServer, transport: str, log: Log) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.until("sync")
        await client.say("hello")
        await client.until("task_completed")
        if transport in {"sse", "ndjson"}:
            client.response.close()  # type: ignore[attr-defined]
        else:
            client.socket._response.close()  # type: ignore[attr-defined]
    await until(lambda: "client left" in log.text)
    (line,) = [line for line in log.lines if line["event"] == "client left"]
    path = "events" if transport in {"sse", "ndjson"} else "ws"
    assert (line["logger"], line["path"], line["session_id"]) == (
        "server.access",
        f"/sessions/{session}/{path}",
        session,
    )
    assert line["duration_ms"] > 0
    assert line["request_id"]
    await _all_given_back(server)


@_EVERY
async def test_a_stream_that_the_server_ends_has_its_line_in_the_log(
    server: RunningServer, transport: str, log: Log
) -> None:
    session = await server.create_session()
    async with connect(server, session, transport) as client:
        await client.until("sync")
        server.services.hub.end_session(UUID(session))
        await client.end()
    path = "events" if transport in {"sse", "ndjson"} else "ws"

    def found() -> list[int]:
        lines = [line for line in log.lines if line["logger"] == "server.access"]
        return [line["status"] for line in lines if line["path"] == f"/sessions/{session}/{path}"]

    await until(lambda: bool(found()))
    assert found() == [200 if path == "events" else 101]
    await _all_given_back(server)


async def test_a_stream_that_fails_is_logged_and_cut_and_gives_its_place_back(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    session = await server.create_session()

    def fail(*_: object) -> None:
        raise KeyError("a secret of the house")

    async with connect(server, session, "ws-json") as client:
        await client.until("sync")
        monkeypatch.setattr(server.services.hub, "reply", fail)
        await client.socket.send_str('{"type":"ping","id":"p"}')  # type: ignore[attr-defined]
        await client.end()
        assert client.socket.close_code == 1006  # type: ignore[attr-defined]
    await _all_given_back(server)
    (line,) = [line for line in log.lines if line["event"] == "a stream failed"]
    assert (line["level"], line["path"], line["session_id"]) == ("error", f"/sessions/{session}/ws", session)


async def test_a_stream_that_cannot_begin_is_cut_and_gives_its_place_back(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    session = await server.create_session()

    def fail(*_: object) -> None:
        raise KeyError("a secret of the house")

    monkeypatch.setattr(server.services.hub._catch_up, "greet", fail)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /sessions/{session}/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        head = await _everything(reader)
    writer.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"secret" not in head
    await _all_given_back(server)
    assert not server.services.hub.stats().connections
    (line,) = [line for line in log.lines if line["event"] == "unexpected exception"]
    assert line["session_id"] == session


@pytest.mark.parametrize("code", [ErrorCode.SESSION_GONE, ErrorCode.STALE])
async def test_a_connection_serves_the_next_request_when_its_event_stream_has_ended(
    server: RunningServer, code: ErrorCode
) -> None:
    session = await server.create_session()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    host = f"Host: 127.0.0.1:{server.port}\r\n"
    async with asyncio.timeout(PATIENCE):
        writer.write(f"GET /sessions/{session}/events HTTP/1.1\r\n{host}\r\n".encode())
        await reader.readuntil(b"event: sync")
        # Asked for in the middle of the stream, and answered after it.
        writer.write(f"GET /health HTTP/1.1\r\n{host}\r\n".encode())
        server.services.hub.end_session(UUID(session), code)
        assert b"event: disconnect" in await reader.readuntil(b"\r\n0\r\n\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n")
    writer.close()
    await writer.wait_closed()


async def _everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is cut."""
    data = b""
    try:
        while part := await reader.read(1 << 16):
            data += part
    except ConnectionError:
        return data
    return data


async def _all_given_back(server: RunningServer) -> None:
    async with asyncio.timeout(PATIENCE):
        await server.services.hub._admission.emptied()
