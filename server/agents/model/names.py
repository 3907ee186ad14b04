"""Names and ids that model endpoints accept: names of 1 to 64 out of ``A-Z a-z 0-9 _ -``, ids of 9 without the last."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

__all__ = ["ToolNames", "plain_id", "plain_name"]

_LONGEST: Final = 64
_LONGEST_INVENTED: Final = 256
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_-]")
_DIGITS: Final = string.digits + string.ascii_letters
_ID_LENGTH: Final = 9


def plain_name(name: str) -> str:
    """The name with every other character as ``_``, cut to length; an empty one is ``_``."""
    return _STRANGE.sub("_", name)[:_LONGEST] or "_"


def plain_id(call_id: str) -> str:
    """Nine letters and digits that stand for a call's id, always the same: Mistral's models take no others.

    Of a thousand calls in one conversation two get the same once in 10^10 conversations.
    """
    number = int.from_bytes(sha256(call_id.encode()).digest())
    made = ""
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        made += _DIGITS[digit]
    return made


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
