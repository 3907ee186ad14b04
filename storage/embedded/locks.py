"""The two locks on a data directory, both flock(2): the kernel releases them however their holders end.

`owner.lock` is held by the process that supervises the server, for as long as it does. `server.lock` is opened anew
for every start and inherited by the server and all its children, while we close our own copy: it is free exactly when
the last process of the server is gone, whatever has become of the others.
"""

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path

from storage.embedded.errors import EmbeddedError, naming

#: How long a lock is waited for whose owner is gone, and how often it is tried meanwhile; seconds.
_PATIENCE = 5.0
_PAUSE = 0.01


def try_lock(path: Path) -> int | None:
    """The descriptor of the locked file, or None while somebody else holds it. Close it to let go."""
    while True:
        with naming(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError as error:
            os.close(lock)
            raise EmbeddedError(
                f"{path} cannot be locked ({error.strerror}): choose a data directory on a local disk."
            ) from error
        # A file that was removed while we waited guards nothing: somebody else locks the one that has taken its name.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(path, follow_symlinks=False)):
                return lock
        os.close(lock)


def own(path: Path) -> int:
    """Become the one owner of the data directory; returns the lock's descriptor.

    An owner that was killed while it started a program leaves a child which holds the lock until it has become that
    program: a lock whose owner is gone is waited for, some milliseconds as a rule.

    Raises:
        EmbeddedError: another process owns it; the message names that process.
    """
    lock = try_lock(path)
    patience = time.monotonic() + _PATIENCE
    while lock is None and _is_gone(_noted(path)[0]) and time.monotonic() < patience:
        time.sleep(_PAUSE)
        lock = try_lock(path)
    if lock is None:
        raise EmbeddedError(
            f"The data directory {path.parent} is in use by {holder(path)}: stop it first, or choose another one."
        )
    note = f"{os.getpid()}\n{Path(sys.argv[0]).name}\n".encode(errors="replace")
    try:
        with naming(path):
            os.truncate(lock, 0)
            os.pwrite(lock, note, 0)
    except EmbeddedError:
        os.close(lock)
        raise
    return lock


def _noted(path: Path) -> tuple[int | None, str]:
    """The owner's process id and program, as it noted them: a courtesy; the lock is what counts."""
    with contextlib.suppress(OSError):
        pid, _, program = path.read_text(errors="replace").strip().partition("\n")
        if pid.isdigit():
            return int(pid), program
    return None, ""


def _is_gone(pid: int | None) -> bool:
    """Whether no process has this id, or a dead one that nobody has reaped yet; not known for certain is no."""
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    with contextlib.suppress(OSError, IndexError):  # proc(5): the state follows the name, which may hold anything
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in {"Z", "X"}
    return False


def holder(path: Path) -> str:
    """Who has locked the file, in words, as far as it is known."""
    pid, program = _noted(path)
    if pid is None:
        return "another process"
    return f"process {pid} ({program})" if program else f"process {pid}"
