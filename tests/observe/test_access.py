from __future__ import annotations

import asyncio
import io
import logging
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pytest_aiohttp import AiohttpClient

from server.observe import lines
from server.observe.access import AccessLog
from server.observe.marks import SESSION_ID, mark
from tests.auth.door import ADA, Client, make_app
from tests.observe.conftest import Log


async def _hello(request: web.Request) -> web.Response:
    mark(request, SESSION_ID, "s1")
    return web.Response(text="hello")


async def serve(app: web.Application, aiohttp_client: AiohttpClient) -> Client:
    server = TestServer(app)
    await server.start_server(access_log=logging.getLogger("server.access"), access_log_class=AccessLog)
    return cast("Client", await aiohttp_client(server))


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, log: Log) -> Client:
    app = make_app()
    app.router.add_get("/hello", _hello)
    return await serve(app, aiohttp_client)


async def test_a_request_is_one_line(client: Client, log: Log) -> None:
    headers = {"Authorization": f"Bearer {ADA}", "X-Request-ID": "r-1"}
    await (await client.get("/hello?after=1.2&x=y", headers=headers)).read()
    await client.close()
    (line,) = [line for line in log.lines if line["logger"] == "server.access"]
    assert (line["method"], line["path"], line["status"], line["sent"] > 5) == ("GET", "/hello", 200, True)
    assert (line["request_id"], line["session_id"], line["user_id"]) == ("r-1", "s1", "ada")
    assert line["duration_ms"] >= 0
    assert "1.2" not in log.text


async def test_regression_40_a_token_in_a_url_never_lands_in_the_access_log(client: Client, log: Log) -> None:
    for query in (f"?token={ADA}", f"?access_token={ADA}&x=1", f"?x={ADA}", f"?{ADA}"):
        await (await client.get(f"/hello{query}")).read()
        await (await client.get(f"/hello{query}", headers={"Authorization": f"Bearer {ADA}"})).read()
        await (await client.get(f"/nothing{query}", headers={"Authorization": f"Bearer {ADA}"})).read()
    offered = (f"parley.bearer.{ADA}", "parley.v1.json")
    async with client.ws_connect("/ws", protocols=offered) as socket:
        await socket.receive()
    await client.close()
    assert len([line for line in log.lines if line["logger"] == "server.access"]) == 13
    assert ADA not in log.text


async def test_regression_40_a_request_that_cannot_be_read_is_not_quoted_with_its_query(
    client: Client, log: Log
) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"GET /hello?token={ADA} HTTP/9.z\r\nHost: localhost\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    await client.close()
    assert b" 400 " in answer.splitlines()[0]
    assert ADA not in log.text
    (line,) = [line for line in log.lines if line["logger"] == "aiohttp.server"]
    assert (line["level"], line["event"]) == ("info", "unreadable request: BadStatusLine")


async def test_the_line_made_by_hand_is_the_one_that_structlog_makes(client: Client, log: Log) -> None:
    async def said() -> dict[str, Any]:
        before = len(log.lines)
        headers = {"Authorization": f"Bearer {ADA}", "X-Request-ID": "r-1"}
        await (await client.get("/hello", headers=headers)).read()
        # A line is written once the answer is.
        await (await client.get("/nothing", headers=headers)).read()
        return log.lines[before]

    assert lines._handler is not None
    direct = await said()
    lines.write_lines_to(None)
    usual = await said()
    assert list(direct) == list(usual)
    for name in ("timestamp", "duration_ms"):
        assert type(direct.pop(name)) is type(usual.pop(name))
    assert direct == usual


@pytest.mark.parametrize("direct", [True, False])
async def test_what_a_client_writes_is_searched(client: Client, log: Log, direct: bool) -> None:
    if not direct:
        lines.write_lines_to(None)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = "GET /parley.bearer.s3cret/%C3%A9 HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: parley.bearer.s3cret\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    assert b" 401 " in (await reader.read()).splitlines()[0]
    writer.close()
    await writer.wait_closed()
    await client.close()
    (line,) = [line for line in log.lines if line["logger"] == "server.access"]
    assert line["request_id"] == "parley.bearer.[redacted]"
    assert line["path"].startswith("/parley.bearer.[redacted]")
    assert "s3cret" not in log.text


async def test_below_its_level_a_request_has_no_line(client: Client, log: Log) -> None:
    log.configure(level="warning")
    await (await client.get("/hello")).read()
    await client.close()
    assert log.lines == []


def test_a_line_that_cannot_be_written_is_left_to_logging() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    line = lines.AccessLine(
        method="GET", path="/", duration_ms=0.1, event="request", logger="x", level="info", timestamp="t"
    )
    logging.getLogger("server.access").setLevel(logging.INFO)
    lines.write_lines_to(logging.StreamHandler(Full()))
    try:
        assert not lines.write_line(line)
        lines.write_lines_to(None)
        assert not lines.write_line(line)
    finally:
        lines.write_lines_to(None)
        logging.getLogger("server.access").setLevel(logging.NOTSET)
    assert line.fields() == {"method": "GET", "path": "/", "duration_ms": 0.1, "event": "request"}


async def test_a_stream_that_its_client_leaves_has_a_line_too(aiohttp_client: AiohttpClient, log: Log) -> None:
    left = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return response

    app = make_app(tokens=False)
    app.router.add_get("/stream", stream)
    client = await serve(app, aiohttp_client)
    async with client.get("/stream?after=1") as response:
        await response.content.readany()
    await client.close()
    await left.wait()
    (line,) = [line for line in log.lines if line["logger"] == "server.access"]
    assert (line["event"], line["path"], line["user_id"]) == ("client left", "/stream", "local")
