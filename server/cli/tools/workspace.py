"""One folder, and nothing outside of it: every path that a tool is given is walked here, step by step.

Each step opens the next folder beside the one that is open (`openat` with `O_NOFOLLOW`), links are read and walked like
any other path, and `..` goes back to the folder that we came from. So a path means the same when it is checked and when
it is used, whatever somebody renames or links meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from protocol.tools import ToolError

__all__ = ["Place", "Workspace", "in_words", "is_file"]

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: As Linux has it, path_resolution(7).
_MOST_LINKS: Final = 40
_MOST_STEPS: Final = 4096
#: What runs by itself when git does: a tool that may write files is not to write there.
_GUARDED: Final = ".git"


class Place(NamedTuple):
    """Something in the workspace, there or not: `name` in the folder that is open as `folder`.

    `path` is where it really is, from the workspace. The workspace itself is `.` in itself.
    """

    folder: int
    name: str
    path: str

    def status(self) -> os.stat_result | None:
        """What it is, a link being a link; None if there is nothing."""
        try:
            return os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def open_folder(self) -> int:
        """It as a folder. Raises OSError."""
        return os.open(self.name, _FOLDER, dir_fd=self.folder)


class Workspace:
    """The folder. Raises OSError if it cannot be opened. Its methods raise ToolError, in words for a model."""

    def __init__(self, folder: Path | str) -> None:
        #: Its real path.
        self.root = Path(folder).expanduser().resolve(strict=True)
        self._folder = os.open(self.root, _FOLDER)

    def close(self) -> None:
        """Let go of it. May be called again."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    @contextmanager
    def place(self, path: str, *, follow: bool = True, create: bool = False, change: bool = False) -> Iterator[Place]:
        """Where a path leads. OSErrors in the block are told in words.

        `follow` says whether a link at its end is walked, `create` whether folders above it are made where they are
        missing, `change` that something is to be changed there.
        """
        walk = _Walk(self._folder, self.root, change=change)
        try:
            walk.go(self._parts(path), follow=follow, create=create)
            yield walk.place()
        except OSError as error:
            raise ToolError(f"{path}: {in_words(error)}") from None
        except ValueError as error:
            # A NUL, or what no file's name can hold.
            raise ToolError(f"{path!r} is no path: {error}") from None
        finally:
            walk.close()

    def folder_path(self, path: str) -> Path:
        """The real path of a folder, for those who can be told no other way, as programs that are started there."""
        with self.place(path) as place:
            os.close(place.open_folder())
            return self.root / place.path

    def _parts(self, path: str) -> list[str]:
        if path.startswith("/"):
            # Models like whole paths; those of the workspace are as good as any.
            try:
                return list(Path(path).relative_to(self.root).parts)
            except ValueError:
                raise ToolError(
                    f"{path}: outside of the workspace; name paths from its root, such as src/a.py"
                ) from None
        return path.split("/")


class _Walk:
    """The folders from the workspace to where we are, open."""

    def __init__(self, root: int, path: Path, *, change: bool) -> None:
        self._folders = [os.dup(root)]
        self._names: list[str] = []
        self._root = path
        self._change = change
        self._last = "."

    def close(self) -> None:
        while self._folders:
            os.close(self._folders.pop())

    def place(self) -> Place:
        names = self._names if self._last == "." else [*self._names, self._last]
        return Place(self._folders[-1], self._last, "/".join(names) or ".")

    def go(self, parts: list[str], *, follow: bool, create: bool) -> None:
        left, links, steps = deque(parts), 0, 0
        while left:
            steps += 1
            if steps > _MOST_STEPS:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            part = left.popleft()
            if part in {"", "."}:
                continue
            if part == "..":
                self._up()
                continue
            if self._change and part.lower() == _GUARDED:
                raise ToolError(f"nothing in {_GUARDED} may be changed; use the command git")
            target = self._link(part) if follow or any(one not in {"", "."} for one in left) else None
            if target is not None:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                left.extendleft(reversed(self._inside(target)))
            elif any(one not in {"", "."} for one in left):
                self._down(part, create=create)
            else:
                self._last = part
                return
        self._last = "."

    def _up(self) -> None:
        if not self._names:
            raise ToolError("the path leads out of the workspace")
        os.close(self._folders.pop())
        self._names.pop()

    def _down(self, name: str, *, create: bool) -> None:
        if create:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self._folders[-1])
        # Should it have become a link by now, it is not followed.
        self._folders.append(os.open(name, _FOLDER, dir_fd=self._folders[-1]))
        self._names.append(name)

    def _link(self, name: str) -> str | None:
        """Where a link leads; None for what is none."""
        try:
            return os.readlink(name, dir_fd=self._folders[-1])
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                return None
            raise

    def _inside(self, target: str) -> list[str]:
        """The steps of a link, from the folder that it lies in."""
        if not target.startswith("/"):
            return target.split("/")
        try:
            inside = Path(target).relative_to(self._root).parts
        except ValueError:
            raise ToolError("a link leads out of the workspace") from None
        return [*[".."] * len(self._names), *inside]


def in_words(error: OSError) -> str:
    """What a failure of the system means to a model."""
    match error.errno:
        case errno.ENOENT:
            return "there is no such file or folder"
        case errno.ENOTDIR:
            return "what should be a folder on the way is none"
        case errno.ELOOP:
            return "links lead in a circle"
        case _:
            return (error.strerror or str(error)).lower()


def is_file(status: os.stat_result | None) -> bool:
    """Whether this is a plain file: no folder, link, device, pipe or socket."""
    return status is not None and stat.S_ISREG(status.st_mode)
