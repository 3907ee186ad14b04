"""How the connection stands, for those who show it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal, TypeAlias

from msgspec import Struct

from protocol.client.settings import Transport

__all__ = ["State", "Status", "Watch"]

#: `open` once everything that was missed has been received.
State: TypeAlias = Literal["connecting", "open", "reconnecting", "closed"]


class Status(Struct, frozen=True):
    """How the connection stands: over which transport; else why not, and in how many seconds it is tried again."""

    state: State
    transport: Transport | None = None
    reason: str | None = None
    retry_in: float | None = None


class Watch:
    """The newest status, and who waits for the next."""

    def __init__(self) -> None:
        self.status = Status("connecting")
        self._changed = asyncio.Event()

    def become(self, status: Status) -> None:
        """Tell all that it is now so. What is closed stays closed."""
        if self.status.state != "closed" and status != self.status:
            self.status = status
            self._changed.set()
            self._changed = asyncio.Event()

    async def changes(self) -> AsyncIterator[Status]:
        """How it stands now, and each time that it changes, up to `closed`; a slow reader misses what has passed."""
        while True:
            status, changed = self.status, self._changed
            yield status
            if status.state == "closed":
                return
            await changed.wait()
