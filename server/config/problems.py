"""What is wrong with a configuration: the key, the reason, and where it was set."""

from __future__ import annotations

from msgspec import Struct

from server.config.sources import Source

__all__ = ["ConfigError", "Problem"]


class Problem(Struct, frozen=True):
    """One mistake. `key` is dotted; for what is wrong with a file as a whole, it is the file."""

    key: str
    reason: str
    source: Source | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" + ("" if self.source is None else f" (from {self.source})")


class ConfigError(Exception):
    """The configuration cannot be used; the text has a line for each mistake: which key, why, and where it was set."""

    def __init__(self, *problems: Problem | str) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
