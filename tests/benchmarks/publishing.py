"""How a server under test is told to publish: a byte on a socket of its own, one event for each.

The load process keeps so many publishes in flight as it has sent bytes for and not yet received events of. All bytes
of one read are published in the same turn of the server's loop, in both servers alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from protocol._override import override
from protocol.cursor import Cursor
from protocol.envelope import Event

__all__ = ["BODY", "MARK", "event_like", "listen"]

#: Stands once in each published event and in nothing else that a server sends, so that events can be counted in any
#: framing, wherever reads cut it. (Not `~`, the 126 that says that a WebSocket frame's length follows.)
MARK: Final = b"|"

#: The payload of a published event: with its envelope it has 226 bytes on a WebSocket.
BODY: Final = b'{"text":"' + 40 * b"x" + MARK + b'"}'


class _Publisher(asyncio.Protocol):
    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish

    @override
    def data_received(self, data: bytes) -> None:
        for _ in data:
            self._publish()


async def listen(publish: Callable[[], None]) -> int:
    """Publish an event for each byte that comes in; the port to send to."""
    server = await asyncio.get_running_loop().create_server(lambda: _Publisher(publish), "127.0.0.1", 0)
    return int(server.sockets[0].getsockname()[1])


def event_like() -> Event:
    """An event of the same size as those that the product publishes in the measurement."""
    session = "01234567-89ab-7def-8123-456789abcdef"
    return Event("message_created", session, "2026-01-02T03:04:05.678Z", BODY, cursor=Cursor("01234567", 1_000))
