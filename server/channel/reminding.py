"""What a client that joins in mid-turn has to know beside the log: what people are to decide, and what it is to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast
from uuid import UUID

import msgspec

from protocol.commands import Decision
from protocol.events import ApprovalRequired, Payload, ToolDispatched
from protocol.ids import format_timestamp
from storage.approvals import Approvals, OpenApprovalRow
from storage.calls import CallRow, Calls

__all__ = ["OpenWork", "Reminders", "approval_required"]


class Reminders(Protocol):
    """Says what is open in a session, as the events that announced it."""

    async def of(self, session_id: UUID, client_id: str) -> Sequence[Payload]:
        """`approval_required` for each open approval, then `tool_dispatched` for each call that the client runs.

        Raises ParleyError(UNAVAILABLE).
        """
        ...


class OpenWork:
    """What the tables say is open."""

    def __init__(self, approvals: Approvals, calls: Calls) -> None:
        self._approvals = approvals
        self._calls = calls

    async def of(self, session_id: UUID, client_id: str) -> Sequence[Payload]:
        """As `Reminders.of`."""
        approvals = await self._approvals.open(session_id)
        calls = await self._calls.of_client(session_id, client_id)
        return [*map(approval_required, approvals), *map(_dispatched, calls)]


def approval_required(row: OpenApprovalRow) -> ApprovalRequired:
    """An open approval as the event that asked for a decision."""
    return ApprovalRequired(
        approval_id=row.approval_id,
        call_id=str(row.call_id),
        turn_id=row.turn_id,
        message_id=row.message_id,
        name=row.name,
        arguments=_value(row.arguments),
        arguments_hash=row.arguments_hash.hex(),
        allowed_decisions=cast("list[Decision]", list(row.allowed_decisions)),
        expires_at=None if row.expires_at is None else format_timestamp(row.expires_at),
        agent_type=row.agent_type,
        parameters=None if row.parameters is None else msgspec.json.decode(row.parameters),
        rule=row.rule,
        reason=row.reason,
    )


def _dispatched(row: CallRow) -> ToolDispatched:
    return ToolDispatched(
        call_id=str(row.call_id),
        turn_id=row.turn_id,
        deadline=None if row.deadline is None else format_timestamp(row.deadline),
        name=row.name,
        arguments=_value(row.effective_arguments),
        client_id=row.client_id,
    )


def _value(text: str) -> Any:
    """Arguments as a value; those that are no JSON as the text they are."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text
