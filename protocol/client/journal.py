"""What became of calls, kept in a file, so that a client that is started again runs none of them twice."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from protocol.client.tools import Outcome

__all__ = ["Journal"]

#: Calls that are remembered, and bytes of what came of them; the oldest are forgotten.
_MOST_CALLS: Final = 10_000
_MOST_BYTES: Final = 16 << 20
#: How many bytes a file may hold of what is forgotten, or was said twice, before it is written anew.
_SLACK: Final = 8 << 20


class _Line(Struct, frozen=True, omit_defaults=True):
    """A line of the file: a call was begun, or this came of it."""

    call: str
    outcome: Outcome | None = None


class Journal:
    """A file with a line for each thing that happened to a call; one client at a time has it.

    Open before use, close after it. What was noted is on the disk when `begin` or `finish` returns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: int | None = None
        self._calls: OrderedDict[str, Outcome | None] = OrderedDict()
        self._bytes = 0
        self._length = 0
        self._order = asyncio.Lock()
        self._writing: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Read what was noted before. Raises OSError, and ValueError for a file that is no journal or is in use."""
        file = _locked(self.path)
        try:
            self._read(file)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _read(self, file: int) -> None:
        with os.fdopen(os.dup(file), "rb") as reader:
            # What stands behind the last line break was broken off by a crash.
            *lines, broken = reader.read().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                self._note(msgspec.json.decode(line, type=_Line))
            except (msgspec.DecodeError, UnicodeError) as error:
                raise ValueError(f"{self.path} is no journal of calls: line {number}: {error}") from None
        self._length = sum(len(line) + 1 for line in lines)
        if broken:
            os.ftruncate(file, self._length)

    async def close(self) -> None:
        """Let others have it. May be called again."""
        async with self._order:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def find(self, call: str) -> Outcome | Literal["begun"] | None:
        """What came of a call; `begun` when that is not known, None when it never was."""
        if call not in self._calls:
            return None
        return self._calls[call] or "begun"

    async def begin(self, call: str) -> None:
        """Note that a call begins. Raises OSError when that cannot be kept: then it must not begin."""
        await self._write(_Line(call))

    async def finish(self, call: str, outcome: Outcome) -> None:
        """Note what came of a call. Raises OSError when that cannot be kept."""
        await self._write(_Line(call, outcome))

    async def _write(self, line: _Line) -> None:
        # To its end, also where the caller is cancelled: no other line may come in between.
        writing = asyncio.create_task(self._write_in_order(line))
        self._writing.add(writing)
        writing.add_done_callback(self._written)
        await asyncio.shield(writing)

    def _written(self, writing: asyncio.Task[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            writing.exception()  # for whoever still waits; else nobody's

    async def _write_in_order(self, line: _Line) -> None:
        async with self._order:
            data = msgspec.json.encode(line) + b"\n"
            if self._length + len(data) > 2 * self._bytes + _SLACK:
                await asyncio.to_thread(self._rewrite)
            await asyncio.to_thread(self._append, data)
            self._note(line)

    def _note(self, line: _Line) -> None:
        before = self._calls.pop(line.call, None)
        self._bytes -= 0 if before is None else before.size
        self._calls[line.call] = line.outcome
        self._bytes += 0 if line.outcome is None else line.outcome.size
        while len(self._calls) > _MOST_CALLS or self._bytes > _MOST_BYTES:
            _, oldest = self._calls.popitem(last=False)
            self._bytes -= 0 if oldest is None else oldest.size

    # --- in a thread, one at a time

    def _append(self, data: bytes) -> None:
        if self._file is None:
            raise OSError(f"{self.path} is closed")
        try:
            _write_all(self._file, data)
        except OSError:
            # A full disk takes a part of a line: the next one must not be glued to it.
            with suppress(OSError):
                os.ftruncate(self._file, self._length)
            raise
        self._length += len(data)

    def _rewrite(self) -> None:
        """Leave out what is forgotten. The old file stays until the new one is whole."""
        if self._file is None:
            return
        lines = b"".join(msgspec.json.encode(_Line(call, outcome)) + b"\n" for call, outcome in self._calls.items())
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        file = _locked(temporary)
        try:
            _write_all(file, lines)
            temporary.replace(self.path)
        except OSError:
            os.close(file)
            raise
        os.close(self._file)
        self._file, self._length = file, len(lines)


def _locked(path: Path) -> int:
    """The file, made if there is none, for us alone. Others cannot read it: what a tool has read may be in it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BlockingIOError:
            os.close(file)
            raise ValueError(f"{path} is the journal of another client that is running") from None
        except BaseException:
            os.close(file)
            raise
        # Its owner wrote it anew just now.
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.fsync(file)
