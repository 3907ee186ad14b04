"""The way to an endpoint: proxies, redirects, encodings, and connections that break before an answer."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import groupby
from typing import Any

import pytest
from aiohttp import web

from server.agents.model.agent import ModelAgent
from server.agents.model.endpoint import Endpoint
from server.agents.model.errors import ModelError
from server.agents.model.reach import proxy_of
from server.agents.model.settings import ModelSettings
from tests.agents.model.support import CODER, KEY, bench
from tests.agents.support import Clock, Step, context, run
from tests.support.model_endpoint import answer, call, calls, chunk, joined, stream, text

FAR = "http://model.invalid/v1"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


async def ask(settings: ModelSettings, clock: Clock | None = None) -> Step:
    endpoint = Endpoint(settings)
    agent = ModelAgent(CODER, endpoint)
    try:
        return await run(agent, context(agent, "Hello", clock=clock))
    finally:
        await endpoint.stop()


async def failure(base_url: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ask(ModelSettings(model="m", base_url=base_url, api_key=KEY, max_retries=0))
    return caught.value


# --- proxies


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the environment's proxies, and take away those that it has."""

    def use(**variables: str) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return use


@asynccontextmanager
async def proxy() -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    """An HTTP proxy that refuses everything: its host and port, and what it was asked."""
    asked: list[web.BaseRequest] = []

    async def refuse(request: web.BaseRequest) -> web.Response:
        asked.append(request)
        return web.json_response({"error": "not today"}, status=403)

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{site.port}", asked
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_a_proxy_is_asked_for_what_is_far_away(proxies: Callable[..., None], variable: str, scheme: str) -> None:
    async with proxy() as (place, asked):
        proxies(**{variable: scheme + place})
        assert "not today" in (await failure(FAR)).message
        assert [request.raw_path for request in asked] == [f"{FAR}/chat/completions"]
        # What is near is not its business.
        async with bench() as near:
            near.fake.reply(*answer("x"))
            await near.step()
        assert len(asked) == 1


@pytest.mark.parametrize("here", ["http://127.0.0.1/v1", "http://[::1]/v1", "http://localhost/v1", FAR])
def test_nothing_near_and_nothing_that_is_excepted_goes_through_a_proxy(
    proxies: Callable[..., None], here: str
) -> None:
    proxies(http_proxy="http://127.0.0.1:9", no_proxy="model.invalid")
    assert proxy_of(ModelSettings(model="m", base_url=here)) is None
    proxies()
    assert proxy_of(ModelSettings(model="m", base_url=here)) is None


async def test_a_proxy_gets_its_own_password_and_the_endpoint_its_key(proxies: Callable[..., None]) -> None:
    async with proxy() as (place, asked):
        proxies(http_proxy=f"http://ada:psst-psst@{place}")
        await failure(FAR)
        (request,) = asked
        assert request.headers["Proxy-Authorization"].startswith("Basic ")
        assert request.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("place", ["socks5://127.0.0.1:9", "http://", "http://x:y", "//[", "http://x:0"])
async def test_what_cannot_be_a_proxy_is_not_gone_around(proxies: Callable[..., None], place: str) -> None:
    proxies(all_proxy=place)
    error = await failure(FAR)
    assert (error.code, error.retryable) == ("model_unreachable", False)
    assert "check HTTPS_PROXY" in error.message


async def test_a_proxy_that_does_not_run_is_not_taken_for_the_endpoint(proxies: Callable[..., None]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        proxies(http_proxy=f"http://ada:psst-psst@127.0.0.1:{free.getsockname()[1]}")
        error = await failure(FAR)
    assert error.message.startswith("no connection to the proxy on the way to http://model.invalid")
    assert "psst" not in error.message


async def test_a_proxy_may_refuse_the_tunnel(proxies: Callable[..., None]) -> None:
    async with proxy() as (place, asked):
        proxies(https_proxy=f"http://{place}")
        error = await failure("https://model.invalid/v1")
        assert (error.code, [request.method for request in asked]) == ("model_unreachable", ["CONNECT"])
        assert "refuses the way to https://model.invalid (403)" in error.message


# --- redirects and encodings


@pytest.mark.feature("A06")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_key_follows_no_redirect(status: int) -> None:
    async with bench() as one, bench() as other:
        location = {"Location": f"{other.fake.url}/chat/completions"}
        one.fake.reply(b"", status=status, headers=location)
        error = await one.failure()
        assert (error.code, other.fake.asked) == ("model_not_found", [])
        assert "redirects" in error.message


async def test_an_answer_may_be_compressed_although_nobody_asked_for_it() -> None:
    packed = gzip.compress(joined(answer("Hi", " there")))
    async with bench() as one:
        one.fake.reply(*(packed[n : n + 1] for n in range(len(packed))), headers={"Content-Encoding": "gzip"})
        assert (await one.step()).text == "Hi there"


@pytest.mark.parametrize(
    ("body", "encoding", "code"),
    [(b"no gzip at all", "gzip", "model_stream_cut"), (b"x", "br", "model_invalid_answer")],
)
async def test_what_cannot_be_unpacked_is_an_error(body: bytes, encoding: str, code: str) -> None:
    async with bench(max_retries=0) as one:
        one.fake.reply(body, headers={"Content-Encoding": encoding})
        assert (await one.failure()).code == code


async def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked_whole() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = packer.compress(b"data: ")
    bomb += b"".join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()
    assert len(bomb) < 200_000
    most_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with bench() as one:
        one.fake.reply(bomb, headers={"Content-Encoding": "gzip"})
        error = await one.failure()
        assert (error.code, "4 MiB" in error.message) == ("model_invalid_answer", True)
    # Kilobytes, on Linux; bytes elsewhere.
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most_before) << (10 if sys.platform == "linux" else 0)
    assert grown < 48 << 20


# --- connections


@asynccontextmanager
async def raw(*answers: bytes | None) -> AsyncIterator[str]:
    """What answers with these bytes, one a connection, and closes; it resets the connection for None."""
    left = list(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        said = left.pop(0)
        if said is None:
            # With nothing left to linger for, close is a reset.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            writer.write(said)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.mark.feature("A06")
@pytest.mark.parametrize("first", [None, b""], ids=["reset", "closed"])
async def test_a_connection_that_breaks_before_an_answer_is_made_anew(first: bytes | None) -> None:
    clock = Clock()
    async with raw(first, HEAD + joined(answer("fine"))) as url:
        step = await ask(ModelSettings(model="m", base_url=url), clock)
    assert (step.text, len(clock.sleeps)) == ("fine", 1)


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.9\r\n", b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n"])
async def test_what_speaks_no_http_is_no_endpoint(said: bytes) -> None:
    async with raw(said) as url:
        error = await failure(url)
    assert (error.code, error.retryable) == ("model_invalid_answer", False)
    assert error.message.isprintable()


@pytest.mark.parametrize(
    "head", [HEAD, HEAD.replace(b"Connection: close", b"Content-Length: 9999"), HEAD.replace(b"200 OK", b"201 Created")]
)
async def test_a_connection_that_breaks_in_an_answer_is_not_made_anew(head: bytes) -> None:
    clock = Clock()
    body = joined(answer("half an ans", "wer")[:2])
    async with raw(head + body) as url:
        with pytest.raises(ModelError, match="in the middle of the answer"):
            await ask(ModelSettings(model="m", base_url=url), clock)
    assert clock.sleeps == []


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[place : place + size] for place in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


BODY = joined(
    stream(
        chunk(reasoning_content="hm"),
        text("Grüß dich 😀"),
        calls(call(0, "a", "clock", '{"timezone":'), call(1, "b", "f", "{}")),
        calls(call(0, arguments=' "UTC"}')),
        chunk("tool_calls"),
    )
)


@pytest.mark.feature("A06")
@pytest.mark.parametrize(
    "whole",
    [
        HEAD.replace(b"Connection: close", b"Content-Length: %d" % len(BODY)) + BODY,
        HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked") + chunked(BODY, 37),
        HEAD + BODY,
    ],
    ids=["length", "chunked", "close"],
)
async def test_wherever_an_answer_is_cut_it_is_whole_or_an_error(whole: bytes) -> None:
    cuts = [*range(0, len(whole), 11), len(whole)]
    ended = []
    async with raw(*(whole[:place] for place in cuts)) as url:
        endpoint = Endpoint(ModelSettings(model="m", base_url=url, max_retries=0))
        agent = ModelAgent(CODER, endpoint)
        for place in cuts:
            try:
                step = await run(agent, context(agent, "Hello"))
            except ModelError as error:
                ended.append(error.code)
            else:
                ended.append("whole")
                assert (step.text, step.calls) == ("Grüß dich 😀", [("clock", {"timezone": "UTC"}), ("f", {})]), place
        await endpoint.stop()
    # First no answer, then half of one, then all of it.
    assert [code for code, _ in groupby(ended)] == ["model_unavailable", "model_stream_cut", "whole"]


async def test_nothing_of_the_key_is_logged(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    async with bench(extra_body={"user_key": "psst-psst"}) as one:
        for said in (KEY, "psst-psst"):
            one.fake.refuse(503, f"your {said} is bad")
            one.fake.refuse(400, f"stream_options unknown with {said}")
            one.fake.refuse(401, f"your {said} is bad")
            assert said not in (await one.failure()).message
    logged = caplog.text + capsys.readouterr().out
    assert "model_retry" in logged
    assert KEY not in logged
    assert "psst" not in logged
