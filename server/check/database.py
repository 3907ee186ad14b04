"""Can the server work on its database, and does the database keep what it is given?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from server.check.findings import Finding, error, note, ok, warning
from server.check.running import Context, Findings, in_thread
from server.config import Config
from storage.embedded import EmbeddedError, default_data_dir
from storage.embedded import probe as embedded
from storage.probe import DatabaseLook, UnusableError, look

__all__ = ["find"]

#: Bytes. PostgreSQL's log of changes alone may take a gigabyte; making a database takes fifty million.
_LITTLE: Final = 2 << 30
_NOTHING: Final = 256 << 20


async def find(context: Context) -> Findings:
    """The PostgreSQL that is configured; the one of its own only as far as that can be seen without starting it."""
    settings = context.config.database
    if settings.url is not None:
        findings = _of_yours(context, settings.url)
    else:
        try:
            path = default_data_dir() if settings.data_dir is None else Path(settings.data_dir)
        except RuntimeError:
            yield error("this user has no home for a database", "name a place with --data-dir, or set HOME")
            return
        findings = _of_its_own(context, path)
    async for finding in findings:
        yield finding


async def _of_yours(context: Context, url: str) -> Findings:
    source = context.config.source("database.url")
    try:
        seen = await look(url, timeout=context.patience)
    except UnusableError as failure:
        yield error(f"database.url (from {source}): {failure}", failure.advice)
        return
    yield ok(f"PostgreSQL {seen.version} answers, database {seen.database}, as {seen.user}")
    for finding in _suitable(seen, context.config):
        yield finding


async def _of_its_own(context: Context, path: Path) -> Findings:
    try:
        seen = await in_thread(lambda: embedded.look(path))
    except EmbeddedError as failure:
        # A sentence that says what to do as well.
        what, _, advice = str(failure).removesuffix(".").partition(": ")
        yield error(what, advice)
        return
    for finding in _directory(seen):
        yield finding
    if seen.address is None:
        if seen.cluster is None:
            yield ok("there is no database yet; the first start makes one")
        return
    try:
        running = await look(seen.address, timeout=context.patience)
    except UnusableError as failure:
        yield note(f"the database that runs there cannot be looked into: {failure}", "ask as the user who runs it")
        return
    for finding in _suitable(running, context.config):
        yield finding


def _directory(seen: embedded.DataDir) -> Iterator[Finding]:
    free = f"{seen.free / (1 << 30):.1f} GB free"
    if not seen.writable:
        yield error(f"{seen.path} cannot be written by this user", "mend its owner, or choose another --data-dir")
    else:
        yield ok(f"{seen.path} {'can be used' if seen.exists else 'can be made'}, {free}")
    if seen.free < _NOTHING:
        yield error(f"the disk that holds {seen.path} is full ({free})", "free some space")
    elif seen.free < _LITTLE:
        yield warning(f"the disk that holds {seen.path} is nearly full ({free})", "free some space")
    if seen.owner is not None:
        advice = "stop it before you start another one, or choose another --data-dir"
        yield note(f"{seen.path} is in use by {seen.owner}", advice)
    name = f"PostgreSQL {seen.programs.major}" if seen.programs else "PostgreSQL"
    if seen.programs is None:
        what = f"{seen.account.name} cannot run the installed PostgreSQL"
        yield note(what, "a start copies it to where that user can")
    elif seen.cluster is not None and seen.cluster != str(seen.programs.major):
        yield error(
            f"the database in {seen.path} was made by PostgreSQL {seen.cluster}, this is {name}",
            f"dump it with version {seen.cluster}, restore it into a new data directory; or go back to that version",
        )
    else:
        yield ok(f"{name} can be run" + (f" as {seen.account.name}" if seen.account.borrowed else ""))


def _suitable(seen: DatabaseLook, config: Config) -> Iterator[Finding]:
    """What must be so for this version to work there, and what should be."""
    if seen.refusal is not None:
        yield error(seen.refusal, "see the message; nothing was changed")
    elif not seen.pending:
        yield ok("its tables are those of this version")
    elif seen.may_create and not seen.read_only:
        yield note(
            f"{len(seen.pending)} migrations are pending: {', '.join(seen.pending)}",
            "`parley serve` applies them when it starts, `parley migrate` beforehand",
        )
    if seen.refusal is None and seen.pending and not seen.may_create:
        yield error(
            f"tables are missing, and {seen.user} may not make them",
            f"run `parley migrate` as the owner, or: GRANT CREATE ON SCHEMA public TO {seen.user}",
        )
    if seen.read_only:
        yield error("it is read-only", "name the primary, or end its read-only mode")
    if seen.encoding != "UTF8":
        yield error(
            f"its encoding is {seen.encoding}", "make the database with: createdb --encoding=UTF8 --template=template0"
        )
    yield from _safe(seen)
    yield from _room(seen, config)


def _safe(seen: DatabaseLook) -> Iterator[Finding]:
    advice = "turn it on, unless losing what was acknowledged is no loss"
    if seen.fsync == "off":
        yield warning("fsync is off: a power cut may destroy the database", advice)
    if seen.full_page_writes == "off":
        yield warning("full_page_writes is off: a power cut may destroy the database", advice)
    if seen.synchronous_commit == "off":
        yield warning("synchronous_commit is off: a crash takes back what was acknowledged", advice)


def _room(seen: DatabaseLook, config: Config) -> Iterator[Finding]:
    size = config.database.pool_size
    if size > seen.room:
        yield error(
            f"database.pool_size is {size}, and {seen.user} may have {seen.room} connections",
            "lower it, or raise max_connections there",
        )
    elif size > seen.room - seen.others:
        yield warning(
            f"database.pool_size is {size}, and others have taken {seen.others} of {seen.room} connections",
            "lower it, or raise max_connections there",
        )
