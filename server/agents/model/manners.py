"""How an endpoint wants to be asked, where that is not OpenAI's way; its refusals tell."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

__all__ = ["Manners", "learn"]


class Manners(Struct, frozen=True):
    """``usage``: it can report tokens at the end of a stream. ``max_tokens``: its name for the limit of an answer.

    ``reasoning``: the field in which it wants to read its earlier thoughts, if it does. ``closing``: results of tools
    must be followed by an answer, even where the user stopped it.
    """

    usage: bool = True
    max_tokens: str = "max_tokens"
    reasoning: str | None = None
    closing: bool = False


_NEWER_LIMIT: Final = "max_completion_tokens"
_LATER_FIELD: Final = "reasoning_content"
_CLOSING: Final = re.compile(r"role \W?user\W? after role \W?tool", re.IGNORECASE)
_NO_USAGE: Final = re.compile(
    r"stream_options|include_usage|extra (?:inputs|fields)|un(?:known|recognized)", re.IGNORECASE
)


def learn(manners: Manners, said: str) -> Manners | None:
    """The manners that a refusal asks for in its own words; None when it asks for nothing that can be changed.

    What they are is certain only once a request is accepted that keeps them: the words for an unknown parameter are
    the same for all of them.
    """
    if _LATER_FIELD in said and manners.reasoning is None:
        return replace(manners, reasoning=_LATER_FIELD)
    if _NEWER_LIMIT in said and manners.max_tokens != _NEWER_LIMIT:
        return replace(manners, max_tokens=_NEWER_LIMIT)
    if _CLOSING.search(said) and not manners.closing:
        return replace(manners, closing=True)
    if _NO_USAGE.search(said) and manners.usage:
        return replace(manners, usage=False)
    return None
