"""When a request is repeated: exponential backoff with full jitter, or when the endpoint wants it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["LONGEST_WAIT", "pause", "read_retry_after"]

LONGEST_WAIT: Final = 60.0
"""Seconds; who wants to be left alone for longer is not asked again by itself, and people are told when to try."""

_FIRST: Final = 0.5
_LONGEST_BACKOFF: Final = 8.0


def pause(failures: int, retry_after: float | None = None, jitter: Callable[[], float] = random.random) -> float | None:
    """Seconds to wait after that many failures (from 1); None when the endpoint asks for more than is bearable.

    Without ``retry_after`` it is anything from 0 to 0.5 s, doubled with each failure up to 8 s, so that clients which
    failed together do not come back together; with it, at least that long. ``jitter`` gives numbers from 0 to 1.
    """
    if retry_after is not None:
        return None if retry_after > LONGEST_WAIT else retry_after + _FIRST * jitter()
    return float(min(_LONGEST_BACKOFF, _FIRST * 2 ** (failures - 1)) * jitter())


def read_retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that ``Retry-After`` names, as a number or as a date (RFC 9110, section 10.2.3); None if it does not.

    OpenAI's ``retry-after-ms`` is more exact.
    """
    if (exact := _number(headers.get("retry-after-ms", ""))) is not None:
        return exact / 1000
    text = headers.get("Retry-After", "").strip()
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    # A date without a zone means UTC (RFC 5322, section 3.3).
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def _number(text: str) -> float | None:
    whole, _, part = text.strip().partition(".")
    digits = whole + part
    return float(text) if digits.isascii() and digits.isdigit() and whole and len(digits) <= 12 else None
