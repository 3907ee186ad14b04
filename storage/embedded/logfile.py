"""The server's log, `postgres.log`, kept bounded: at most this much and one former file of the same size."""

import contextlib
import os
import re
import shutil
from pathlib import Path

from storage.embedded.errors import naming

LIMIT = 8 * 1024 * 1024
_TAIL = 4000
# Lines that tell why something failed; the rest is told only when there are none.
_REASON = re.compile(r"error:|ERROR:|FATAL:|PANIC:|DETAIL:|HINT:|Error\b")
_FEW = 5


def open_log(path: Path) -> int:
    """A descriptor for appending. Close it once the server has inherited it."""
    with naming(path):
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def trim(path: Path, limit: int = LIMIT) -> None:
    """Move what is there aside once it is longer than `limit` bytes.

    The server keeps its descriptor and appends, so the file is copied and emptied in place; what it writes in
    between is lost, which a log can bear.
    """
    if end(path) <= limit:
        return
    former = path.with_name(path.name + ".1")
    with naming(path):
        former.unlink(missing_ok=True)
        # Neither a file nor a link that somebody else has laid there is written to.
        exclusively = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with (
            os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+b") as log,
            os.fdopen(os.open(former, exclusively, 0o600), "wb") as copy,
        ):
            shutil.copyfileobj(log, copy)
            log.truncate(0)


def end(path: Path) -> int:
    """The present length, to be handed to `since`."""
    with contextlib.suppress(OSError):  # not there yet
        return path.stat(follow_symlinks=False).st_size
    return 0


def since(path: Path, start: int) -> str:
    """The reason of a failure, from what was logged since byte `start`: its errors, or its last lines."""
    with contextlib.suppress(OSError), path.open("rb") as log:  # the reason is a help, its absence no failure
        length = log.seek(0, os.SEEK_END)
        log.seek(max(start, length - _TAIL) if length >= start else max(0, length - _TAIL))
        lines = log.read().decode(errors="replace").strip().splitlines()
        return "\n".join([line for line in lines if _REASON.search(line)] or lines[-_FEW:])
    return ""
