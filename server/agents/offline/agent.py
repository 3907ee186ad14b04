"""Running one step of the offline agent: decide once, then stream the decision."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from uuid import uuid5

from server.agents.config import OfflineConfig
from server.agents.interface import (
    ALL_TOOLS,
    AgentContext,
    AgentDefinition,
    AgentOutput,
    Finish,
    Reasoning,
    Text,
    ToolCallDelta,
    UsageReport,
)
from server.agents.offline.intents import decide
from server.agents.offline.scene import OFFLINE_TYPE, Call, Reply, Scene
from server.agents.offline.tokens import Pacer, tokens

__all__ = ["OFFLINE", "OfflineAgent"]

OFFLINE = AgentDefinition(
    type=OFFLINE_TYPE,
    name="Offline",
    description="Needs no model: answers by fixed rules, so that every feature of the server can be tried.",
    allowed_tools=(ALL_TOOLS,),
    extra_tools=True,
    handoffs=("orchestrator", "coder", "architect", "debug", "ask", "universal"),
    delegates=("orchestrator", "coder", "architect", "debug", "ask", "universal"),
)
"""The offline agent under its own name; under another definition it stands in for that agent."""

_CHARACTERS_A_TOKEN = 4


class OfflineAgent:
    """An agent by fixed rules. The same history and attempt always give the same step, call ids included."""

    def __init__(self, definition: AgentDefinition = OFFLINE, config: OfflineConfig | None = None) -> None:
        self.definition = definition
        self._config = config or OfflineConfig()

    async def run(self, context: AgentContext) -> AsyncIterator[AgentOutput]:
        """Run one step; raises ``AgentError`` when the user asked for a failure."""
        reply = decide(Scene(context, self._config.hint))
        speed = self._config.speed if reply.speed is None else reply.speed
        pacer = Pacer(speed, context.sleep, context.now)
        released = 0
        for delta in _deltas(reply, context):
            await pacer.wait()
            released += 1
            yield delta
        if reply.error is not None:
            raise reply.error
        yield UsageReport(prompt_tokens=_prompt_tokens(context), completion_tokens=released)
        yield Finish("tool_calls" if reply.calls else reply.finish)


def _deltas(reply: Reply, context: AgentContext) -> Iterator[AgentOutput]:
    yield from map(Reasoning, tokens(reply.reasoning))
    parts: Iterable[str] = (reply.text,) if isinstance(reply.text, str) else reply.text
    for part in parts:
        yield from map(Text, tokens(part))
    for index, call in enumerate(reply.calls):
        yield from _call_deltas(index, call, context)


def _call_deltas(index: int, call: Call, context: AgentContext) -> Iterator[ToolCallDelta]:
    # Made from the message, so that a step that is run again asks for the same calls.
    call_id = f"call_{uuid5(context.message_id, str(index)).hex}"
    yield ToolCallDelta(index, call_id, call.name)
    for piece in tokens(call.arguments):
        yield ToolCallDelta(index, arguments=piece)


def _prompt_tokens(context: AgentContext) -> int:
    """About what a model would have read; an estimate, so that usage can be tried too."""
    characters = len(context.agent.prompt)
    for message in context.history:
        characters += len(message.content) + sum(len(call.arguments) for call in message.tool_calls)
    return -(-characters // _CHARACTERS_A_TOKEN)
