"""Programs that tools start: bounded in time and output, and ended with all that they began."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from protocol.tools import ToolError
from server.agents.client_tools import ExecuteCommand, SearchInCode
from server.cli.tools import searching
from server.cli.tools.workspace import Workspace, in_words, is_file

__all__ = ["execute_command", "search_in_code"]

#: Characters of an output that are kept: of its beginning and of its end, which says what went wrong.
_HEAD: Final = 20_000
_TAIL: Final = 40_000
#: Seconds for what was told to end, for outputs to end once their program has, and for a search.
_GRACE: Final = 2.0
_DRAIN: Final = 0.5
_SEARCH: Final = 30.0
_PIECE: Final = 1 << 16
#: Seconds between two tellings of how far a program is.
_PACE: Final = 0.5


async def execute_command(workspace: Workspace, asked: ExecuteCommand, told: Callable[[str], None]) -> dict[str, Any]:
    """Run a command; `told` gets the newest line of its output now and then.

    It begins in the workspace and may go anywhere: it has the user's rights, and whoever approves it has to know that.
    """
    where = await asyncio.to_thread(workspace.folder_path, asked.cwd or ".")
    if asked.shell:
        program = [os.environ.get("SHELL") or "/bin/sh", "-c", asked.command]
    else:
        try:
            program = shlex.split(asked.command)
        except ValueError as error:
            raise ToolError(f"command: {error}") from None
        if not program:
            raise ToolError("command: it is empty")
    out, errors = _Output(told), _Output(told)
    async with _started(program, where, out, errors) as process:
        timed_out = False
        try:
            async with asyncio.timeout(asked.timeout):
                await process.wait()
        except TimeoutError:
            timed_out = True
            await _end(process)
    answer: dict[str, Any] = {"exit_code": process.returncode, "stdout": out.text(), "stderr": errors.text()}
    if timed_out:
        answer["timed_out"] = f"it was stopped after {asked.timeout} s"
    return answer


async def search_in_code(workspace: Workspace, asked: SearchInCode) -> Any:
    """Search the workspace's files, in a process of its own."""
    folder, name, prefix = await asyncio.to_thread(_where, workspace, asked.path)
    question: searching.Asked = {
        "query": asked.query,
        "prefix": prefix,
        "name": name,
        "file_pattern": asked.file_pattern,
        "case_sensitive": asked.case_sensitive,
        "regex": asked.regex,
        "max_results": asked.max_results,
    }
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", searching.__file__, str(folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(folder,),
            start_new_session=True,
        )
    finally:
        os.close(folder)
    try:
        async with asyncio.timeout(_SEARCH):
            out, _ = await process.communicate(json.dumps(question).encode("utf-8", "replace"))
    except TimeoutError:
        raise ToolError(f"the search took longer than {_SEARCH:g} s; search for less, or in fewer files") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    answer = json.loads(out or b'{"error": "the search failed"}')
    if "error" in answer:
        raise ToolError(answer["error"])
    return answer


def _where(workspace: Workspace, path: str) -> tuple[int, str | None, str]:
    """An open folder to search, or the folder of a file and its name; and what stands before the paths of it."""
    with workspace.place(path) as place:
        if is_file(place.status()):
            return os.dup(place.folder), place.name, place.path
        return place.open_folder(), None, "" if place.path == "." else f"{place.path}/"


class _Output:
    """What a program writes: its beginning and its end."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0
        self._told = told
        self._next = 0.0

    def take(self, data: bytes) -> None:
        """Keep of this what there is room for."""
        now = asyncio.get_running_loop().time()
        room = _HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        if len(self._tail) > 2 * _TAIL:
            self._left_out += len(self._tail) - _TAIL
            del self._tail[:-_TAIL]
        if now >= self._next:
            self._next = now + _PACE
            lines = data[-500:].decode("utf-8", "replace").split("\n")
            if said := [line for line in lines if line.strip()]:
                self._told(said[-1])

    def text(self) -> str:
        """All that was kept, with a note of what was not."""
        left_out = self._left_out + max(len(self._tail) - _TAIL, 0)
        between = f"\n... {left_out} bytes are left out ...\n".encode() if left_out else b""
        whole = bytes(self._head) + between + bytes(self._tail[-_TAIL:])
        return whole.decode("utf-8", "replace").replace("\0", "\ufffd")


@asynccontextmanager
async def _started(
    program: Sequence[str], where: Path, out: _Output, errors: _Output
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in a session of its own, so that it ends with all its children; it is over at the end of the block."""
    readers = [_Reader(out), _Reader(errors)]
    try:
        for reader in readers:
            await reader.open()
        process = await _begun(program, where, readers[0].end, readers[1].end)
        for reader in readers:
            reader.handed_over()
        try:
            yield process
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN):
                    # What it has left in the background may hold its outputs open.
                    for reader in readers:
                        await reader.ended.wait()
        finally:
            await _end(process)
    finally:
        for reader in readers:
            reader.close()


async def _begun(program: Sequence[str], where: Path, out: int, errors: int) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *program,
            cwd=where,
            env=_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"{program[0]} cannot be run: {in_words(error)}") from None
    except ValueError as error:
        raise ToolError(f"command: {error}") from None


class _Reader(asyncio.Protocol):
    """A pipe into an output. Unlike the loop's own it can be closed while somebody else holds its other end."""

    def __init__(self, output: _Output) -> None:
        self.ended = asyncio.Event()
        self.end = -1
        self._output = output
        self._transport: asyncio.ReadTransport | None = None

    async def open(self) -> None:
        """Make the pipe."""
        beginning, self.end = os.pipe()
        file = os.fdopen(beginning, "rb", buffering=0)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: self, file)

    def handed_over(self) -> None:
        """The program has its end of it."""
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    def close(self) -> None:
        """Read no more."""
        self.handed_over()
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what was written."""
        self._output.take(data)

    def eof_received(self) -> None:
        """Nobody can write to it any more."""
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """As above."""
        self.ended.set()


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a program and its children: first asked, then made to."""
    ended = asyncio.ensure_future(process.wait())
    try:
        if process.returncode is None:
            _signal(process.pid, signal.SIGTERM)
            # No asyncio.timeout: in early versions of 3.11 it is no TimeoutError in a task that is being cancelled.
            await asyncio.wait({ended}, timeout=_GRACE)
    finally:
        _signal(process.pid, signal.SIGKILL)
    await ended


def _signal(group: int, number: signal.Signals) -> None:
    # Nobody of them may be left; on macOS those that have ended may not be told.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _environment() -> dict[str, str]:
    """Ours without what is for us alone, as the token; and nothing that waits for keys."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    return kept | {"PAGER": "cat", "GIT_PAGER": "cat", "TERM": "dumb", "GIT_TERMINAL_PROMPT": "0"}
