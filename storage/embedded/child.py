"""A direct child process that dies with us, and whose end can be awaited without a thread."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from storage.embedded.account import Account

SHIM = Path(__file__).with_name("shim.py")

# For systems without pidfd_open(2): how often the end of the child is looked for, in seconds.
_POLL = 0.05


class Child:
    """A running child; `exited` resolves to its return code (negative: the signal that ended it).

    The kernel ties the child to the *thread* that started it: the event loop's. A loop that runs in a side thread
    and ends without `stop` takes the child with it.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = _pidfd(process.pid)
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._look)
        else:
            self._look()

    @classmethod
    def spawn(
        cls, command: Sequence[str], *, account: Account, log: int, keep: Iterable[int], death_signal: signal.Signals
    ) -> Self:
        """Start `command` as `account`.

        Args:
            command: the absolute path of a program and its arguments.
            account: whom it runs as.
            log: the descriptor for what it prints.
            keep: descriptors that it inherits, under the same numbers.
            death_signal: what the kernel sends it when we die, however we die (Linux).
        """
        user = (str(account.uid), str(account.gid)) if account.borrowed else ("-1", "-1")
        shim = (sys.executable, "-I", "-S", str(SHIM), str(os.getpid()), str(int(death_signal)), *user)
        process = subprocess.Popen(  # noqa: S603 - our own program and the wheel's
            [*shim, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=tuple(keep),
            cwd="/",
            env=environment(),
            # A terminal's Ctrl-C is for us: it must not stop the database while we still drain.
            start_new_session=True,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id, the same before and after the shim."""
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless the child has been reaped: its id may be somebody else's by now."""
        self._process.send_signal(number)

    async def wait(self, timeout: float) -> bool:
        """Wait for the end, at most `timeout` seconds; whether it has come."""
        await asyncio.wait({self.exited}, timeout=timeout)
        return self.exited.done()

    def _look(self) -> None:
        code = self._process.poll()
        if code is None:
            if self._pidfd is None:
                self._loop.call_later(_POLL, self._look)
            return
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if not self.exited.done():
            self.exited.set_result(code)


def _pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the child ends, where the system has such a thing (Linux 5.3)."""
    with contextlib.suppress(AttributeError, OSError):  # elsewhere the child is looked at now and then
        return os.pidfd_open(pid)
    return None


def environment() -> dict[str, str]:
    """The environment of server processes: nothing of ours that PostgreSQL would take for a setting, such as PGDATA."""
    result = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    with contextlib.suppress(KeyError):  # usually unset; where libraries live elsewhere (Nix, Conda) it is needed
        result["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return result
