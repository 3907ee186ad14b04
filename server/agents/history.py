"""From stored messages to the history that an agent may be given.

Model endpoints refuse a history in which a tool call has no result, or two, or in which a result answers no call; and
a model that reads an error as its own words, or the same question twice, answers worse. So whatever the store holds,
``build_history`` gives a sequence for which this is true:

- every stored message appears at most once, in its order; the user's current message exactly once;
- every tool call of an assistant message is followed, before any other message, by exactly one result;
- no result is without its call;
- what is no part of the conversation is left out: errors, and assistant messages that say and call nothing.
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


class StoredMessage(Struct, frozen=True, kw_only=True):
    """A message as the store has it; ``finish_reason`` is set on an assistant's."""

    role: Role
    content: str = ""
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
        if message.role == "tool" or (message.role == "assistant" and not _says_something(message)):
            continue
        history.append(_as_history(message))
        for index, call in enumerate(message.tool_calls):
            result = results.get((position, index))
            history.append(
                HistoryMessage(
                    role="tool",
                    content=NO_RESULT if result is None else result.content,
                    name=call.name,
                    call_id=call.call_id,
                    message_id=None if result is None else result.message_id,
                )
            )
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
        for index, call in enumerate(message.tool_calls):
            waiting.setdefault(call.call_id, deque()).append((position, index))
        if message.role == "tool" and message.call_id is not None and (open_calls := waiting.get(message.call_id)):
            results[open_calls.pop()] = message
    return results


def _says_something(message: StoredMessage) -> bool:
    # A provider's error closes the message as "error"; only what was really said before it may be read again.
    return bool(message.tool_calls) or bool(message.content.strip())


def _as_history(message: StoredMessage) -> HistoryMessage:
    return HistoryMessage(
        role=message.role,
        content=message.content,
        name=message.name,
        tool_calls=message.tool_calls,
        message_id=message.message_id,
        agent_type=message.agent_type,
    )
