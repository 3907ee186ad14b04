"""Looking at a data directory from outside: nothing is made, changed, started or stopped."""

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.embedded import access
from storage.embedded.account import Account, server_account
from storage.embedded.binaries import Binaries, installed
from storage.embedded.errors import EmbeddedError, naming
from storage.embedded.locks import holder
from storage.embedded.places import SOCKET, Places, socket_places

__all__ = ["DataDir", "look"]


@dataclass(frozen=True, slots=True)
class DataDir:
    """What there is.

    Attributes:
        path: the data directory, resolved.
        exists: whether it is there; if not, a start makes it.
        writable: whether this user may write there, or make it.
        free: bytes that this user may still write there.
        cluster: the major version of PostgreSQL that made the database in it, if there is one.
        owner: who works on it now, in words; nobody if None.
        account: whom PostgreSQL runs as.
        programs: its programs; None where a start copies them first, as that account cannot run the installed ones.
        address: how the running server is reached, for asyncpg; None if none runs, or its socket cannot be found.
    """

    path: Path
    exists: bool
    writable: bool
    free: int
    cluster: str | None
    owner: str | None
    account: Account
    programs: Binaries | None
    address: dict[str, Any] | None


def look(data_dir: Path) -> DataDir:
    """Look at a data directory; blocks, for seconds at worst.

    Raises:
        EmbeddedError: it cannot be used as it is; the message says why and what to do.
    """
    try:
        places = Places(data_dir.expanduser().resolve())
    except RuntimeError:
        raise EmbeddedError(f"{data_dir} is nobody's home: choose another data directory.") from None
    nearest = next(path for path in (places.data_dir, *places.data_dir.parents) if _is_there(path))
    if not nearest.is_dir():
        raise EmbeddedError(f"{nearest} is no directory: move it away, or choose another data directory.")
    owner = _owner(places.owner_lock)
    account = server_account(places.pgdata)
    with naming(nearest):
        free = shutil.disk_usage(nearest).free
    return DataDir(
        path=places.data_dir,
        exists=nearest == places.data_dir,
        writable=os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids),
        free=free,
        cluster=_cluster(places),
        owner=owner,
        account=account,
        programs=installed(account),
        address=None if owner is None else _address(places, account),
    )


def _is_there(path: Path) -> bool:
    with naming(path):
        return path.exists()


def _owner(lock: Path) -> str | None:
    """Who holds the lock. A shared one is asked for: two who look do not take each other for owners."""
    try:
        with naming(lock):
            descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except EmbeddedError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder(lock)
    finally:
        os.close(descriptor)
    return None


def _cluster(places: Places) -> str | None:
    with naming(places.pgdata), contextlib.suppress(FileNotFoundError):  # there is none yet
        return (places.pgdata / "PG_VERSION").read_text().strip()
    return None


def _address(places: Places, account: Account) -> dict[str, Any] | None:
    for directory in socket_places(places, account):
        with contextlib.suppress(OSError):  # closed to us; so is the server, then
            if (directory / SOCKET).exists():
                return access.connect_args(directory, access.DATABASE)
    return None
