"""An agent on a fake endpoint, and one step of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from server.agents.interface import AgentContext, AgentDefinition, HistoryMessage, ToolSpec
from server.agents.model.agent import ModelAgent
from server.agents.model.endpoint import Endpoint
from server.agents.model.errors import ModelError
from server.agents.model.settings import ModelSettings
from tests.agents.support import Clock, Step, context, run, user
from tests.support.model_endpoint import ModelEndpoint, model_endpoint

KEY = "sk-this-is-a-secret"
CODER = AgentDefinition(type="coder", name="Coder", prompt="You write code.", allowed_tools=("*",))


class Bench:
    """A fake endpoint, an agent that is configured for it, and a clock."""

    def __init__(self, fake: ModelEndpoint, settings: ModelSettings) -> None:
        self.fake = fake
        self.endpoint = Endpoint(settings)
        self.agent = ModelAgent(CODER, self.endpoint, jitter=lambda: 0.5)
        self.clock = Clock()

    def context(self, *history: HistoryMessage, tools: Sequence[ToolSpec] = ()) -> AgentContext:
        return context(self.agent, *(history or (user("Hello"),)), tools=tools, clock=self.clock)

    async def step(self, *history: HistoryMessage, tools: Sequence[ToolSpec] = ()) -> Step:
        """Run one step to its end."""
        return await run(self.agent, self.context(*history, tools=tools))

    async def failure(self, *history: HistoryMessage) -> ModelError:
        """The error that a step ends with."""
        with pytest.raises(ModelError) as caught:
            await self.step(*history)
        error = caught.value
        assert KEY not in f"{error} {error.message} {error!r}"
        return error


@asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    """Set one up; settings are those of the `[model]` section."""
    async with model_endpoint() as fake:
        given = {"base_url": fake.url, "model": "test-model", "api_key": KEY, **settings}
        made = Bench(fake, msgspec.convert(given, ModelSettings))
        try:
            yield made
        finally:
            await made.endpoint.stop()
