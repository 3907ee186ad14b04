"""Pauses between tries."""

from __future__ import annotations

import random

__all__ = ["Backoff"]


class Backoff:
    """Pauses in seconds, with full jitter: any time up to a limit that doubles, by default from 0.5 to 20."""

    def __init__(self, shortest: float = 0.5, longest: float = 20.0) -> None:
        self._shortest = shortest
        self._longest = longest
        self._tries = 0

    def next(self, at_least: float | None = None) -> float:
        """The next pause; the server's advice is kept, and jitter added to it."""
        limit = min(self._longest, self._shortest * 2 ** min(self._tries, 16))
        self._tries += 1
        return (at_least or 0.0) + random.uniform(0, limit)  # noqa: S311 - no secret is made of it

    def reset(self) -> None:
        """Begin anew: it worked."""
        self._tries = 0
