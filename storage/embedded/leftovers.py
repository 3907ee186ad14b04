"""Finding and ending what a former run has left, before anything that it may still use is touched.

A process id proves nothing: it may be a zombie's, or have been given to somebody else. What counts is what a process
*is*: a PostgreSQL program that works in this very directory, or has inherited this very lock.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from storage.embedded.account import Account, acting_as
from storage.embedded.child import SHIM
from storage.embedded.errors import EmbeddedError, naming
from storage.embedded.locks import try_lock
from storage.embedded.places import Places

_PROGRAMS = frozenset({"postgres", "initdb"})
# PostgreSQL kills its own stragglers five seconds into an immediate shutdown; after that it is our turn. Seconds.
_PATIENCE = 6.0
_FIRST_POLL, _LONGEST_POLL = 0.005, 0.1


class Process(NamedTuple):
    """A living process that belongs to the data directory; `ours` when it is the server's and not, say, a shell."""

    pid: int
    ours: bool


async def clear(places: Places, account: Account, wait: float, *, grace: float | None = None) -> int:
    """Return the server's lock once no process of a former run is left, and remove that run's pid file.

    Processes that are left are told to stop at once (SIGQUIT), and killed when they do not.

    Args:
        places: the data directory.
        account: whom the server ran as.
        wait: seconds for all of it.
        grace: seconds before they are killed; as long as PostgreSQL itself would wait if not given.

    Raises:
        EmbeddedError: a server that we did not start uses the cluster, or processes cannot be ended in time.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    last_resort = min(_PATIENCE if grace is None else grace, wait / 2)
    signalled: dict[int, signal.Signals] = {}
    pause = _FIRST_POLL
    while True:
        lock = try_lock(places.server_lock)
        found: list[Process] = []
        try:
            # A free lock and no pid file: the former run ended in good order, as it nearly always does.
            if lock is None or places.pidfile.exists():
                found = find(places, account)
                _refuse_foreign(places, found, free=lock is not None)
            if lock is not None and not any(process.ours for process in found):
                with naming(places.pidfile):
                    places.pidfile.unlink(missing_ok=True)
                kept, lock = lock, None
                return kept
        finally:
            if lock is not None:
                os.close(lock)
        passed = loop.time() - begun
        if passed > wait:
            pids = ", ".join(str(process.pid) for process in found) or "unknown"
            raise EmbeddedError(f"Processes of a former run still use {places.data_dir}: end them (process {pids}).")
        number = signal.SIGKILL if passed >= last_resort else signal.SIGQUIT
        for process in found:
            if process.ours and signalled.get(process.pid) != number:
                signalled[process.pid] = number
                with contextlib.suppress(ProcessLookupError):  # gone meanwhile, as wanted
                    os.kill(process.pid, number)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_POLL)


def find(places: Places, account: Account) -> list[Process]:
    """The living processes, other than this one, that work in the cluster or hold the server's lock."""
    if sys.platform != "linux":
        return _find_by_pid_file(places)
    marks = set(_identities(places.pgdata, places.fresh, places.server_lock))
    found = {process.pid: process for process in _scan(marks)}
    if account.borrowed:
        with acting_as(account):
            found |= {process.pid: process for process in _scan(marks)}
    return list(found.values())


def recorded_pid(places: Places) -> int | None:
    """The process id in `postmaster.pid`; a single-user server writes it negative."""
    with contextlib.suppress(OSError, ValueError):  # missing, half written or garbage: nobody is named
        return abs(int(places.pidfile.read_text(errors="replace").partition("\n")[0]))
    return None


def _refuse_foreign(places: Places, found: list[Process], *, free: bool) -> None:
    """Every server of ours holds the lock: one that runs while the lock is free was started by somebody else."""
    recorded = recorded_pid(places)
    if free and any(process.ours and process.pid == recorded for process in found):
        raise EmbeddedError(
            f"A PostgreSQL server that somebody else started uses {places.pgdata} (process {recorded}): stop it first."
        )


def _identities(*paths: Path) -> Iterator[tuple[int, int]]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # nobody can be using it
            status = path.stat(follow_symlinks=False)
            yield status.st_dev, status.st_ino


def _scan(marks: set[tuple[int, int]]) -> Iterator[Process]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            # Ended meanwhile, a zombie, or another user's: the kernel hides their files.
            with contextlib.suppress(OSError):
                if _uses(entry.path, marks):
                    yield Process(int(entry.name), _is_program(entry.path))


def _uses(process: str, marks: set[tuple[int, int]]) -> bool:
    links = [f"{process}/cwd", *(f"{process}/fd/{number}" for number in os.listdir(f"{process}/fd"))]
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile
            status = os.stat(link)
            if (status.st_dev, status.st_ino) in marks:
                return True
    return False


def _is_program(process: str) -> bool:
    # An upgrade may have replaced the file that still runs.
    program = os.path.basename(os.readlink(f"{process}/exe").removesuffix(" (deleted)"))
    return program in _PROGRAMS or os.fsencode(SHIM) in Path(f"{process}/cmdline").read_bytes().split(b"\0")


def _find_by_pid_file(places: Places) -> list[Process]:
    """Without /proc: the process in the pid file, if it is alive and a PostgreSQL server (ps(1), POSIX)."""
    pid = recorded_pid(places)
    if pid is None:
        return []
    command = ["/bin/ps", "-o", "stat=", "-o", "comm=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no input of others
    state, _, program = answer.stdout.strip().partition(" ")
    alive = bool(state) and not state.startswith("Z")
    return [Process(pid, ours=True)] if alive and os.path.basename(program.strip()) in _PROGRAMS else []
