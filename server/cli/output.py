"""Standard output that may go away, or be full."""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

__all__ = ["OutputError", "abandon", "note", "put"]

#: Whoever read us has had enough (`| head`), or the terminal is gone.
_NOBODY_READS: Final = frozenset({errno.EPIPE, errno.EIO})


class OutputError(Exception):
    """Standard output takes no more; `quietly` says that nobody is there who could miss it."""

    def __init__(self, error: OSError | None) -> None:
        reason = "it is closed" if error is None else error.strerror or str(error)
        super().__init__(f"standard output cannot be written: {reason}")
        self.quietly = error is not None and error.errno in _NOBODY_READS


def put(text: str) -> None:
    """Write to standard output, at once. Raises OutputError."""
    if sys.stdout is None:
        if text:
            raise OutputError(None)
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        put(text.encode(encoding, "replace").decode(encoding))
    except OSError as error:
        raise OutputError(error) from error


def note(text: str) -> None:
    """Write a line for people to standard error. That it cannot be written is no failure: nobody reads it."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, UnicodeEncodeError):
        abandon(sys.stderr)


def abandon(stream: object) -> None:
    """Let what is still buffered go nowhere: the interpreter writes it once more as it ends, and must not fail."""
    try:
        descriptor = stream.fileno()  # type: ignore[attr-defined] # whatever takes the place of a standard stream
    except (AttributeError, OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
