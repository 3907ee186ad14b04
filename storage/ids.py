"""Ids that this process makes: version 7 UUIDs that sort in the order in which they were made."""

from __future__ import annotations

import secrets
import time
from typing import Final
from uuid import UUID

from protocol.ids import RANDOM_BITS, uuid7

__all__ = ["IdSource", "new_epoch", "new_id"]

#: How far the random part moves on at most within one millisecond: unguessable, and never used up.
_STRIDE_BITS: Final = 32


class IdSource:
    """Makes version 7 UUIDs, each greater than the one before (RFC 9562, section 6.2, method 2).

    Within one millisecond, or while the clock goes backwards, the random part is counted up by a random stride.
    """

    def __init__(self) -> None:
        self._ms = 0
        self._random = 0

    def __call__(self) -> UUID:
        """The next id."""
        now = time.time_ns() // 1_000_000
        if now > self._ms:
            self._ms = now
            # The highest bit is left for counting up.
            self._random = secrets.randbits(RANDOM_BITS - 1)
        else:
            self._random += 1 + secrets.randbits(_STRIDE_BITS)
            if self._random >> RANDOM_BITS:
                self._ms += 1
                self._random = secrets.randbits(RANDOM_BITS - 1)
        return uuid7(self._ms, self._random)


#: The process's own source.
new_id: Final = IdSource()


def new_epoch() -> str:
    """A session's epoch: eight characters that no other restored copy of it will have made up."""
    return secrets.token_hex(4)
