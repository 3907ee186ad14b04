"""Names that model endpoints accept: 1 to 64 of ``A-Z a-z 0-9 _ -``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["ToolNames", "plain_name"]

_LONGEST: Final = 64
_LONGEST_INVENTED: Final = 256
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")


def plain_name(name: str) -> str:
    """The name with every other character as ``_``, cut to length; an empty one is ``_``."""
    return _STRANGE.sub("_", name)[:_LONGEST] or "_"


class ToolNames:
    """The tools of one request under names that the endpoint accepts, and back; no two get the same."""

    def __init__(self, names: Iterable[str]) -> None:
        self._theirs: dict[str, str] = {}
        self._ours: dict[str, str] = {}
        # Those that are plain already keep their name, whoever else would like to have it.
        for name in sorted(names, key=lambda name: plain_name(name) != name):
            plain, count = plain_name(name), 2
            while plain in self._ours:
                suffix = f"_{count}"
                plain, count = plain_name(name)[: _LONGEST - len(suffix)] + suffix, count + 1
            self._theirs[name], self._ours[plain] = plain, name

    def theirs(self, name: str) -> str:
        """What the endpoint reads for a tool's name, also for one that is no longer on offer."""
        return self._theirs.get(name) or plain_name(name)

    def ours(self, name: str) -> str:
        """The tool that a model calls; a name that it invented stays as it is, and is refused where it is run."""
        return self._ours.get(name, name[:_LONGEST_INVENTED])
