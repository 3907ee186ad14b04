"""The command line in a process of its own, as people run it."""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import os
import pty
import select
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cli.emulator import Emulator

ROOT = Path(__file__).parents[2]

#: What an installed console script does: import and call, with the script's folder on the path and not the working one.
#: A run of the tests in the background inherits that Ctrl-C is ignored; the command is to see it all the same.
SCRIPT = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    f" sys.path[0] = {str(ROOT)!r}; from server.cli import main; sys.exit(main())"
)

#: The terminal that it was started with becomes the one that its signals come from.
_OWN_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
#: Seconds that something may take on a machine that is busy with something else.
PATIENCE = 45.0


def environment(**variables: str) -> dict[str, str]:
    """Ours without what configures Parley, and with the given variables."""
    unwanted = ("PARLEY_", "NO_COLOR", "COLORFGBG", "TMUX", "STY", "XTERM_", "FORCE_COLOR", "_ARGCOMPLETE")
    size = ("COLUMNS", "LINES")  # of the terminal that the tests were started in
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(unwanted) and name not in size
    }
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

    async def note(self, word: str) -> str:
        """The next line of its standard error that has the word in it; fails when that ends before."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if word in line.decode():
                return line.decode()
        raise AssertionError(f"nobody said {word!r}")

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
    async with _started(arguments, asyncio.subprocess.DEVNULL, cwd, variables) as process:
        yield process


@asynccontextmanager
async def _started(
    arguments: Sequence[str], stdin: int, cwd: Path | None, variables: Mapping[str, str]
) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdin=stdin,
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


async def asking(question: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run `parley ARGUMENTS` to its end with a question in a pipe: exit code, output, errors."""
    async with _started(arguments, asyncio.subprocess.PIPE, None, variables) as running:
        out, errors = await running.process.communicate(question.encode())
        assert running.process.returncode is not None
        return running.process.returncode, out.decode(), errors.decode()


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, process: asyncio.subprocess.Process, master: int, emulator: Emulator) -> None:
        self.process = process
        self.emulator = emulator
        #: Everything that was written to the terminal.
        self.written = b""
        self._master = master
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._news = asyncio.Event()
        self._is_over = False

    def read_all(self) -> None:
        """Take everything that was written up to now."""
        while select.select([self._master], [], [], 0)[0] and self.read():
            pass

    def read(self) -> bool:
        """Take what the command has written; called when there is something. False when it is the end."""
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # nobody has the other end any more
            data = b""
        if not data:
            self._is_over = True
            asyncio.get_running_loop().remove_reader(self._master)
        self.written += data
        self.emulator.feed(self._decoder.decode(data))
        self._news.set()
        return bool(data)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def say(self, text: str) -> None:
        """Enter a text."""
        self.type(f"{text}\r")

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size: the terminal wraps its rows anew, and then tells the command."""
        # What was written before belongs to the old size.
        self.read_all()
        self.emulator.resize(columns, rows)
        _set_size(self._master, columns, rows)

    async def until(self, condition: str | Callable[[Emulator], object], what: str = "") -> None:
        """Wait until a text is on the terminal, or a condition holds."""
        holds = (lambda emulator: condition in emulator.text) if isinstance(condition, str) else condition
        try:
            async with asyncio.timeout(PATIENCE):
                while not holds(self.emulator) and not self._is_over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        wanted = condition if isinstance(condition, str) else what
        assert holds(self.emulator), f"no {wanted!r} on the terminal:\n{self.emulator.text}"

    async def end(self) -> int:
        """Wait for its end; the exit code. All that it wrote is read then."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
        self.read_all()
        return code


@asynccontextmanager
async def terminal(
    *arguments: str, url: str = "", columns: int = 80, rows: int = 24, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Terminal]:
    """Start `parley ARGUMENTS` on a terminal, for the server at `url`; it is killed at the end if it still runs."""
    master, slave = pty.openpty()
    _set_size(master, columns, rows)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", f"{_OWN_TERMINAL}{SCRIPT}", *arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=environment(**{"TERM": "xterm-256color", "PARLEY_URL": url, **(variables or {})}),
        )
    finally:
        os.close(slave)
    loop = asyncio.get_running_loop()
    running = Terminal(process, master, Emulator(columns, rows))
    loop.add_reader(master, running.read)
    try:
        yield running
    finally:
        loop.remove_reader(master)
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(master)


def _set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


async def parley(*arguments: str, cwd: Path | None = None, **variables: str) -> tuple[int, str, str]:
    """Run `parley ARGUMENTS` to its end: exit code, output, errors."""
    async with start(*arguments, cwd=cwd, **variables) as process:
        return await process.end()
