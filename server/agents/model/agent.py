"""Running one step of an agent on a model."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import structlog

from server.agents.interface import AgentContext, AgentDefinition, AgentOutput
from server.agents.model.endpoint import Answer, Endpoint
from server.agents.model.errors import ModelError
from server.agents.model.names import ToolNames
from server.agents.model.prompt import request_body
from server.agents.model.reader import AnswerReader
from server.agents.model.retry import pause

__all__ = ["ModelAgent"]

_OPTIONS: Final = "stream_options"
_NOT_KNOWN: Final = re.compile(
    r"stream_options|include_usage|extra (?:inputs|fields)|un(?:known|recognized)", re.IGNORECASE
)
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

        A request that fails in passing is repeated as long as nothing of its answer was yielded.
        """
        endpoint = self._endpoint
        model = self.definition.model or endpoint.settings.model or ""
        names = ToolNames(spec.name for spec in context.tools)
        body = request_body(endpoint.settings, model, context, names)
        failures = 0
        while True:
            reader = AnswerReader(endpoint.where(model), names)
            try:
                async with aclosing(self._attempt(body, reader, context)) as outputs:
                    async for output in outputs:
                        yield output
                return
            except ModelError as error:
                failures += 1
                wait = pause(failures, error.retry_after, self._jitter)
                over = reader.began or not error.again or failures > endpoint.settings.max_retries
                log = _log.bind(model=model, code=error.code, reason=error.message)
                if over or wait is None:
                    log.warning("model_failed", tries=failures)
                    raise
                log.warning("model_retry", wait=round(wait, 3))
            await context.sleep(wait)

    async def _attempt(
        self, body: dict[str, Any], reader: AnswerReader, context: AgentContext
    ) -> AsyncGenerator[AgentOutput, None]:
        """One try, or two for an endpoint that turns out not to know how to report usage in a stream."""
        if not self._endpoint.usage_refused and _OPTIONS in body:
            try:
                async with aclosing(self._exchange(body, reader, context)) as outputs:
                    async for output in outputs:
                        yield output
                return
            except ModelError as error:
                if reader.began or error.code != "model_refused" or not _NOT_KNOWN.search(error.message):
                    raise
        plain = {key: value for key, value in body.items() if key != _OPTIONS}
        async with aclosing(self._exchange(plain, reader, context)) as outputs:
            async for output in outputs:
                # Now it is known that this, and nothing else, was wrong with the request.
                self._endpoint.usage_refused = True
                yield output

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
                return await answer.read(began=True)
        except (TimeoutError, ModelError):
            return None
