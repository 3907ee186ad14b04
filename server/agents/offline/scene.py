"""What the offline agent looks at, and what it decides to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal

from msgspec import Struct

from server.agents.interface import AgentContext, AgentError, HistoryMessage, ToolSpec

__all__ = ["OFFLINE_TYPE", "Call", "Reply", "Scene", "plainly"]

OFFLINE_TYPE = "offline"

_POLITE = re.compile(r"(?:(?:please|now|(?:could|can|would)\s+you)\s+)+", re.IGNORECASE)


class Call(Struct, frozen=True):
    """A tool call that the agent wants to make; ``arguments`` is JSON text."""

    name: str
    arguments: str


class Reply(Struct, frozen=True, kw_only=True):
    """One step of the agent: what it thinks, says and calls, in this order; an ``error`` ends the step.

    ``speed`` (tokens a second) replaces the configured one.
    """

    text: str | Iterable[str] = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    speed: float | None = None
    finish: Literal["stop", "length"] = "stop"
    error: AgentError | None = None


class Scene:
    """The session as the agent finds it, split at the user's last message."""

    def __init__(self, context: AgentContext, hint: str) -> None:
        self.context = context
        self.hint = hint
        history = context.history
        last = max((index for index, message in enumerate(history) if message.role == "user"), default=len(history))
        self.request = history[last].content.strip() if last < len(history) else ""
        self.before: Sequence[HistoryMessage] = history[:last]
        self.since: Sequence[HistoryMessage] = history[last + 1 :]

    @cached_property
    def tools(self) -> dict[str, ToolSpec]:
        """The tools that may be called, by name."""
        return {spec.name: spec for spec in self.context.tools}

    @property
    def introduction(self) -> str:
        """Who is speaking, and for whom."""
        if self.context.agent.type == OFFLINE_TYPE:
            return "I am Parley's offline agent: no model is configured, so these answers come from fixed rules."
        return (
            f"I am the {self.context.agent.type} agent; no model is configured, so Parley's offline agent stands in "
            "for me and answers by fixed rules."
        )

    @property
    def steps_done(self) -> int:
        """How many rounds of tool calls have been made since the user's last message."""
        return sum(bool(message.tool_calls) for message in self.since)


def plainly(request: str) -> str:
    """The request without white space around it and without words of politeness before it."""
    text = request.strip()
    polite = _POLITE.match(text)
    return text[polite.end() :] if polite else text
