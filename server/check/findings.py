"""What a check finds: how bad, what, and what to do about it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

__all__ = ["Finding", "Level", "error", "note", "ok", "warning"]

#: `note` is worth knowing; `warning` works, and may go wrong one day; `error` does not work.
Level: TypeAlias = Literal["ok", "note", "warning", "error"]


class Finding(Struct, frozen=True):
    """One thing that was found. Neither text holds a secret; `advice` is empty where there is nothing to do."""

    level: Level
    what: str
    advice: str = ""

    @property
    def plain(self) -> Finding:
        """The same in one line each, of characters that every encoding and every terminal takes well."""
        return Finding(self.level, _plain(self.what), _plain(self.advice))


def _plain(text: str) -> str:
    # Names of files and variables may be bytes that are no text, or hold what steers a terminal.
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else " " for char in text)


def ok(what: str) -> Finding:
    """All is well."""
    return Finding("ok", what)


def note(what: str, advice: str = "") -> Finding:
    """Worth knowing."""
    return Finding("note", what, advice)


def warning(what: str, advice: str) -> Finding:
    """It works, and may go wrong one day."""
    return Finding("warning", what, advice)


def error(what: str, advice: str) -> Finding:
    """It does not work."""
    return Finding("error", what, advice)
