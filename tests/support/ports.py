"""Ports that stay the test's own."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture
def unused_tcp_port() -> Iterator[int]:
    """A port of 127.0.0.1 where nobody listens, and where servers of the test may, one after the other.

    A number that is merely looked up is anybody's a moment later: a server elsewhere may be given it, an outgoing
    connection too, and a client that keeps trying to reach it may even be connected to itself. So the number stays
    taken, by a socket that is bound and does not listen; with SO_REUSEADDR, which asyncio's servers set, Linux lets
    listeners in beside it.
    """
    with socket.socket() as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        if sys.platform != "linux":
            place.close()
        yield port
