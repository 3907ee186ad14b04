"""The cluster: made whole or not at all, its access rules, and the server's command line."""

import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from storage.embedded.access import ADMIN, ROLE
from storage.embedded.account import Account, own_name
from storage.embedded.binaries import Binaries
from storage.embedded.child import Child
from storage.embedded.errors import EmbeddedError, naming
from storage.embedded.logfile import end, since
from storage.embedded.places import PORT, Places, make_private, open_directory, reference, stale_copy

_DEFAULTS: Mapping[str, str] = {
    "cluster_name": "parley",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "60",
    "shared_buffers": "128MB",
    # Our statements are short; compiling them costs more than it can save.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_destination": "stderr",
    "logging_collector": "off",
}
# What keeps the server private and in our hands is not for sale.
_RESERVED = frozenset(
    {
        "data_directory",
        "external_pid_file",
        "hba_file",
        "ident_file",
        "listen_addresses",
        "port",
        "unix_socket_directories",
        "unix_socket_group",
        "unix_socket_permissions",
    }
)
_BUILTIN_LOCALES_SINCE = 17
_LC_CTYPE_MASK = 1


def checked(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings laid over the defaults.

    Raises:
        ValueError: one of them would open the server to others or move it.
    """
    refused = sorted(name for name in settings if name.lower() in _RESERVED)
    if refused:
        raise ValueError(f"The embedded PostgreSQL decides {', '.join(refused)} itself.")
    return {**_DEFAULTS, **{name.lower(): value for name, value in settings.items()}}


def check_version(places: Places, binaries: Binaries) -> bool:
    """Whether there is a cluster.

    Raises:
        EmbeddedError: there is one of another major version, or something else in its place.
    """
    with naming(places.pgdata):
        if not places.pgdata.exists():
            return False
        try:
            made_by = (places.pgdata / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            if any(places.pgdata.iterdir()):
                raise EmbeddedError(f"{places.pgdata} holds something else than a database: move it away.") from None
            places.pgdata.rmdir()
            return False
    if made_by != str(binaries.major):
        raise EmbeddedError(
            f"The database in {places.pgdata} was made by PostgreSQL {made_by}, this is version {binaries.major}: "
            f"dump it with version {made_by} and restore it into a new data directory, or go back to that version."
        )
    return True


async def initialise(places: Places, account: Account, binaries: Binaries, *, log: int, lock: int, sync: bool) -> None:
    """Make a cluster beside its place, then move it there in one step: a kill leaves all or nothing.

    Args:
        places: where.
        account: whose it is to be.
        binaries: the version.
        log: the descriptor for initdb's output.
        lock: the server's lock, which initdb's processes inherit.
        sync: whether it must survive a power cut from the first moment on.
    """
    stale_copy(places)
    make_private(places.fresh, account)
    directory = open_directory(places.fresh)
    start = end(places.log)
    try:
        command = [
            binaries.initdb,
            "-D",
            reference(directory, places.fresh, account),
            *_initdb_options(binaries, sync=sync),
        ]
        child = Child.spawn(command, account=account, log=log, keep=(directory, lock), death_signal=signal.SIGKILL)
        try:
            code = await child.exited
        finally:
            if not child.exited.done():
                child.send(signal.SIGKILL)
                await child.exited
        if code != 0:
            raise EmbeddedError(f"No database could be made in {places.data_dir}: {since(places.log, start)}")
        with naming(places.data_dir):
            places.fresh.rename(places.pgdata)
            if sync:
                _sync(places.data_dir)
    finally:
        os.close(directory)


def write_access_rules(places: Places, account: Account) -> None:
    """Admit one user of the operating system, the one that this process is, and nobody else.

    The socket's directory is closed to all others but the server's own account; `peer` closes that door too, for when
    the account is shared (`nobody`), and no password has to be kept anywhere.
    """
    admitted = own_name()
    note = "# Written anew at every start.\n"
    rules = {
        "pg_hba.conf": f"{note}local all {ADMIN},{ROLE} peer map=parley\n",
        "pg_ident.conf": f'{note}parley "{admitted}" {ADMIN}\nparley "{admitted}" {ROLE}\n',
    }
    directory = open_directory(places.pgdata)
    try:
        with naming(places.pgdata):
            for name, text in rules.items():
                _replace(directory, name, text, account)
    finally:
        os.close(directory)


def server_command(binaries: Binaries, data: str, sockets: str, settings: Mapping[str, str]) -> Sequence[str]:
    """The server's command line: settings there win over all files. Never TCP, one private socket."""
    private = {
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": sockets,
        "unix_socket_permissions": "0700",
    }
    options = [part for name, value in {**settings, **private}.items() for part in ("-c", f"{name}={value}")]
    return [binaries.postgres, "-D", data, *options]


def _initdb_options(binaries: Binaries, *, sync: bool) -> list[str]:
    if binaries.major >= _BUILTIN_LOCALES_SINCE:
        # Sorts by code point and knows Unicode's letters, and no upgrade of the system's library can change either.
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    else:
        locale = [f"--locale={'C.UTF-8' if _has_c_utf8() else 'C'}"]
    return [
        *("--encoding=UTF8", *locale, "--data-checksums", "--auth=peer", f"--username={ADMIN}"),
        *(() if sync else ("--no-sync",)),
    ]


def _has_c_utf8() -> bool:
    """Whether the system has that locale (newlocale(3)); asking setlocale would change it for the whole process."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    libc.newlocale.restype = ctypes.c_void_p
    libc.freelocale.argtypes = [ctypes.c_void_p]
    found = libc.newlocale(_LC_CTYPE_MASK, b"C.UTF-8", None)
    if found:
        libc.freelocale(found)
    return bool(found)


def _replace(directory: int, name: str, text: str, account: Account) -> None:
    """Write a file of the account's in one step, following no link that it may have laid."""
    fresh = f"{name}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(fresh, flags, 0o600, dir_fd=directory)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if account.borrowed:
            os.fchown(descriptor, account.uid, account.gid)
        file.write(text)
    os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)


def _sync(path: Path) -> None:
    directory = open_directory(path)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
