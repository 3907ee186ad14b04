"""Text from elsewhere, made fit for a terminal; and small words about amounts and times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["MARK", "arguments_of", "one_line", "plain", "short_id", "shorten"]

#: What stands before what people say.
MARK: Final = "> "

#: What could move the cursor, change the title, fill the clipboard, reverse the reading order or hide text: the C0 and
#: C1 controls and DEL; bidirectional overrides and isolates; invisible operators and tags; surrogates; noncharacters.
#: Joiners and variation selectors stay, as emoji and several scripts are made with them.
_HARMFUL: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e0fff]"
)
#: Everything else that begins a new line somewhere.
_BREAKS: Final = re.compile("\r\n?|[\x85\u2028\u2029]")


def plain(text: str) -> str:
    """The text without anything that could rewrite the terminal; line breaks (all as line feeds) and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _HARMFUL.sub("", _BREAKS.sub("\n", text))


def one_line(text: str, limit: int | None = None) -> str:
    """The text on one line, white space made single spaces, cut after `limit` characters with an ellipsis."""
    line = " ".join(plain(text).split())
    return line if limit is None else shorten(line, limit)


def shorten(text: str, limit: int) -> str:
    """The text, cut after `limit` characters with an ellipsis."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def short_id(identity: object) -> str:
    """The end of an id: version 7 UUIDs of one hour begin alike."""
    text = plain(str(identity))
    return text if len(text) <= 8 else f"…{text[-7:]}"


def arguments_of(arguments: Any, limit: int = 60) -> str:
    """A call's arguments as one would write them by hand, shortened: `path="a.py", line=3`."""
    if not isinstance(arguments, Mapping):
        return "" if arguments is None else one_line(_value(arguments, limit), limit)
    return one_line(", ".join(f"{name}={_value(value, limit)}" for name, value in arguments.items()), limit)


def _value(value: Any, limit: int) -> str:
    import json

    # No more than can be shown is encoded: a file's content may be among them.
    return json.dumps(value[:limit] if isinstance(value, str) else value, ensure_ascii=False)
