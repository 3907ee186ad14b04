"""The body of a request: the agent's prompt, the conversation and the tools in OpenAI's shapes."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from server.agents.interface import AgentContext, HistoryMessage, ToolCallRequest, ToolSpec
from server.agents.model.calls import is_object
from server.agents.model.names import ToolNames, plain_name
from server.agents.model.settings import ModelSettings

__all__ = ["NOT_JSON", "request_body"]

NOT_JSON: Final = "not_json"
"""Under this key a model gets arguments back that it wrote and that were no JSON object."""

_LONGEST_DESCRIPTION: Final = 1024


def request_body(settings: ModelSettings, model: str, context: AgentContext, names: ToolNames) -> dict[str, Any]:
    """What is posted. Reasoning is never sent back; call ids are ours throughout."""
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(context, names),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if context.tools:
        # Endpoints refuse an empty list.
        body["tools"] = [_tool(spec, names) for spec in context.tools]
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    if settings.max_tokens is not None:
        body["max_tokens"] = settings.max_tokens
    return {**body, **settings.extra_body}


def _messages(context: AgentContext, names: ToolNames) -> list[dict[str, Any]]:
    messages = [_message(message, names) for message in context.history]
    prompt = context.agent.prompt.strip()
    return [{"role": "system", "content": prompt}, *messages] if prompt else messages


def _message(message: HistoryMessage, names: ToolNames) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        sent["tool_call_id"] = message.call_id
        if message.name:
            sent["name"] = names.theirs(message.name)
    elif message.tool_calls:
        # Null, as some refuse an empty text beside calls, and others a message without any content.
        sent["content"] = message.content or None
        sent["tool_calls"] = [_call(call, names) for call in message.tool_calls]
    elif message.role == "user" and message.name:
        sent["name"] = plain_name(message.name)
    return sent


def _call(call: ToolCallRequest, names: ToolNames) -> dict[str, Any]:
    return {
        "id": call.call_id,
        "type": "function",
        "function": {"name": names.theirs(call.name), "arguments": _arguments(call.arguments)},
    }


def _arguments(text: str) -> str:
    """The arguments as JSON. Some endpoints parse them, and would refuse this session for ever if they were none."""
    if is_object(text):
        return text if text.strip() else "{}"
    return msgspec.json.encode({NOT_JSON: text}).decode()


def _tool(spec: ToolSpec, names: ToolNames) -> dict[str, Any]:
    function = {
        "name": names.theirs(spec.name),
        "description": spec.description[:_LONGEST_DESCRIPTION],
        "parameters": spec.parameters,
    }
    return {"type": "function", "function": function}
