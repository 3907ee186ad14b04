"""Running one step of an agent on a model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import structlog
from msgspec.structs import replace

from server.agents.interface import AgentContext, AgentDefinition, AgentOutput, UsageReport
from server.agents.model.endpoint import Answer, Endpoint
from server.agents.model.errors import ModelError
from server.agents.model.reader import AnswerReader
from server.agents.model.request import Request
from server.agents.model.retry import pause

__all__ = ["ModelAgent"]

#: Seconds for usage to follow an answer that is complete: worth a moment, and no failure.
_GRACE: Final = 5.0

_log: Final = structlog.stdlib.get_logger(__name__)


class ModelAgent:
    """An agent that is run by a model: the definition's own, or else the configuration's."""

    def __init__(
        self, definition: AgentDefinition, endpoint: Endpoint, jitter: Callable[[], float] = random.random
    ) -> None:
        """``jitter`` gives numbers from 0 to 1, by which pauses between tries differ."""
        self.definition = definition
        self._endpoint = endpoint
        self._jitter = jitter

    async def run(self, context: AgentContext) -> AsyncIterator[AgentOutput]:
        """Run one step; raises ModelError, an AgentError.

        As long as nothing of its answer was yielded, a request that fails in passing is repeated, and one that is
        refused for its form is sent in another.
        """
        request = Request(self._endpoint, self.definition.model or self._endpoint.settings.model or "", context)
        failures = 0
        while True:
            reader = AnswerReader(self._endpoint.where(request.model), request.names)
            try:
                async with aclosing(self._exchange(request.body(), reader, context)) as outputs:
                    async for output in outputs:
                        request.accepted()
                        yield output if not isinstance(output, UsageReport) else replace(output, model=request.model)
                return
            except ModelError as error:
                log = _log.bind(model=request.model, code=error.code, reason=error.message)
                if not reader.began and request.change(error):
                    log.info("model_asked_otherwise")
                    continue
                failures += 1
                wait = None if reader.began else self._wait(error, failures)
                if wait is None:
                    log.warning("model_failed", tries=failures)
                    raise
                log.warning("model_retry", wait=round(wait, 3))
            await context.sleep(wait)

    def _wait(self, error: ModelError, failures: int) -> float | None:
        """Seconds until the request is worth repeating; None if it is not."""
        if not error.again or failures > self._endpoint.settings.max_retries:
            return None
        return pause(failures, error.retry_after, self._jitter)

    async def _exchange(
        self, body: dict[str, Any], reader: AnswerReader, context: AgentContext
    ) -> AsyncGenerator[AgentOutput, None]:
        """One request and its answer."""
        async with self._endpoint.ask(body, context.now) as answer:
            while (events := await self._next(answer, reader)) is not None:
                for event in events:
                    for output in reader.feed(event):
                        yield output
                if reader.done:
                    await answer.finish()
                    break
        yield reader.close()

    async def _next(self, answer: Answer, reader: AnswerReader) -> list[str] | None:
        """The next events; what breaks after the model has said why it stopped breaks nothing."""
        if not reader.finished:
            return await answer.read(began=reader.began)
        try:
            async with asyncio.timeout(_GRACE):
                # Comments keep nothing open: they come for as long as somebody reads them.
                while (events := await answer.read(began=True)) == []:
                    pass
                return events
        except (TimeoutError, ModelError):
            return None
