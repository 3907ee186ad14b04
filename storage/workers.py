"""Workers: the processes that run turns, each with a lease that it renews (by the database's clock)."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from uuid import UUID

from msgspec import Struct

from storage.pool import Database

__all__ = ["ProcessIdentity", "Workers"]


class ProcessIdentity(Struct, frozen=True):
    """Which process on which host: enough to tell, on the same host, whether that very process is still there.

    `host` holds the boot and the pid namespace too, as a process id means nothing beyond them; `process` is the pid
    and, where the system tells, the tick at which it started, as pids are used again.
    """

    host: str
    process: str

    @classmethod
    def current(cls) -> ProcessIdentity:
        """This process."""
        boot = _read("/proc/sys/kernel/random/boot_id")
        namespace = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
        return cls(f"{socket.gethostname()}/{boot}/{namespace}", _process(os.getpid()))

    def is_alive(self, process: str) -> bool:
        """Whether a process of this host, named as in `process`, is still running."""
        pid = int(process.partition("@")[0])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return _process(pid) == process
        return _process(pid) == process


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _process(pid: int) -> str:
    # proc(5): field 22 of stat is the start time in ticks since boot, field 3 the state; the name in field 2 may hold
    # anything, so fields are counted from its closing parenthesis.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if not fields:
        return str(pid)
    return f"{pid}@dead" if fields[0] in "ZX" else f"{pid}@{fields[19]}"


class Workers:
    """The table of workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(self, worker_id: UUID, identity: ProcessIdentity, seconds: float) -> None:
        """The worker is alive for another lease of `seconds`."""
        await self._database.execute("renew_worker", worker_id, identity.host, identity.process, seconds)

    async def forget_dead(self, identity: ProcessIdentity) -> int:
        """Strike out the workers of this host whose process is gone, so that nobody waits for their leases to end."""
        rows = await self._database.fetch("workers_of_host", identity.host)
        gone = [row["worker_id"] for row in rows if not identity.is_alive(row["process"])]
        if gone:
            await self.forget(gone)
        return len(gone)

    async def forget(self, worker_ids: list[UUID]) -> None:
        """These workers are gone: their steps may be claimed at once."""
        await self._database.execute("forget_workers", worker_ids)

    async def forget_expired(self, seconds: float) -> None:
        """Strike out workers whose lease ended more than `seconds` ago."""
        await self._database.execute("forget_expired_workers", seconds)
