"""An agent for the headline test: it asks to write a file, and says what came of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator

from parley import AgentContext, AgentYield, ToolCallDelta, agent


@agent("writer", name="Writer", tools=["write_file"])
async def writer(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Write what the user says into draft.txt, then say what came of it."""
    if context.history[-1].role == "tool":
        yield f"Done: {context.history[-1].content}"
        return
    yield "I shall write that."
    arguments = json.dumps({"path": "draft.txt", "content": context.history[-1].content})
    for start in range(0, len(arguments), 7):
        yield ToolCallDelta(0, name="write_file", arguments=arguments[start : start + 7])
