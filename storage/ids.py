"""Ids that this process makes: version 7 UUIDs that sort in the order in which they were made."""

from __future__ import annotations

import os
import secrets
import time
from typing import Final
from uuid import UUID

from protocol.ids import RANDOM_BITS, uuid7

__all__ = ["IdSource", "as_uuid", "new_epoch", "new_id"]

#: How far the random part moves on at most within one millisecond: unguessable, and never used up.
_STRIDE_BITS: Final = 32
#: The highest bit is left for counting up.
_FIRST_BITS: Final = RANDOM_BITS - 1
#: How many random bytes are asked for at once.
_DICE: Final = 2048


class IdSource:
    """Makes version 7 UUIDs, each greater than the one before (RFC 9562, section 6.2, method 2).

    Within one millisecond, or while the clock goes backwards, the random part is counted up by a random stride.
    """

    def __init__(self) -> None:
        self._ms = 0
        self._random = 0
        self._dice = b""
        self._thrown = 0

    def __call__(self) -> UUID:
        """The next id."""
        now = time.time_ns() // 1_000_000
        if now > self._ms:
            self._ms = now
            self._random = self._bits(_FIRST_BITS)
        else:
            self._random += 1 + self._bits(_STRIDE_BITS)
            if self._random >> RANDOM_BITS:
                self._ms += 1
                self._random = self._bits(_FIRST_BITS)
        return uuid7(self._ms, self._random)

    def _bits(self, count: int) -> int:
        """Random bits of the system, each used once; asked for in advance, as asking costs more than an id."""
        size = -(-count // 8)
        begin, self._thrown = self._thrown, self._thrown + size
        if self._thrown > len(self._dice):
            self._dice = os.urandom(_DICE)
            begin, self._thrown = 0, size
        return int.from_bytes(self._dice[begin : self._thrown], "big") >> (8 * size - count)

    def forget(self) -> None:
        """Throw the dice anew: in the child of a fork, whose ids must not be its parent's."""
        self._dice = b""


#: The process's own source.
new_id: Final = IdSource()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=new_id.forget)


def new_epoch() -> str:
    """A session's epoch: eight characters that no other restored copy of it will have made up."""
    return secrets.token_hex(4)


def as_uuid(text: str) -> UUID | None:
    """The UUID that a text is in its usual spelling, in upper or lower case; None for any other text."""
    # UUID() also takes braces, `urn:uuid:` and text without hyphens; a path has one spelling only.
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if str(found) == text.lower() else None
