"""Files of a workspace: read, written, listed, moved, deleted. All of it blocks, and is called in threads."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from itertools import islice
from typing import IO, Any, Final

from protocol.tools import ToolError
from server.agents.client_tools import CreateDirectory, DeleteFile, ListFiles, MoveFile, ReadFile, WriteFile
from server.cli.tools.workspace import Place, Workspace, is_file

__all__ = ["create_directory", "delete_file", "list_files", "move_file", "read_file", "text_of", "write_file"]

#: Bytes of a text that is read at once: as much as a model takes at a time.
_LARGEST_READ: Final = 200_000
#: Bytes that are passed over to come to a line.
_MOST_SKIPPED: Final = 256 << 20
_MOST_LISTED: Final = 2_000
_MOST_VISITED: Final = 100_000
_DEEPEST: Final = 64
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


# --- reading


def read_file(workspace: Workspace, asked: ReadFile) -> str:
    """The text of a file, or of some of its lines."""
    first, last = asked.start_line or 1, asked.end_line
    if last is not None and last < first:
        raise ToolError(f"end_line: {last} is before start_line, {first}")
    with workspace.place(asked.path) as place, _opened(place, asked.path) as file:
        size = os.fstat(file.fileno()).st_size
        if first == 1 and last is None and size > _LARGEST_READ:
            raise ToolError(
                f"{asked.path} has {size} bytes, more than the {_LARGEST_READ} that are read at once; read it in "
                "pieces, with start_line and end_line"
            )
        with _decoded(file, asked.path, asked.encoding) as text:
            return _lines(text, first, last, asked.path)


def text_of(workspace: Workspace, path: str, encoding: str) -> str | None:
    """The whole text of a file; None if there is none, or if it cannot be read as text."""
    try:
        return read_file(workspace, ReadFile(path=path, encoding=encoding))
    except ToolError:
        return None


@contextmanager
def _opened(place: Place, path: str) -> Iterator[IO[bytes]]:
    """A plain file; neither a device nor a pipe is opened for long enough to do anything."""
    status = place.status()
    if status is not None and not is_file(status):
        raise ToolError(f"{path} is {_kind(status)}, not a file")
    with os.fdopen(os.open(place.name, _READ, dir_fd=place.folder), "rb") as file:
        opened = os.fstat(file.fileno())
        if not is_file(opened):
            raise ToolError(f"{path} is {_kind(opened)}, not a file")
        yield file


@contextmanager
def _decoded(file: IO[bytes], path: str, encoding: str) -> Iterator[IO[str]]:
    try:
        # As the file has them: line endings are part of it.
        text = io.TextIOWrapper(file, encoding=encoding, newline="")
    except (LookupError, ValueError):
        raise ToolError(f"encoding: {encoding!r} is not known") from None
    try:
        yield text
    except UnicodeError as error:
        raise ToolError(f"{path} is no text in {encoding}: {error}") from None
    finally:
        text.detach()


def _lines(text: IO[str], first: int, last: int | None, path: str) -> str:
    found, length, passed, number, is_whole = [], 0, 0, 1, True
    while line := text.readline(_LARGEST_READ + 1):
        if "\0" in line:
            raise ToolError(f"{path} is no text: it holds NUL characters")
        if number >= first:
            found.append(line)
            length += len(line)
            if length > _LARGEST_READ:
                raise ToolError(f"these lines of {path} have more than {_LARGEST_READ} characters; ask for fewer")
        elif (passed := passed + len(line)) > _MOST_SKIPPED:
            raise ToolError(f"line {first} of {path} is too far from its beginning")
        is_whole = line.endswith(("\n", "\r"))
        number += is_whole
        if last is not None and number > last:
            break
    if not found and first > 1:
        raise ToolError(f"{path} has {number - is_whole} lines")
    return "".join(found)


# --- writing


def write_file(workspace: Workspace, asked: WriteFile) -> str:
    """Replace a file, or make it: whoever looks sees the old text or the new one, never a part."""
    try:
        data = asked.content.encode(asked.encoding)
    except UnicodeError as error:
        raise ToolError(f"the content cannot be written in {asked.encoding}: {error}") from None
    except (LookupError, ValueError):
        raise ToolError(f"encoding: {asked.encoding!r} is not known") from None
    with workspace.place(asked.path, create=asked.create_dirs, change=True) as place:
        status = place.status()
        if status is not None and not is_file(status):
            raise ToolError(f"{asked.path} is {_kind(status)}, not a file")
        if status is not None and asked.backup:
            with _opened(place, asked.path) as old:
                _replace(place._replace(name=f"{place.name}.bak"), old, status)
        _replace(place, io.BytesIO(data), status)
        lines = asked.content.count("\n") + (not asked.content.endswith("\n") and bool(asked.content))
        verb = "wrote" if status is None else "replaced"
        return f"{verb} {place.path}: {lines} lines, {len(data)} bytes"


def _replace(place: Place, content: IO[bytes], before: os.stat_result | None) -> None:
    """Write beside it, and put that in its place."""
    temporary = f".parley-{secrets.token_hex(8)}"
    with os.fdopen(os.open(temporary, _NEW, 0o666, dir_fd=place.folder), "wb") as file:
        try:
            if before is not None:
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            shutil.copyfileobj(content, file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=place.folder)
            raise


def create_directory(workspace: Workspace, asked: CreateDirectory) -> str:
    """Make a folder, with those above it where that is asked for."""
    with workspace.place(asked.path, create=asked.recursive, change=True) as place:
        status = place.status()
        if status is not None:
            if not stat.S_ISDIR(status.st_mode):
                raise ToolError(f"{asked.path} is there already: {_kind(status)}")
            return f"{place.path} is there already"
        os.mkdir(place.name, dir_fd=place.folder)
        return f"created {place.path}"


def delete_file(workspace: Workspace, asked: DeleteFile) -> str:
    """Delete a file; of a link, the link."""
    with workspace.place(asked.path, follow=False, change=True) as place:
        status = place.status()
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise ToolError(f"{asked.path} is a folder; only files are deleted")
        os.unlink(place.name, dir_fd=place.folder)
        return f"deleted {place.path}"


def move_file(workspace: Workspace, asked: MoveFile) -> str:
    """Move or rename a file; of a link, the link."""
    with (
        workspace.place(asked.source, follow=False, change=True) as source,
        workspace.place(asked.destination, follow=False, change=True) as destination,
    ):
        moved, there = source.status(), destination.status()
        if moved is None:
            raise ToolError(f"{asked.source}: there is no such file")
        if source.name == "." or stat.S_ISDIR(moved.st_mode):
            raise ToolError(f"{asked.source} is a folder; only files are moved")
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise ToolError(f"{asked.destination} is a folder; name the file in it")
        if there is not None and not asked.overwrite:
            raise ToolError(f"{asked.destination} is there already; to replace it, set overwrite")
        os.replace(source.name, destination.name, src_dir_fd=source.folder, dst_dir_fd=destination.folder)
        return f"moved {source.path} to {destination.path}"


# --- listing


def list_files(workspace: Workspace, asked: ListFiles) -> dict[str, Any]:
    """Paths of a folder, from the workspace; folders end in a slash."""
    found: list[str] = []
    with workspace.place(asked.path) as place:
        listing = _Listing(asked, found)
        listing.folder(place.open_folder(), "" if place.path == "." else f"{place.path}/", 0)
    return {"entries": found, "truncated": True} if listing.truncated else {"entries": found}


class _Listing:
    def __init__(self, asked: ListFiles, found: list[str]) -> None:
        self.truncated = False
        self._full = False
        self._asked = asked
        self._found = found
        self._visited = 0

    def folder(self, folder: int, prefix: str, depth: int) -> None:
        """List an open folder, and close it."""
        try:
            with os.scandir(folder) as entries:
                listed = sorted(islice(entries, _MOST_VISITED), key=lambda entry: entry.name)
            for entry in listed:
                self._visited += 1
                if len(self._found) >= _MOST_LISTED or self._visited > _MOST_VISITED:
                    self.truncated = self._full = True
                if self._full:
                    return
                self._entry(folder, entry, prefix, depth)
        finally:
            os.close(folder)

    def _entry(self, folder: int, entry: os.DirEntry[str], prefix: str, depth: int) -> None:
        if entry.name.startswith(".") and not self._asked.include_hidden:
            return
        is_folder = entry.is_dir(follow_symlinks=False)
        # Names are bytes; those that are no text are shown with a mark in them.
        path = f"{prefix}{entry.name}".encode("utf-8", "replace").decode()
        if self._asked.pattern is None or fnmatchcase(entry.name, self._asked.pattern):
            self._found.append(f"{path}/" if is_folder else path)
        if is_folder and self._asked.recursive:
            if depth >= _DEEPEST:
                self.truncated = True
                return
            with suppress(OSError):  # one that may not be read, or is gone by now
                below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                self.folder(below, f"{prefix}{entry.name}/", depth + 1)


def _kind(status: os.stat_result) -> str:
    match stat.S_IFMT(status.st_mode):
        case stat.S_IFDIR:
            return "a folder"
        case stat.S_IFLNK:
            return "a link"
        case stat.S_IFREG:
            return "a file"
        case _:
            return "a device, a pipe or a socket"
