"""A step's request, which is changed for as long as its endpoint's refusals say how."""

from __future__ import annotations

from typing import Any

from server.agents.interface import AgentContext
from server.agents.model.endpoint import Endpoint
from server.agents.model.errors import ModelError
from server.agents.model.fitting import fitting, size
from server.agents.model.manners import learn
from server.agents.model.names import ToolNames
from server.agents.model.prompt import conversation, functions

__all__ = ["Request"]


class Request:
    """What one step asks of its model."""

    def __init__(self, endpoint: Endpoint, model: str, context: AgentContext) -> None:
        self.model = model
        self.names = ToolNames(spec.name for spec in context.tools)
        self._endpoint = endpoint
        self._context = context
        self._manners = endpoint.manners_of(model)
        self._history = self._fitting()

    def body(self) -> dict[str, Any]:
        """What is posted. Call ids stand for ours throughout; the endpoint's own are forgotten."""
        settings, context, manners = self._endpoint.settings, self._context, self._manners
        cut = len(self._history) < len(context.history)
        body: dict[str, Any] = {
            "model": self.model,
            "messages": conversation(context.agent, self._history, self.names, manners, cut=cut),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if context.tools:
            # Endpoints refuse an empty list.
            body["tools"] = functions(context.tools, self.names)
        if settings.temperature is not None:
            body["temperature"] = settings.temperature
        if settings.max_tokens is not None:
            body[manners.max_tokens] = settings.max_tokens
        body |= settings.extra_body
        if not manners.usage:
            body.pop("stream_options", None)
        return body

    def change(self, error: ModelError) -> bool:
        """Whether the refused request is another one now, and worth being sent at once."""
        if error.code == "model_context_exceeded":
            return self._shorten()
        learnt = learn(self._manners, error.message) if error.code == "model_refused" else None
        self._manners = learnt or self._manners
        return learnt is not None

    def accepted(self) -> None:
        """It is being answered: what was learnt is true."""
        self._endpoint.manners[self.model] = self._manners

    def _shorten(self) -> bool:
        """Whether there was something to leave out."""
        before = len(self._history)
        rooms, session_id = self._endpoint.rooms, self._context.session_id
        rooms.refused(session_id, self.model, sum(map(size, self._history)))
        self._history = self._fitting()
        return len(self._history) < before

    def _fitting(self) -> Any:
        return fitting(self._context.history, self._endpoint.rooms.get(self._context.session_id, self.model))
