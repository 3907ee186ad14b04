"""The body of a request: the agent's prompt, the conversation and the tools in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from server.agents.interface import AgentDefinition, HistoryMessage, ToolCallRequest, ToolSpec
from server.agents.model.calls import is_object
from server.agents.model.manners import Manners
from server.agents.model.names import ToolNames, plain_id, plain_name

__all__ = ["LEFT_OUT", "NOT_JSON", "STOPPED", "conversation", "functions"]

NOT_JSON: Final = "not_json"
"""Under this key a model gets arguments back that it wrote and that were no JSON object."""

LEFT_OUT: Final = "(The beginning of this conversation is left out: it no longer fits. If it is asked for, say so.)"
"""Stands at the end of the prompt when it is so, that a model does not invent what it cannot know."""

STOPPED: Final = "(stopped)"
"""What a model is told that it said where the user stopped it, if its endpoint wants it to have said something."""

_LONGEST_DESCRIPTION: Final = 1024


def conversation(
    agent: AgentDefinition, history: Sequence[HistoryMessage], names: ToolNames, manners: Manners, *, cut: bool
) -> list[dict[str, Any]]:
    """The prompt and the messages; ``cut``: the history lacks its beginning."""
    messages: list[dict[str, Any]] = []
    prompt = "\n\n".join(filter(None, (agent.prompt.strip(), LEFT_OUT if cut else "")))
    if prompt:
        messages.append({"role": "system", "content": prompt})
    for message in history:
        sent = _message(message, names, manners)
        last = messages[-1] if messages else {}
        if sent["role"] == last.get("role") == "user" and sent.get("name") == last.get("name"):
            # A question that got no answer, and the next: templates of many open models want roles to alternate.
            last["content"] += "\n\n" + sent["content"]
            continue
        if manners.closing and sent["role"] == "user" and last.get("role") == "tool":
            messages.append({"role": "assistant", "content": STOPPED})
        messages.append(sent)
    return messages


def functions(tools: Sequence[ToolSpec], names: ToolNames) -> list[dict[str, Any]]:
    """The tools that may be called."""
    return [_function(spec, names) for spec in tools]


def _message(message: HistoryMessage, names: ToolNames, manners: Manners) -> dict[str, Any]:
    sent: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        sent["tool_call_id"] = plain_id(message.call_id or "")
        if message.name:
            sent["name"] = names.theirs(message.name)
    elif message.tool_calls:
        # Null, as some refuse an empty text beside calls, and others a message without any content.
        sent["content"] = message.content or None
        sent["tool_calls"] = [_call(call, names) for call in message.tool_calls]
    elif message.role == "user" and message.name:
        sent["name"] = plain_name(message.name)
    if message.role == "assistant" and manners.reasoning is not None:
        # Also an empty one: who wants it wants the field.
        sent[manners.reasoning] = message.reasoning or ""
    return sent


def _call(call: ToolCallRequest, names: ToolNames) -> dict[str, Any]:
    return {
        "id": plain_id(call.call_id),
        "type": "function",
        "function": {"name": names.theirs(call.name), "arguments": _arguments(call.arguments)},
    }


def _arguments(text: str) -> str:
    """The arguments as JSON. Some endpoints parse them, and would refuse this session for ever if they were none."""
    if is_object(text):
        return text if text.strip() else "{}"
    return msgspec.json.encode({NOT_JSON: text}).decode()


def _function(spec: ToolSpec, names: ToolNames) -> dict[str, Any]:
    function = {
        "name": names.theirs(spec.name),
        "description": spec.description[:_LONGEST_DESCRIPTION],
        "parameters": spec.parameters,
    }
    return {"type": "function", "function": function}
