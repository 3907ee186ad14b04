"""A server as its users run it: `parley serve` with a database of its own, as processes that can be killed.

The database's processes are found in the tree below the server's, and every process is held by a descriptor, which
names the same process even when its id is used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import msgspec

from storage.embedded.access import connect_args
from storage.embedded.child import SHIM
from storage.embedded.places import Places
from tests.storage.embedded.processes import Watched, tree

__all__ = ["LOST", "Part", "ServerProcess", "Watched", "command_line", "serving", "tree"]

Part = Literal["server", "tree", "postmaster", "backend"]

#: What a client sees when its server is gone.
LOST: Final = (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError)
#: How long a start, a stop or a recovery may take on a machine that is busy with something else, in seconds.
PATIENCE: Final = 60.0

_ROOT: Final = Path(__file__).parents[2]
_PROGRAM: Final = "import sys; from server.cli import main; sys.exit(main())"
_ADDRESS: Final = re.compile(r"\blistens on (http://\S+)")
#: What a server may complain about when its database was killed; every other error in its log is a mistake of ours.
_EXPECTED: Final = frozenset({"embedded_postgres_died"})


class ServerProcess:
    """One data directory and, most of the time, one `parley serve` on it.

    `complaints` holds what no run may bring about: errors in the server's log, and ends that nobody asked for.
    """

    def __init__(self, data_dir: Path, config: str = "", *, port: int = 0, own_database: bool = True) -> None:
        self.data_dir = data_dir
        self.complaints: list[str] = []
        self.log: list[str] = []
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=PATIENCE))
        self._port = port
        #: Without one of its own the configuration names a database.
        self._place = ("--data-dir", str(data_dir)) if own_database else ()
        self._config = data_dir.with_suffix(".toml")
        self._config.write_text(config, encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._expected_to_end = True
        self._url = ""
        self._up = asyncio.Event()
        #: How often this server's database was killed at its root.
        self.postmasters_killed = 0

    # --- life

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    async def start(self) -> None:
        """Start the server and return once it is ready."""
        self._expected_to_end = False
        self.postmasters_killed = 0
        self._process = process = await asyncio.create_subprocess_exec(
            # Whatever becomes of this test run, the server does not outlive it.
            *(sys.executable, "-I", "-S", str(SHIM), str(os.getpid()), str(int(signal.SIGKILL)), "-1", "-1"),
            *(sys.executable, "-c", _PROGRAM, "serve", "--port", str(self._port), "--log-format", "json"),
            *(*self._place, "--config", str(self._config)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 22,
            cwd="/",
            env=_environment(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(self._read_log(process.stderr))
        self._tasks = [
            reading,
            asyncio.create_task(self._listen(process.stdout, address, reading)),
            asyncio.create_task(self._watch(process)),
        ]
        async with asyncio.timeout(PATIENCE):
            self._url = await address
            await self.ready()
        self._up.set()

    async def address(self) -> str:
        """Where the server is; waits until there is one that is ready."""
        await self._up.wait()
        return self._url

    async def ready(self) -> None:
        """Ask the readiness probe until it says yes."""
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.http.get(f"{self._url}/ready") as response:
                    if response.status == 200:
                        return
                    assert response.status == 503, response.status
                    assert int(response.headers["Retry-After"]) >= 1

    async def stop(self) -> int:
        """Stop the server as an operator does; the exit code. None of its processes is left. May be called again."""
        if self._process is None or self._process.returncode is not None:
            return 0
        self.gone_for_now()
        with Watched(tree(self.pid)) as everybody:
            self._process.send_signal(signal.SIGTERM)
            await self._ended()
            await everybody.gone()
        code = self._process.returncode
        assert code is not None, "its end was awaited"
        return code

    async def close(self) -> None:
        """Kill what is left, and let go of everything."""
        if self._process is not None and self._process.returncode is None:
            with self.kill("tree") as everybody:
                await self._ended()
                await everybody.gone()
        await self.http.close()

    async def _ended(self) -> None:
        assert self._process is not None
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)

    # --- killing

    def gone_for_now(self) -> None:
        """Clients are to wait for the next start instead of trying in vain."""
        self._expected_to_end = True
        self._up.clear()

    def kill(self, part: Part, dice: random.Random | None = None) -> Watched:
        """Send SIGKILL, at once; returns the processes that must be gone soon, which the caller closes.

        `server`: the server alone, whose database has to notice. `tree`: the server and all processes below it.
        `postmaster`: the database's first process. `backend`: one of the others.
        """
        if part in {"server", "tree"}:
            self.gone_for_now()
            everybody = Watched(tree(self.pid))
            if part == "tree":
                everybody.kill()
            else:
                os.kill(self.pid, signal.SIGKILL)
            return everybody
        postmaster, *others = tree(self.postmaster())
        if part == "postmaster":
            self.postmasters_killed += 1
            everybody = Watched([postmaster, *others])
            os.kill(postmaster, signal.SIGKILL)
            return everybody
        victim = Watched([(dice or random.Random()).choice(self._backends(others))])
        victim.kill()
        return victim

    async def reap(self) -> None:
        """Wait for the end of a server that was killed."""
        await self._ended()

    def postmaster(self) -> int:
        """The database's first process."""
        found = [pid for pid in tree(self.pid) if pid != self.pid and _program(pid) == "postgres"]
        assert found, "there is no database below the server"
        return found[0]

    @staticmethod
    def _backends(pids: list[int]) -> list[int]:
        """Those that serve a connection, or all when none does."""
        return [pid for pid in pids if b"postgres: parley parley" in command_line(pid)] or pids

    # --- looking

    def owners(self) -> list[int]:
        """The servers that were started on the data directory."""
        # A word of its own: a PostgreSQL that runs as this user names a directory below it.
        name = os.fsencode(self.data_dir)
        pids = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
        return sorted(pid for pid in pids if pid != os.getpid() and name in command_line(pid).split(b"\0"))

    def unowned(self) -> bool:
        """Whether no process holds the data directory: each of a server's or a database's would keep a lock."""
        places = Places(self.data_dir)
        return _free(places.owner_lock) and _free(places.server_lock)

    def database(self) -> dict[str, Any]:
        """How asyncpg reaches the database."""
        return connect_args(Places(self.data_dir).run, "parley")

    def check(self) -> None:
        """Fail when the server complained."""
        assert not self.complaints, "\n".join([*self.complaints, "the log ends:", *self.log[-40:]])

    # --- listening to it

    async def _listen(
        self, stdout: asyncio.StreamReader, address: asyncio.Future[str], reading: asyncio.Task[None]
    ) -> None:
        async for line in stdout:
            found = _ADDRESS.search(line.decode())
            if found and not address.done():
                address.set_result(found[1])
        if not address.done():
            await asyncio.wait({reading})  # the log says why, and may be read later than it was written
            address.set_exception(AssertionError("the server ended before it listened:\n" + "\n".join(self.log[-40:])))

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        async for raw in stderr:
            line = raw.decode(errors="replace").rstrip()
            self.log.append(line)
            if not raw.endswith(b"\n"):
                return  # its writer was killed in the middle of it
            try:
                record = msgspec.json.decode(line)
            except msgspec.DecodeError:
                self.complaints.append(f"not a line of a log: {line}")
                continue
            if record.get("level") in {"error", "critical"} and record.get("event") not in _EXPECTED:
                self.complaints.append(line)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._expected_to_end:
            self._up.clear()
            self.complaints.append(f"the server ended by itself with {code}")


@asynccontextmanager
async def serving(data_dir: Path, config: str = "", *, port: int = 0) -> AsyncIterator[ServerProcess]:
    """A server on a data directory, at some port or always the same.

    At the end it is stopped in order, and must be gone without a complaint.
    """
    server = ServerProcess(data_dir, config, port=port)
    try:
        await server.start()
        yield server
        code = await server.stop()
        server.check()
        assert code == 0, code
        assert server.unowned()
    finally:
        await server.close()


def _environment() -> dict[str, str]:
    """Ours, without what would configure the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    return {**kept, "PYTHONPATH": str(_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def _program(pid: int) -> str:
    with contextlib.suppress(OSError):  # it has just ended
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def command_line(pid: int) -> bytes:
    """Its command line, with NULs between the words; a process of PostgreSQL says here what it is for."""
    with contextlib.suppress(OSError):  # it has just ended
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _free(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
