"""Tool calls as a line each."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from rich.text import Text

from protocol.durable import ToolCall
from protocol.parts import ToolCallRequest
from server.cli.text import arguments_of, one_line

__all__ = ["Call", "call_text"]


class Call(NamedTuple):
    """What is shown of a call."""

    name: str
    arguments: Any = None
    #: How many agents stand between it and the one that was asked.
    depth: int = 0
    #: What is known of how far it is.
    progress: str = "…"

    @classmethod
    def of(cls, call: ToolCall | ToolCallRequest) -> Call:
        """A call that happened, or one as a model wrote it."""
        if isinstance(call, ToolCall):
            return cls(call.name, call.arguments)
        try:
            return cls(call.name, json.loads(call.arguments))
        except ValueError:
            return cls(call.name, call.arguments)


def call_text(call: Call, outcome: str, *, failed: bool = False) -> Text:
    """A call, and what came of it."""
    mark = ("✗ ", "red") if failed else ("▸ ", "cyan")
    arguments = f"({arguments_of(call.arguments)}) "
    style = "red" if failed else "dim"
    return Text.assemble(
        "  " * call.depth, mark, (one_line(call.name, 60), "cyan"), (arguments, "dim"), (outcome, style)
    )
