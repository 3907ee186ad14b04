"""What a program writes to its standard error, line by line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TextIO

__all__ = ["read_lines"]

#: Bytes of a line that are kept.
_LONGEST: Final = 1_000


@asynccontextmanager
async def read_lines(said: Callable[[str], None]) -> AsyncGenerator[TextIO, None]:
    """A file to be given to a program; `said` gets each line that comes of it, as long as the block lasts."""
    reading, writing = os.pipe()
    file = os.fdopen(writing, "w", encoding="utf-8")
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: _Lines(said), os.fdopen(reading, "rb", buffering=0)
        )
    except BaseException:
        file.close()
        with suppress(OSError):
            os.close(reading)
        raise
    try:
        yield file
    finally:
        file.close()
        transport.close()


class _Lines(asyncio.Protocol):
    def __init__(self, said: Callable[[str], None]) -> None:
        self._said = said
        self._begun = b""

    def data_received(self, data: bytes) -> None:
        """Tell what is whole; of an endless line, its beginning."""
        *lines, self._begun = (self._begun + data).split(b"\n")
        self._begun = self._begun[:_LONGEST]
        for line in lines:
            if text := line[:_LONGEST].decode(errors="replace").strip():
                self._said(text)
