"""The two locks on a data directory, both flock(2): the kernel releases them however their holders end.

`owner.lock` is held by the process that supervises the server, for as long as it does. `server.lock` is opened anew
for every start and inherited by the server and all its children, while we close our own copy: it is free exactly when
the last process of the server is gone, whatever has become of the others.
"""

import contextlib
import fcntl
import os
import sys
from pathlib import Path

from storage.embedded.errors import EmbeddedError, naming


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

    Raises:
        EmbeddedError: another process owns it; the message names that process.
    """
    lock = try_lock(path)
    if lock is None:
        raise EmbeddedError(
            f"The data directory {path.parent} is in use by {_holder(path)}: stop it first, or choose another one."
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


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):  # the note is a courtesy; the lock is what counts
        pid, _, program = path.read_text(errors="replace").strip().partition("\n")
        if pid.isdigit():
            return f"process {pid} ({program})" if program else f"process {pid}"
    return "another process"
