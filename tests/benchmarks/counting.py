"""Counts events on many sockets at once: in C where there is a compiler, so that the load costs next to nothing."""

from __future__ import annotations

import ctypes
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from tests.benchmarks.polling import Poller
from tests.benchmarks.publishing import MARK

__all__ = ["Counted", "Work", "count_events", "language"]

_SOURCE: Final = Path(__file__).with_name("counting.c")
_BUFFER: Final = 1 << 18


class Work(NamedTuple):
    """Events to be published, so many at a time; `toil` makes each read of the load about twice as dear."""

    in_flight: int
    rounds: int
    toil: bool


class Counted(NamedTuple):
    """How many events came everywhere, in how many reads, of how many bytes."""

    done: int
    reads: int
    received: int


def count_events(streams: Sequence[socket.socket], control: socket.socket, work: Work) -> Counted:
    """Have events published by sending bytes to `control`, until each stream has had all; RuntimeError if one fails."""
    function = _compiled()
    counted = _count_in_python(streams, control, work) if function is None else _in_c(function, streams, control, work)
    if counted.done < work.rounds:
        raise RuntimeError(
            f"{counted.done} of {work.rounds} events came everywhere, then a stream failed or was silent"
        )
    return counted


def language() -> str:
    """What the counting is done in."""
    return "Python" if _compiled() is None else "C"


def _in_c(
    function: Callable[..., int], streams: Sequence[socket.socket], control: socket.socket, work: Work
) -> Counted:
    descriptors = (ctypes.c_int * len(streams))(*(each.fileno() for each in streams))
    reads, received = ctypes.c_long(0), ctypes.c_long(0)
    for each in streams:
        each.setblocking(True)
    done = function(
        *(descriptors, len(streams), control.fileno(), work.in_flight, work.rounds, MARK[0], int(work.toil)),
        *(ctypes.byref(reads), ctypes.byref(received)),
    )
    return Counted(done, reads.value, received.value)


def _count_in_python(streams: Sequence[socket.socket], control: socket.socket, work: Work) -> Counted:
    poller = Poller(streams)
    buffer = bytearray(_BUFFER)
    readers = {each.fileno(): each.recv_into for each in streams}
    seen = dict.fromkeys(readers, 0)
    at = [len(seen), *[0] * work.rounds]  # how many streams have had so many events
    asked, done, received, reads = min(work.in_flight, work.rounds), 0, 0, 0
    control.sendall(bytes(asked))
    while done < work.rounds and (descriptors := poller.ready()):
        for descriptor in descriptors:
            if work.toil:
                buffer.count(MARK, 0, readers[descriptor](buffer, 0, socket.MSG_PEEK))
            size = readers[descriptor](buffer)
            events = buffer.count(MARK, 0, size)
            received += size
            if not size or seen[descriptor] + events > work.rounds:
                poller.close()
                return Counted(done, reads, received)
            at[seen[descriptor]] -= 1
            seen[descriptor] += events
            at[seen[descriptor]] += 1
        reads += len(descriptors)
        while done < work.rounds and not at[done]:
            done += 1
        more = min(work.rounds, done + work.in_flight) - asked
        control.sendall(bytes(more))
        asked += more
    poller.close()
    return Counted(done, reads, received)


@cache
def _compiled() -> Callable[..., int] | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
        library = Path(folder) / "counting.so"
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return None
        function = ctypes.CDLL(str(library)).count_events
    pointer, number, many = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    function.argtypes = [pointer, number, number, many, many, number, number, pointer, pointer]
    function.restype = many
    counting: Callable[..., int] = function
    return counting
