"""Where things are: the data directory's rooms, and a directory for the socket whose path is short enough.

Started by root, everything that we write ourselves (locks, log, copied programs) stays in a directory of root's; only
`pgdata` and the socket's directory belong to the server's account. That account needs no way through the directories
above them: it is handed open descriptors, and /proc/self/fd/N leads through those whatever the modes above are.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from storage.embedded.account import Account
from storage.embedded.errors import EmbeddedError, naming

PORT = 5432
SOCKET = f".s.PGSQL.{PORT}"
# sockaddr_un.sun_path takes 108 bytes on Linux and 104 on macOS and the BSDs, the closing NUL included (unix(7)).
LONGEST_SOCKET_PATH = 103


def default_data_dir() -> Path:
    """Where the database is kept unless configured: `/var/lib/parley` as root, else below the user's data directory.

    XDG_DATA_HOME is honoured when absolute (XDG Base Directory Specification); its default is `~/.local/share`.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/parley")
    configured = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".local/share") / "parley"


@dataclass(frozen=True, slots=True)
class Places:
    """The rooms of one data directory."""

    data_dir: Path

    @property
    def pgdata(self) -> Path:
        """The cluster; it has this name only once it is whole."""
        return self.data_dir / "pgdata"

    @property
    def fresh(self) -> Path:
        """The cluster in the making."""
        return self.data_dir / "pgdata.new"

    @property
    def pidfile(self) -> Path:
        """The running server's own file: its pid first, its status in the eighth line."""
        return self.pgdata / "postmaster.pid"

    @property
    def run(self) -> Path:
        """The socket's directory, when that path is short enough."""
        return self.data_dir / "run"

    @property
    def programs(self) -> Path:
        """Copied programs, for an account that cannot read the installed ones."""
        return self.data_dir / "bin"

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.data_dir / "postgres.log"

    @property
    def owner_lock(self) -> Path:
        """Held by the process that supervises the server."""
        return self.data_dir / "owner.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the server's own processes."""
        return self.data_dir / "server.lock"

    def make(self) -> None:
        """Create the data directory if it is missing; the mode of one that exists is never changed."""
        with naming(self.data_dir):
            if not self.data_dir.is_dir():
                self.data_dir.mkdir(parents=True)
                self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)


def open_directory(path: Path) -> int:
    """A descriptor of a directory that is no symbolic link."""
    with naming(path):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def reference(descriptor: int, path: Path, account: Account) -> str:
    """What the server is to call the directory behind an inherited descriptor."""
    return f"/proc/self/fd/{descriptor}" if account.borrowed and sys.platform == "linux" else str(path)


def make_private(path: Path, account: Account) -> None:
    """Create a directory of the account's, mode 0700, or make it so."""
    with naming(path):
        path.mkdir(mode=0o700, exist_ok=True)
    directory = open_directory(path)
    try:
        with naming(path):
            if account.borrowed:
                os.fchown(directory, account.uid, account.gid)
            os.fchmod(directory, 0o700)
    finally:
        os.close(directory)


def socket_directory(places: Places, account: Account) -> Path:
    """A directory of mode 0700 whose socket's path the kernel accepts: `run/`, or a short one elsewhere."""
    if _fits(places.run):
        make_private(places.run, account)
        return places.run
    for directory in socket_places(places, account):
        if _claim(directory, account):
            return directory
    with naming(Path("/tmp")):  # noqa: S108 - mkdtemp makes a private directory, and nothing else is as short
        made = Path(tempfile.mkdtemp(prefix="parley-", dir="/tmp"))
    make_private(made, account)
    return made


def socket_places(places: Places, account: Account) -> list[Path]:
    """Where the socket's directory may be, the first choice first; but for one in /tmp that has its name by chance."""
    if _fits(places.run):
        return [places.run]
    name = f"parley-{hashlib.sha256(os.fsencode(places.data_dir)).hexdigest()[:12]}"
    return [base / name for base in _short_bases(account) if _fits(base / name)]


def sweep(directory: Path) -> None:
    """Remove the socket and its lock file, left by a server that is known to be gone."""
    for name in (SOCKET, f"{SOCKET}.lock"):
        with naming(directory):
            (directory / name).unlink(missing_ok=True)


def discard(directory: Path, places: Places) -> None:
    """Remove the socket's directory if it was made elsewhere."""
    if directory != places.run:
        shutil.rmtree(directory, ignore_errors=True)


def stale_copy(places: Places) -> None:
    """Remove what an interrupted initdb has left."""
    with naming(places.fresh), contextlib.suppress(FileNotFoundError):  # the usual case
        shutil.rmtree(places.fresh)


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / SOCKET)) <= LONGEST_SOCKET_PATH


def _short_bases(account: Account) -> list[Path]:
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    own = [runtime, Path(f"/run/user/{account.uid}")] if runtime.is_absolute() else [Path(f"/run/user/{account.uid}")]
    return [base for base in ([Path("/run")] if account.borrowed else own) if base.is_dir()] + [Path("/tmp")]  # noqa: S108


def _claim(path: Path, account: Account) -> bool:
    """Take the directory if it can be made, or was made by the account before; in /tmp anybody may have been first."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        status = path.stat(follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != account.uid or stat.S_IMODE(status.st_mode) != 0o700:
            return False
    except OSError:
        return False
    with contextlib.suppress(EmbeddedError):
        make_private(path, account)
        return True
    return False
