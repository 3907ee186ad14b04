"""The network as tests have it: this machine, and ports that stay the test's own."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let no name be looked up elsewhere: what is asked may be slow, and what is answered is not the test's."""
    look_up = socket.getaddrinfo

    def here(host: Any, *arguments: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name and name != "localhost":
            try:
                ipaddress.ip_address(name)
            except ValueError:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
        return look_up(host, *arguments, **options)

    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(socket, "getaddrinfo", here)


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
