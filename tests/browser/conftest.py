"""Servers to visit."""

from __future__ import annotations

import pytest

from server.config import AuthSettings, TokenSettings
from tests.browser.site import Site
from tests.browser.workshop import Workshop
from tests.support.server import MakeServer

TOKEN = "a-token-for-the-browser-tests"


@pytest.fixture
async def site(make_server: MakeServer, unused_tcp_port: int) -> Site:
    """A server that lets everybody on this machine in."""
    site = Site(make_server, unused_tcp_port)
    await site.start()
    return site


@pytest.fixture
async def guarded_site(make_server: MakeServer, unused_tcp_port: int) -> Site:
    """A server that asks for a token."""
    auth = AuthSettings(tokens=(TokenSettings(user="reader", token=TOKEN),))
    site = Site(make_server, unused_tcp_port, token=TOKEN, auth=auth)
    await site.start()
    return site


@pytest.fixture
async def workshop(make_server: MakeServer, unused_tcp_port: int) -> Workshop:
    """A server whose agents call the tools that they are told to."""
    workshop = Workshop(make_server, unused_tcp_port)
    await workshop.start()
    return workshop
