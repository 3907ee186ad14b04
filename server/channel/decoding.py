"""Commands from bytes, large ones beside the loop.

A command of a megabyte may hold half a million values, which take half a second to look at: everybody else would wait.
In a thread they wait for a few milliseconds now and then, as both share the interpreter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from protocol.codec import decode_command, decode_commands
from protocol.commands import Command
from protocol.envelope import Encoding
from protocol.errors import ParleyError
from server.channel.settings import ChannelSettings

__all__ = ["Decoding"]

#: What is read at once, in bytes, whatever it is: that takes some 20 ms at the very most, and a tenth normally.
_SMALL: Final = 65_536

_T = TypeVar("_T")


class Decoding:
    """Reads commands, of those that are large one at a time; the others wait for their turn, and may leave."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def command(self, data: bytes | str, encoding: Encoding, settings: ChannelSettings) -> Command:
        """One command. Raises ParleyError as `decode_command` does."""

        def read() -> Command:
            return decode_command(data, encoding, settings.max_command_bytes, settings.max_nesting)

        return read() if len(data) <= _SMALL else await self._aside(read)

    async def commands(self, data: bytes, encoding: Encoding, settings: ChannelSettings) -> list[Command | ParleyError]:
        """An array of commands. Raises ParleyError as `decode_commands` does."""

        def read() -> list[Command | ParleyError]:
            return decode_commands(
                data, encoding, settings.max_command_bytes, settings.max_nesting, settings.max_commands
            )

        return read() if len(data) <= _SMALL else await self._aside(read)

    async def _aside(self, read: Callable[[], _T]) -> _T:
        await self._turn.acquire()
        reading = asyncio.get_running_loop().run_in_executor(None, read)
        # Whoever asked may leave; the thread goes on, and only with its end it is somebody else's turn.
        reading.add_done_callback(self._over)
        return await asyncio.shield(reading)

    def _over(self, reading: asyncio.Future[_T]) -> None:
        self._turn.release()
        if not reading.cancelled():
            # What was wrong with a command whose sender has left is nobody's news.
            reading.exception()
