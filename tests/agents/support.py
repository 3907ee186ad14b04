"""A session on paper: contexts for agents, with a clock that only moves when somebody sleeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from msgspec import Struct

from protocol.events import ToolCallRequest
from server.agents.interface import (
    Agent,
    AgentContext,
    AgentOutput,
    HistoryMessage,
    Reasoning,
    Text,
    ToolCallDelta,
    ToolContext,
    ToolSpec,
)


class Clock:
    """Time that passes by sleeping only; remembers every sleep."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += timedelta(seconds=seconds)


class Step(Struct):
    """What an agent yielded in one step, joined."""

    outputs: list[AgentOutput]

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs if isinstance(output, Text))

    @property
    def reasoning(self) -> str:
        return "".join(output.text for output in self.outputs if isinstance(output, Reasoning))

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [(request.name, json.loads(request.arguments)) for request in self.requests]

    @property
    def requests(self) -> list[ToolCallRequest]:
        found: dict[int, list[str]] = {}
        for output in self.outputs:
            if isinstance(output, ToolCallDelta):
                call = found.setdefault(output.index, [output.call_id or "", output.name or "", ""])
                call[2] += output.arguments
        return [ToolCallRequest(call_id=call_id, name=name, arguments=text) for call_id, name, text in found.values()]


def user(content: str) -> HistoryMessage:
    return HistoryMessage(role="user", content=content)


def assistant(content: str = "", *calls: ToolCallRequest, agent_type: str = "offline") -> HistoryMessage:
    return HistoryMessage(role="assistant", content=content, tool_calls=calls, agent_type=agent_type)


def result(call: ToolCallRequest, content: str) -> HistoryMessage:
    return HistoryMessage(role="tool", content=content, call_id=call.call_id, name=call.name)


def context(
    agent: Agent,
    *history: HistoryMessage | str,
    tools: Sequence[ToolSpec] = (),
    attempt: int = 1,
    clock: Clock | None = None,
) -> AgentContext:
    """The context of a step; a plain string is a message of the user's."""
    clock = clock or Clock()
    return AgentContext(
        session_id=UUID(int=1),
        turn_id=UUID(int=2),
        message_id=UUID(int=3),
        attempt=attempt,
        step=1,
        agent=agent.definition,
        history=[user(message) if isinstance(message, str) else message for message in history],
        tools=tools,
        sleep=clock.sleep,
        now=clock.now,
    )


async def run(agent: Agent, where: AgentContext) -> Step:
    """Run one step to its end."""
    async with aclosing(cast("Any", agent.run(where))) as stream:
        return Step([output async for output in stream])


def tool_context(clock: Clock | None = None) -> ToolContext:
    return ToolContext(
        session_id=UUID(int=1), turn_id=UUID(int=2), call_id="c1", agent_type="offline", now=(clock or Clock()).now
    )
