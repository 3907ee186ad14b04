"""The operating-system account that the database server runs as.

PostgreSQL refuses to run as root. Started by root, the server therefore becomes an unprivileged account that exists
already; no account is ever added. Started by anybody else, it stays that user.
"""

import contextlib
import ctypes
import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from storage.embedded.errors import EmbeddedError

# PostgreSQL's own packages create the first; the second exists on every system.
_UNPRIVILEGED = ("postgres", "nobody")


class Account(NamedTuple):
    """A user of the operating system; `borrowed` when root must step down to become it."""

    uid: int
    gid: int
    name: str
    borrowed: bool


def own_name() -> str:
    """The name of the user that this process runs as: whom the server lets in."""
    return _entry(os.geteuid()).pw_name


def server_account(pgdata: Path) -> Account:
    """The account for the server whose cluster is, or will be, in `pgdata`.

    An existing cluster keeps its owner, so a `postgres` account that appears later changes nothing.

    Raises:
        EmbeddedError: there is no such account, or the cluster belongs to root.
    """
    if os.geteuid() != 0:
        return _account(_entry(os.geteuid()), borrowed=False)
    if pgdata.is_dir() and (owner := pgdata.stat().st_uid) != 0:
        return _account(_entry(owner), borrowed=True)
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):  # the next name may exist
            account = _account(pwd.getpwnam(name), borrowed=True)
            if pgdata.is_dir() and any(pgdata.iterdir()):
                raise EmbeddedError(
                    f"{pgdata} belongs to root, and PostgreSQL does not run as root: `chown -R {name} {pgdata}` first."
                )
            return account
    raise EmbeddedError("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`.")


@contextlib.contextmanager
def acting_as(account: Account) -> Iterator[None]:
    """Look at the system with the account's eyes, in this thread only; nothing may be awaited inside.

    /proc shows the files of another user's process to root only with CAP_SYS_PTRACE, which containers take away, but
    always to that user (ptrace(2), PTRACE_MODE_READ_FSCREDS), and who that is setfsuid(2) decides.
    """
    if not account.borrowed or sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    former_gid, former_uid = os.getegid(), os.geteuid()
    libc.setfsgid(ctypes.c_uint(account.gid))
    libc.setfsuid(ctypes.c_uint(account.uid))
    try:
        yield
    finally:
        libc.setfsuid(ctypes.c_uint(former_uid))
        libc.setfsgid(ctypes.c_uint(former_gid))


def _account(entry: pwd.struct_passwd, *, borrowed: bool) -> Account:
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name, borrowed)


def _entry(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise EmbeddedError(
            f"User id {uid} has no name on this system, and PostgreSQL needs one: "
            "add it to /etc/passwd, or use a PostgreSQL of your own with a DSN."
        ) from None
