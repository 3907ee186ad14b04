"""The address to listen on: free, taken by whom, or not to be had."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from server.check import listener
from server.version import VERSION
from tests.check.support import context, found, looked, said
from tests.support.server import RunningServer


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_a_free_port(unused_tcp_port: int) -> None:
    (finding,) = await looked("listener", context(server__port=unused_tcp_port))
    assert (finding.level, finding.what) == ("ok", f"127.0.0.1 port {unused_tcp_port} is free")
    # It is free afterwards, too.
    socket.create_server(("127.0.0.1", unused_tcp_port)).close()
    assert (await looked("listener", context(server__port=0)))[0].level == "ok"


async def test_a_parley_is_known_for_one(server: RunningServer) -> None:
    (finding,) = said(await looked("listener", context(server__port=server.port)))
    assert finding.startswith(f"note: a Parley {VERSION} listens on 127.0.0.1 port {server.port}")


@pytest.mark.parametrize("answer", ['{"service": "parley"}', "[]", "<html>", '{"service": "other", "version": "1"}'])
async def test_another_program_is_an_error(answer: str) -> None:
    async def health(_request: web.Request) -> web.Response:
        return web.Response(text=answer)

    app = web.Application()
    app.router.add_get("/health", health)
    async with TestServer(app) as other:
        (finding,) = said(await looked("listener", context(server__port=other.port)))
        assert finding.startswith(f"error: 127.0.0.1 port {other.port} is in use by another program")


async def test_one_that_never_answers_is_an_error(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_WAIT", 0.05)
    (finding,) = said(await looked("listener", context(server__port=taken)))
    assert "in use by another program" in finding


def test_addresses_that_are_not_ours() -> None:
    tokens = [{"user": "ada", "token": "d1Zk3-9vQ_xP7.bLw2mT5a"}]
    (finding,) = said(found("listener", context(server__host="192.0.2.1", auth__tokens=tokens)))
    assert finding.startswith("error: 192.0.2.1 port 8080 is not an address of this machine")
    (finding,) = said(found("listener", context(server__host="nowhere.invalid", auth__tokens=tokens)))
    assert finding.startswith("error: nowhere.invalid leads nowhere")


def test_a_port_of_the_administrators(monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may have any port, and tests may be run by root.
    def bind(_self: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    (finding,) = said(found("listener", context(server__port=80)))
    assert finding.startswith("error: 127.0.0.1 port 80 may not be used by this user")
