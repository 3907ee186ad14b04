"""Ids and times as text: how they are made from given numbers, and how they are read.

Nothing here asks a clock or rolls dice; callers bring the milliseconds and the random bits.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from protocol.errors import ErrorCode, ParleyError

__all__ = ["ID_PATTERN", "ID_RULE", "RANDOM_BITS", "format_timestamp", "parse_alias", "parse_timestamp", "uuid7"]

#: What clients may call things: aliases of sessions, command ids, client ids. The look-ahead is for Python, whose `$`
#: also matches before a final newline; in the regular expressions of JSON Schema it never fails.
ID_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$(?!\n)"

#: The same rule in words.
ID_RULE: Final = "1-128 characters out of A-Z a-z 0-9 . _ : -"

#: How many random bits a version 7 UUID holds: 12 (rand_a) and 62 (rand_b).
RANDOM_BITS: Final = 74

_ID: Final = re.compile(ID_PATTERN)
_TIMESTAMP: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def uuid7(unix_ms: int, random_bits: int) -> UUID:
    """A version 7 UUID (RFC 9562, section 5.7) from milliseconds since 1970 and 74 random bits.

    Ids of one millisecond sort by `random_bits`, so a caller that counts them up has ids in order.
    Raises ValueError when a number does not fit its field.
    """
    if not 0 <= unix_ms < 1 << 48:
        raise ValueError(f"unix_ms must fit 48 bits, got {unix_ms}")
    if not 0 <= random_bits < 1 << RANDOM_BITS:
        raise ValueError(f"random_bits must fit {RANDOM_BITS} bits, got {random_bits}")
    rand_a, rand_b = divmod(random_bits, 1 << 62)
    return UUID(int=unix_ms << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b)


def parse_alias(text: str) -> str:
    """A caller's own id, unchanged; raises ParleyError(INVALID) unless it has 1-128 of `A-Z a-z 0-9 . _ : -`."""
    if _ID.search(text) is None:
        raise ParleyError(ErrorCode.INVALID, f"an id has {ID_RULE}")
    return text


def format_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds and `Z`; finer digits are cut off. Raises ValueError for a naive datetime."""
    if moment.tzinfo is None:
        raise ValueError("a timestamp needs a time zone")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def parse_timestamp(text: str) -> datetime:
    """The moment an RFC 3339 text names, in UTC; raises ParleyError(INVALID) for anything else."""
    try:
        if _TIMESTAMP.fullmatch(text) is None:
            raise ValueError(text)
        # fromisoformat() knows the letters T and Z only in upper case.
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ParleyError(ErrorCode.INVALID, "a time is an RFC 3339 timestamp with a time zone") from error
