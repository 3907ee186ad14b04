"""One run of the server: from the certainty that no other runs, to its readiness, to its end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from storage.embedded.access import provision
from storage.embedded.account import Account
from storage.embedded.binaries import Binaries
from storage.embedded.child import Child
from storage.embedded.cluster import check_version, initialise, server_command, write_access_rules
from storage.embedded.errors import EmbeddedError
from storage.embedded.leftovers import clear, find
from storage.embedded.logfile import end, open_log, since, trim
from storage.embedded.places import Places, open_directory, reference, sweep

# How often readiness is looked for, in seconds: often at first, for a warm start takes 20 ms.
_FIRST_POLL, _LONGEST_POLL = 0.002, 0.05
# How long the steps of a stop may take, in seconds: in good order, first without and then with a look at whether some
# process was suspended; at once, dropping what is not yet in the log's files; after which everything is killed, and has
# this long to be gone. Together they are less than process managers wait before they kill us (Kubernetes: 30 seconds).
_ORDERLY, _SUSPENDED = 1.0, 7.0
_IMMEDIATE = 3.0
_KILLED = 4.0
# How long what a failed start has left may take to be gone, in seconds; half of it before it is killed.
_FAILED = 12.0
_OFF = frozenset({"off", "false", "no", "0"})


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run needs to know; the same for every restart.

    Attributes:
        places: the data directory.
        account: whom the server runs as.
        binaries: its programs.
        settings: its configuration.
        sockets: the directory of its socket.
        wait: seconds for a start.
    """

    places: Places
    account: Account
    binaries: Binaries
    settings: Mapping[str, str]
    sockets: Path
    wait: float


async def launch(plan: Plan) -> Child:
    """Start a server and return once it answers; the cluster is made first if there is none.

    Raises:
        EmbeddedError: it does not start, or not in time. Nothing is left running then.
    """
    start = end(plan.places.log)
    try:
        async with asyncio.timeout(plan.wait):
            return await _launch(plan)
    except BaseException as error:
        with contextlib.suppress(EmbeddedError):  # why it did not start says more than why it cannot be ended
            await clean(plan)
        if isinstance(error, TimeoutError):
            raise EmbeddedError(
                f"PostgreSQL in {plan.places.data_dir} was not ready within {plan.wait:g} seconds: "
                f"{since(plan.places.log, start) or 'it said nothing'}"
            ) from None
        if isinstance(error, OSError):  # no process, memory or descriptor to be had
            raise EmbeddedError(f"PostgreSQL in {plan.places.data_dir} cannot be started: {error}") from error
        raise


async def shut_down(child: Child, plan: Plan) -> None:
    """End the server and all its processes: in good order if it can, at once if not, by force in the end.

    None of this loses what was committed: after the second and the third step the next start recovers from the
    write-ahead log, as after a crash.

    Raises:
        EmbeddedError: some process could not even be killed.
    """
    child.send(signal.SIGINT)
    # A server that somebody has suspended hears of it only when it runs.
    child.send(signal.SIGCONT)
    if not await child.wait(_ORDERLY):
        _resume(plan)
        if not await child.wait(_SUSPENDED):
            child.send(signal.SIGQUIT)
            await child.wait(_IMMEDIATE)
    await clean(plan, _KILLED, grace=0)
    await child.exited


def _resume(plan: Plan) -> None:
    """Let suspended processes of the server run: it waits for each of them before it ends."""
    for process in find(plan.places, plan.account):
        if process.ours:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process.pid, signal.SIGCONT)


async def _launch(plan: Plan) -> Child:
    places = plan.places
    lock = await clear(places, plan.account, plan.wait / 2)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock)
        trim(places.log)
        start = end(places.log)
        log = open_log(places.log)
        stack.callback(os.close, log)
        if not check_version(places, plan.binaries):
            sync = plan.settings["fsync"].lower() not in _OFF
            await initialise(places, plan.account, plan.binaries, log=log, lock=lock, sync=sync)
        write_access_rules(places, plan.account)
        sweep(plan.sockets)
        directories = [open_directory(path) for path in (places.pgdata, plan.sockets)]
        for descriptor in directories:
            stack.callback(os.close, descriptor)
        data, sockets = (
            reference(descriptor, path, plan.account)
            for descriptor, path in zip(directories, (places.pgdata, plan.sockets), strict=True)
        )
        child = Child.spawn(
            server_command(plan.binaries, data, sockets, plan.settings),
            account=plan.account,
            log=log,
            keep=(lock, *directories),
            # Immediate shutdown: the server takes its children along, and recovers from its log at the next start.
            death_signal=signal.SIGQUIT,
        )
    try:
        await _ready(child, plan, start)
    except BaseException:
        child.send(signal.SIGQUIT)
        raise
    return child


async def _ready(child: Child, plan: Plan, start: int) -> None:
    pause = _FIRST_POLL
    while not await child.wait(pause):
        if _says_ready(plan.places, child.pid) and await provision(plan.sockets):
            return
        pause = min(pause * 1.5, _LONGEST_POLL)
    raise EmbeddedError(f"PostgreSQL in {plan.places.data_dir} does not start: {since(plan.places.log, start)}")


def _says_ready(places: Places, pid: int) -> bool:
    """The server notes its progress in the eighth line of its pid file; asking there costs no line in its log."""
    with contextlib.suppress(OSError):  # not written yet
        lines = places.pidfile.read_text(errors="replace").splitlines()
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"
    return False


async def clean(plan: Plan, wait: float = _FAILED, *, grace: float | None = None) -> None:
    """End every process of this data directory that is left, and remove what they have left; times as in `clear`."""
    os.close(await clear(plan.places, plan.account, wait, grace=grace))
    sweep(plan.sockets)
