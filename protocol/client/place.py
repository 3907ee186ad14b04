"""Where a client stands in a session's log: each durable event once and in order, and no hole unnoticed."""

from __future__ import annotations

from typing import Literal, TypeAlias

from protocol.cursor import Cursor, parse_cursor

__all__ = ["Place", "Standing"]

Standing: TypeAlias = Literal["next", "repeated", "gap"]


class Place:
    """A position in the log.

    To applications a cursor is opaque. The client compares the numbers in it, as that is how it knows that nothing
    was lost. Raises ParleyError for what is no cursor.
    """

    def __init__(self, after: str | None = None) -> None:
        self._epoch: str | None = None
        self._seq: int | None = None
        if after is not None:
            self._epoch, self._seq = _parsed(after)

    @property
    def cursor(self) -> str | None:
        """What to ask for with `after=`; None before anything is known."""
        if self._seq is None:
            return None
        return str(self._seq) if self._epoch is None else str(Cursor(self._epoch, self._seq))

    def begin(self, cursor: str) -> None:
        """Take the cursor at which a connection begins, which tells what is not known yet."""
        epoch, seq = _parsed(cursor)
        if self._seq is None:
            self._seq = seq
        if self._epoch is None:
            self._epoch = epoch

    def move(self, cursor: str) -> None:
        """Stand somewhere else: the server cannot go on from here."""
        self._epoch, self._seq = _parsed(cursor)

    def take(self, cursor: str) -> Standing:
        """Move on to a durable event, if it is the next one."""
        epoch, seq = _parsed(cursor)
        if self._epoch is not None and epoch is not None and epoch != self._epoch:
            return "gap"
        if self._seq is not None and seq <= self._seq:
            return "repeated"
        if self._seq is not None and seq > self._seq + 1:
            return "gap"
        self._epoch, self._seq = epoch or self._epoch, seq
        return "next"

    def reaches(self, cursor: str) -> bool:
        """Whether everything up to there was seen; a hole at the very end of a replay shows nowhere else."""
        return self._seq is None or self._seq >= _parsed(cursor)[1]


def _parsed(cursor: str) -> tuple[str | None, int]:
    found = parse_cursor(cursor)
    return (None, found) if isinstance(found, int) else found
