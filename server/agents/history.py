"""From stored messages to the history that an agent may be given.

Model endpoints refuse a history in which a tool call has no result, or two, or in which a result answers no call; and
a model that reads an error as its own words, or the same question twice, answers worse. So whatever the store holds,
``build_history`` gives a sequence for which this is true:

- every stored message appears at most once, in its order; the user's current message exactly once;
- every tool call of an assistant message is followed, before any other message, by exactly one result;
- no result is without its call;
- what is no part of the conversation is left out: assistant messages that say and call nothing, as an error or an
  early cancel leaves them, and calls that were being written when their message was cut short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

from msgspec import Struct

from server.agents.interface import HistoryMessage, Role, ToolCallRequest

__all__ = ["NO_RESULT", "StoredMessage", "build_history"]

NO_RESULT: Final = "No result: the call was not finished."
"""What the model reads as the result of a call that has none."""

_CUT_SHORT: Final = frozenset({"cancelled", "error", "interrupted"})


class StoredMessage(Struct, frozen=True, kw_only=True):
    """A message as the store has it; ``finish_reason`` is set on an assistant's."""

    role: Role
    content: str = ""
    reasoning: str | None = None
    tool_calls: tuple[ToolCallRequest, ...] = ()
    call_id: str | None = None
    name: str | None = None
    message_id: UUID | None = None
    agent_type: str | None = None
    finish_reason: str | None = None


def build_history(messages: Iterable[StoredMessage], current: StoredMessage | None = None) -> list[HistoryMessage]:
    """The history for the next step.

    ``current`` is the message that the step answers; it is appended unless ``messages`` holds it already, told by
    its ``message_id``. A result belongs to the latest earlier call of its ``call_id`` that has none yet.
    """
    unique = list(_unique(messages if current is None else (*messages, current)))
    results = _match_results(unique)
    history: list[HistoryMessage] = []
    for position, message in enumerate(unique):
        if message.role == "tool":
            continue
        calls = [(call, results.get((position, index))) for index, call in enumerate(_calls_of(message))]
        if message.finish_reason in _CUT_SHORT:
            # Their arguments may be half a JSON text, and nobody was asked to run them.
            calls = [(call, result) for call, result in calls if result is not None]
        if message.role == "assistant" and not calls and not message.content.strip():
            continue
        history.append(_as_history(message, tuple(call for call, _ in calls)))
        history.extend(_result(call, result) for call, result in calls)
    return history


def _unique(messages: Iterable[StoredMessage]) -> Iterator[StoredMessage]:
    seen: set[UUID] = set()
    for message in messages:
        if message.message_id is not None:
            if message.message_id in seen:
                continue
            seen.add(message.message_id)
        yield message


def _match_results(messages: list[StoredMessage]) -> dict[tuple[int, int], StoredMessage]:
    """For each call, as (position of its message, index in it), its result; surplus results match nothing."""
    results: dict[tuple[int, int], StoredMessage] = {}
    waiting: dict[str, deque[tuple[int, int]]] = {}
    for position, message in enumerate(messages):
        for index, call in enumerate(_calls_of(message)):
            waiting.setdefault(call.call_id, deque()).append((position, index))
        if message.role == "tool" and message.call_id is not None and (open_calls := waiting.get(message.call_id)):
            results[open_calls.pop()] = message
    return results


def _calls_of(message: StoredMessage) -> tuple[ToolCallRequest, ...]:
    return message.tool_calls if message.role == "assistant" else ()


def _as_history(message: StoredMessage, calls: tuple[ToolCallRequest, ...]) -> HistoryMessage:
    return HistoryMessage(
        role=message.role,
        content=message.content,
        reasoning=message.reasoning,
        name=message.name,
        tool_calls=calls,
        message_id=message.message_id,
        agent_type=message.agent_type,
    )


def _result(call: ToolCallRequest, result: StoredMessage | None) -> HistoryMessage:
    return HistoryMessage(
        role="tool",
        content=NO_RESULT if result is None else result.content,
        name=call.name,
        call_id=call.call_id,
        message_id=None if result is None else result.message_id,
    )
