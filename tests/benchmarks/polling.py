"""Which of many sockets can be read: the system's epoll where there is one, without the objects around it."""

from __future__ import annotations

import select
import selectors
import socket
from collections.abc import Sequence
from typing import Final

__all__ = ["PATIENCE", "Poller"]

#: Seconds without anything after which a measurement has failed.
PATIENCE: Final = 30.0


class Poller:
    """Watches sockets until it is closed."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._epoll: select.epoll | None = None
        self._selector: selectors.BaseSelector | None = None
        if hasattr(select, "epoll"):
            self._epoll = select.epoll()
            for each in sockets:
                self._epoll.register(each, select.EPOLLIN)
        else:
            self._selector = selectors.DefaultSelector()
            for each in sockets:
                self._selector.register(each, selectors.EVENT_READ)

    def ready(self, timeout: float = PATIENCE) -> list[int]:
        """File descriptors, after at most `timeout` seconds."""
        if self._epoll is not None:
            return [descriptor for descriptor, _ in self._epoll.poll(timeout)]
        assert self._selector is not None
        return [key.fd for key, _ in self._selector.select(timeout)]

    def close(self) -> None:
        """Let go of it; the sockets stay."""
        for each in (self._epoll, self._selector):
            if each is not None:
                each.close()
