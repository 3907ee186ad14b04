"""What somebody may have meant by a name that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["closest"]

#: As `difflib` measures it; two letters exchanged in a word of four are 0.75.
_ALIKE = 0.7


def closest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of the known names, if one is similar enough to be meant."""
    by_plain = {each.lower().replace("-", "_"): each for each in known}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), by_plain, n=1, cutoff=_ALIKE)
    return by_plain[found[0]] if found else None
