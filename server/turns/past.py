"""A session's stored messages as the history that an agent is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

import msgspec

from server.agents import history
from server.agents.interface import HistoryMessage, Role, ToolCallRequest
from storage.messages import StoredMessage

__all__ = ["history_of"]

_calls: Final = msgspec.json.Decoder(tuple[ToolCallRequest, ...])


def history_of(stored: Sequence[StoredMessage]) -> list[HistoryMessage]:
    """The conversation so far. The user's current message is stored before its turn begins, so it is in it once."""
    return history.build_history(
        history.StoredMessage(
            role=cast("Role", message.role),
            content=message.content,
            reasoning=message.reasoning,
            tool_calls=_calls.decode(message.tool_calls) if message.tool_calls is not None else (),
            call_id=str(message.call_id) if message.call_id is not None else None,
            name=message.name,
            message_id=message.message_id,
            agent_type=message.agent_type,
            finish_reason=message.finish_reason,
        )
        for message in stored
    )
