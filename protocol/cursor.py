"""A place in a session's log: `<epoch>.<seq>`.

Opaque to clients. `seq` counts the session's durable events from 1 without a gap; `epoch` changes when a backup was
restored, so that a number from the lost future is not taken for one of the present.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from protocol.errors import ErrorCode, ParleyError

__all__ = ["MAX_SEQ", "Cursor", "parse_cursor"]

#: The largest sequence number that PostgreSQL's bigint keeps.
MAX_SEQ: Final = 2**63 - 1

_CURSOR: Final = re.compile(r"(?:([A-Za-z0-9_-]{1,64})\.)?([0-9]{1,19})")


class Cursor(NamedTuple):
    """The last event that was seen: an epoch (`[A-Za-z0-9_-]{1,64}`) and a number; `str()` is the wire form."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"


def parse_cursor(text: str) -> Cursor | int:
    """Read `<epoch>.<seq>`, or a bare `<seq>` of whatever epoch (`0`: from the start), as an int.

    Raises ParleyError(INVALID) for anything else.
    """
    match = _CURSOR.fullmatch(text)
    if match is None or (seq := int(match[2])) > MAX_SEQ:
        raise ParleyError(ErrorCode.INVALID, "a cursor is <epoch>.<seq> as an event carried it, or a bare number")
    epoch: str | None = match[1]
    return seq if epoch is None else Cursor(epoch, seq)
