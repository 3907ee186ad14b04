"""The command line in a process of its own, as people run it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: What an installed console script does: import and call, with the script's folder on the path and not the working one.
#: A run of the tests in the background inherits that Ctrl-C is ignored; the command is to see it all the same.
SCRIPT = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    f" sys.path[0] = {str(ROOT)!r}; from server.cli import main; sys.exit(main())"
)


def environment(**variables: str) -> dict[str, str]:
    """Ours without what configures Parley, and with the given variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    return inherited | {"PYTHONUNBUFFERED": "1"} | variables


class Process:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self, word: str) -> str:
        """The next line of its output that has the word in it; fails when the output ends before."""
        assert self.process.stdout is not None
        seen = []
        async for line in self.process.stdout:
            seen.append(line.decode())
            if word in seen[-1]:
                return seen[-1]
        raise AssertionError(f"no {word!r} in:\n{''.join(seen)}\n{await self.errors()}")

    async def errors(self) -> str:
        """All of its standard error; it has ended or is about to."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def end(self) -> tuple[int, str, str]:
        """Wait for its end; exit code, the rest of its output, and of its errors."""
        out, errors = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), errors.decode()


@asynccontextmanager
async def start(*arguments: str, cwd: Path | None = None, **variables: str) -> AsyncIterator[Process]:
    """Start `parley ARGUMENTS`; it is killed at the end of the block if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        cwd=cwd,
        env=environment(**variables),
        limit=1 << 20,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def parley(*arguments: str, cwd: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Run `parley ARGUMENTS` to its end: exit code, output, errors."""
    async with start(*arguments, cwd=cwd, **variables) as process:
        return await process.end()
