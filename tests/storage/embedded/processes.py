"""Processes as the tests see them: started as another user, watched without waiting for luck, killed for good."""

import asyncio
import contextlib
import os
import pwd
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import asyncpg

from storage.embedded import EmbeddedPostgres

OWNER = Path(__file__).with_name("owner.py")
ROOT = Path(__file__).parents[3]
#: Nothing here takes so long, even on a machine that is busy with something else; it is what a hang costs.
PATIENCE = 45.0
# What a connection's user sees when its server is gone.
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
# A backend in a tight loop does not notice that its server is gone.
BUSY = "DO $$ BEGIN LOOP END LOOP; END $$"


class Watched:
    """Processes known by descriptors, which name the same processes even when the ids are used again."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._descriptors: dict[int, int] = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it was faster
                self._descriptors[pid] = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)

    @property
    def pids(self) -> list[int]:
        return list(self._descriptors)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        for descriptor in self._descriptors.values():
            with contextlib.suppress(ProcessLookupError):  # gone with its parent
                signal.pidfd_send_signal(descriptor, number)

    async def gone(self) -> None:
        """Return when none is left; the test fails when that takes too long."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            for descriptor in self._descriptors.values():
                ended = asyncio.Event()
                loop.add_reader(descriptor, ended.set)
                try:
                    await ended.wait()
                finally:
                    loop.remove_reader(descriptor)


def embedded(path: Path, *, wait: float = PATIENCE, **settings: str) -> EmbeddedPostgres:
    """A server for a test: no power cut is rehearsed, so nothing waits for the disk."""
    return EmbeddedPostgres(path, settings={"fsync": "off", **settings}, wait=wait)


@contextlib.asynccontextmanager
async def running(server: EmbeddedPostgres) -> AsyncIterator[int]:
    """Start it, and stop it whatever happens; yields the process id of the server."""
    await server.start()
    try:
        assert server._child is not None
        yield server._child.pid
    finally:
        await server.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again; for what shows itself in files only. The test fails when that takes too long."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - files send no events
            await asyncio.sleep(0)


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):  # it has just ended
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += tree(int(child))
    return found


def user_of(pid: int) -> str:
    return pwd.getpwuid(Path(f"/proc/{pid}").stat().st_uid).pw_name


def users_of(pid: int) -> set[str]:
    """Whose the process is, and all below it; a backend may end between being listed and being looked at."""
    users = {user_of(pid)}
    for each in tree(pid)[1:]:
        with contextlib.suppress(FileNotFoundError):
            users.add(user_of(each))
    return users


@dataclass
class Owner:
    """A process that owns a server: see owner.py."""

    process: asyncio.subprocess.Process
    postmaster: int = 0
    dsn: str = ""
    error: str = ""
    lines: list[str] = field(default_factory=list)

    async def answer(self) -> Self:
        """Read what it says about its start."""
        kind, _, rest = (await self.line()).partition(" ")
        if kind == "ready":
            number, _, self.dsn = rest.partition(" ")
            self.postmaster = int(number)
        else:
            assert kind == "error", (kind, rest)
            self.error = rest
        return self

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().strip()

    async def rest(self) -> list[str]:
        """What it had printed when it was killed."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.read()).decode().split()

    async def finish(self) -> int:
        """Ask it to stop, and wait for that."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.process.wait()


@contextlib.asynccontextmanager
async def owner(data_dir: Path, *arguments: str, prefix: Sequence[str] = ()) -> AsyncIterator[Owner]:
    """Run an owner; it is killed at the end if it still runs, and its server with it."""
    process = await asyncio.create_subprocess_exec(
        *(*prefix, sys.executable, str(OWNER), str(data_dir), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    below = Watched([])
    try:
        yield Owner(process)
        below = Watched(tree(process.pid)) if process.returncode is None else below
    finally:
        with below:
            if process.returncode is None:
                process.kill()
            await process.communicate()
            await below.gone()


@contextlib.asynccontextmanager
async def orphan(former: Owner) -> AsyncIterator[Watched]:
    """Kill the owner and its server, but not a backend that is too busy to notice; yields that backend."""
    connection, observer = await asyncpg.connect(former.dsn), await asyncpg.connect(former.dsn)
    with Watched([connection.get_server_pid()]) as backend:
        looping = asyncio.create_task(connection.execute(BUSY))
        while not await observer.fetchval("SELECT count(*) FROM pg_stat_activity WHERE query = $1", BUSY):
            pass
        observer.terminate()
        former.process.send_signal(signal.SIGSTOP)  # it would clean up at once
        os.kill(former.postmaster, signal.SIGKILL)
        former.process.kill()
        await former.process.wait()
        try:
            yield backend
        finally:
            backend.kill()
        with contextlib.suppress(*LOST):
            await looping
        await connection.close()
