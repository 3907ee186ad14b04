"""What can go wrong with the embedded PostgreSQL, told to the person who can mend it."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be started or kept running.

    The message names the path or process concerned and what to do; it is meant to be shown to the operator as it is.
    """


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an `OSError` inside the block into an `EmbeddedError` that names `path` and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            text = f"The disk that holds {path} is full: free some space, or choose another data directory."
        elif error.errno in _REFUSED:
            text = (
                f"{path} is closed to this user ({error.strerror}): mend its owner, or choose another data directory."
            )
        else:
            text = f"{path} cannot be used: {error.strerror or error}."
        raise EmbeddedError(text) from error
