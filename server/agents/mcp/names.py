"""What the tools of a server are called here: ``NAME__tool``, of characters and a length that every model takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

__all__ = ["tool_names"]

_LONGEST: Final = 64
_MARK: Final = 8
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")


def tool_names(server: str, theirs: Iterable[str]) -> dict[str, str]:
    """Our name for each of theirs.

    Policies name tools, so a name must not hang on which others there are: one that has to be changed gets a mark made
    of itself.
    """
    return {name: _name(server, name) for name in theirs}


def _name(server: str, theirs: str) -> str:
    name = f"{server}__{_STRANGE.sub('_', theirs)}"
    if len(name) <= _LONGEST and name == f"{server}__{theirs}":
        return name
    mark = sha256(theirs.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK]
    return f"{name[: _LONGEST - _MARK - 1]}_{mark}"
