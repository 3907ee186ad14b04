"""What is SSE's and NDJSON's own: negotiation, headers, reconnecting browsers, HTTP/1.0."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from server.auth.tokens import Tokens
from server.channel.negotiation import negotiate
from server.channel.settings import ChannelSettings
from server.config import AuthSettings, TokenSettings
from tests.channel.clients import PATIENCE, HttpClient, connect
from tests.channel.fakes import dechunk
from tests.support.server import MakeServer, RunningServer


@pytest.mark.parametrize(
    ("accept", "framing"),
    [
        (None, "sse"),
        ("", "sse"),
        ("*/*", "sse"),
        ("text/event-stream", "sse"),
        ("text/*", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("application/*", "ndjson"),
        ("Application/X-NDJSON; charset=utf-8", "ndjson"),
        ("text/event-stream, application/x-ndjson", "sse"),
        ("text/event-stream;q=0.5, application/x-ndjson;q=0.9", "ndjson"),
        ("text/event-stream;q=0, */*", "ndjson"),
        ("*/*;q=0.1, application/x-ndjson;q=0.2", "ndjson"),
        ("text/html, */*;q=0.8", "sse"),
        ("application/x-ndjson;q=oops, text/event-stream;q=0.001", "sse"),
    ],
)
def test_accept_chooses_the_framing(accept: str | None, framing: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    assert negotiate(make_mocked_request("GET", "/", headers=headers)) == framing


@pytest.mark.parametrize("accept", ["application/json", "text/html;q=1", "text/event-stream;q=0", "*/*;q=0"])
def test_who_wants_neither_gets_neither(accept: str) -> None:
    with pytest.raises(web.HTTPNotAcceptable):
        negotiate(make_mocked_request("GET", "/", headers={"Accept": accept}))


async def test_the_refusal_of_accept_is_a_problem(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.get(f"/sessions/{session}/events", headers={"Accept": "text/html"}) as response:
        assert response.status == 406
        assert response.content_type == "application/problem+json"


@pytest.mark.feature("S31")
async def test_an_sse_frame_is_event_data_and_a_blank_line(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.get(f"/sessions/{session}/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert "Content-Encoding" not in response.headers
        lines = [await response.content.readline() for _ in range(4)]
    assert lines[0].startswith(b"id: ")
    assert lines[1] == b"event: connected\n"
    assert lines[2].startswith(b'data: {"event_type":"connected","session_id":"')
    assert lines[3] == b"\n"


@pytest.mark.parametrize("coding", ["gzip", "deflate, br"])
async def test_regression_37_a_stream_is_never_compressed(server: RunningServer, coding: str) -> None:
    session = await server.create_session()
    headers = {"Accept-Encoding": coding}
    async with server.client.get(f"/sessions/{session}/events", headers=headers) as response:
        assert "Content-Encoding" not in response.headers


@pytest.mark.feature("T02", "S36")
async def test_last_event_id_beats_the_older_cursor_of_the_url(server: RunningServer) -> None:
    session = await server.create_session()
    async with connect(server, session, "sse", after=0) as client:
        await client.say("hello")
        await client.until("task_completed")
        assert isinstance(client, HttpClient)
        last = client.sse.last_event_id
        assert last == client.durable[-1].cursor
    headers = {"Last-Event-ID": str(client.durable[1].cursor)}
    async with server.client.get(f"/sessions/{session}/events?after=0", headers=headers) as response:
        again = HttpClient(response, "sse", server, session, {})
        await again.until("sync")
        assert [event.seq for event in again.durable] == [event.seq for event in client.durable[2:]]
    async with server.client.get(f"/sessions/{session}/events", headers={"Last-Event-ID": "?"}) as response:
        assert response.status == 422
        assert (await response.json(content_type=None))["path"] == "Last-Event-ID"


@pytest.mark.feature("T02", "S36")
async def test_regression_06_a_browser_that_is_cut_off_before_the_first_event_misses_nothing(
    server: RunningServer,
) -> None:
    session = await server.create_session()
    async with connect(server, session, "sse") as client:
        await client.until("sync")
        assert isinstance(client, HttpClient)
        last = client.sse.last_event_id
    status, _ = await server.command(session, type="user_message", content="while nobody listens")
    assert status == 200
    async with server.client.get(f"/sessions/{session}/events", headers={"Last-Event-ID": last}) as response:
        again = HttpClient(response, "sse", server, session, {})
        created = again.payload(await again.until("message_created"))
        assert created["content"] == "while nobody listens"


@pytest.mark.feature("T04")
async def test_a_browser_that_comes_back_to_a_deleted_session_is_stopped(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.delete(f"/sessions/{session}") as response:
        assert response.status < 300
    for headers, status in [
        ({}, 410),
        ({"Accept": "application/x-ndjson"}, 410),
        ({"Accept": "text/event-stream", "Last-Event-ID": "e.1"}, 204),
    ]:
        async with server.client.get(f"/sessions/{session}/events", headers=headers) as response:
            assert response.status == status
    status, problem = await server.command(session, type="ping")
    assert (status, problem["code"]) == (410, "session_gone")


@pytest.mark.feature("S08", "S37")
async def test_a_script_reads_ndjson_with_a_bearer_header(make_server: MakeServer) -> None:
    token = "a-token-for-this-test-alone"
    settings = AuthSettings(tokens=(TokenSettings(user="alice", token=token),))
    assert Tokens(settings.tokens)
    server = await make_server(auth=settings)
    server.client.headers["Authorization"] = f"Bearer {token}"
    session = await server.create_session()
    async with connect(server, session, "ndjson") as client:
        await client.say("hello")
        await client.until("task_completed")
    async with aiohttp.ClientSession(server.url) as stranger, stranger.get(f"/sessions/{session}/events") as response:
        assert response.status == 401


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson"])
async def test_http_1_0_is_not_chunked_and_ends_with_the_connection(server: RunningServer, accept: str) -> None:
    session = await server.create_session()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET /sessions/{session}/events HTTP/1.0\r\nHost: 127.0.0.1:{server.port}\r\nAccept: {accept}\r\n"
        "Connection: keep-alive\r\n\r\n".encode()
    )
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert b"connection: keep-alive" not in head.lower()
        first = await reader.readline()
        assert first.startswith((b"id: ", b'{"event_type":"connected"'))
        await server.services.hub.close()
        rest = await reader.read()
        assert b'"disconnect"' in rest
    writer.close()
    await writer.wait_closed()


async def test_a_stream_over_http_1_1_ends_with_the_last_chunk_and_advice_for_browsers(server: RunningServer) -> None:
    session = await server.create_session()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        f"GET /sessions/{session}/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: */*\r\n\r\n".encode()
    )
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        closing = asyncio.create_task(server.services.hub.close(retry_after=2.0))
        data = await reader.readuntil(b"\r\n0\r\n\r\n")
        await closing
    body = dechunk(data)
    assert b"event: disconnect\n" in body
    assert body.endswith(b"retry: 2000\n\n")
    writer.close()
    await writer.wait_closed()


async def test_a_head_request_never_becomes_a_stream(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.head(f"/sessions/{session}/events") as response:
        assert response.status == 405


@pytest.mark.feature("T05")
async def test_an_event_stream_that_is_not_read_is_cut(make_server: MakeServer) -> None:
    settings = ChannelSettings(write_timeout=0.3, sweep_interval=0.05, close_timeout=0.2)
    server = await make_server(channel=settings)
    session = await server.create_session()
    _, stuck = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
    stuck.write(f"GET /sessions/{session}/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    async with connect(server, session, "ndjson", after=0) as quick:
        while not server.services.hub.stats().closed:
            await quick.say("x" * 200_000)
            await quick.until("message_created", lambda payload: payload["role"] == "user")
    assert server.services.hub.stats().closed == {"slow_consumer": 1}
    async with asyncio.timeout(PATIENCE):
        await server.services.hub._admission.emptied()
    stuck.close()
