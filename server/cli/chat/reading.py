"""Lines from a terminal that edits them itself, as they are entered."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Callable

__all__ = ["EnteredLines"]


class EnteredLines:
    """What is entered, line by line; None at the end of the input. `start` and `stop` may be called again."""

    def __init__(self) -> None:
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._begun = b""
        self._ended = False

    def start(self, *, afresh: bool = False) -> None:
        """Listen; `afresh` forgets what was typed before."""
        if afresh and os.isatty(sys.stdin.fileno()):
            termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
        if not self._ended:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._read)

    def stop(self) -> None:
        """Leave the input to others."""
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())

    async def next(self) -> str | None:
        """The next line."""
        return await self._lines.get()

    def end(self) -> None:
        """Take it that nothing comes any more."""
        self._lines.put_nowait(None)

    async def lend(self, work: Callable[[], str]) -> str:
        """Let somebody else have the terminal; it blocks."""
        self.stop()
        try:
            return await asyncio.to_thread(work)
        finally:
            self.start()

    def _read(self) -> None:
        """Take what the terminal has: whole lines."""
        try:
            data = os.read(sys.stdin.fileno(), 1 << 16)
        except OSError:
            data = b""
        *lines, self._begun = (self._begun + data).split(b"\n")
        for line in lines:
            self._lines.put_nowait(line.decode(errors="replace"))
        if not data:
            self._ended = True
            self.stop()
            self._lines.put_nowait(None)
