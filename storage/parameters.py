"""A move of a turn as the parameters of the statement that writes it (`sql/queries/turns.sql`).

Most moves are plain: a message, the turn's end. What concerns calls is written by a statement of its own, which takes
each list as one JSON text; their keys are the columns that the statement names.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from storage.claims import Claim
from storage.moves import Advance, CallState, NewMessage, RequestRow
from storage.pool import columns

__all__ = ["PLAIN", "WITH_CALLS", "as_json", "of_move"]

PLAIN: Final = "advance"
WITH_CALLS: Final = "advance_calls"


def of_move(claim: Claim, move: Advance, now: datetime) -> tuple[str, list[Any]]:
    """The statement that writes a move, and its parameters."""
    common = [
        claim.session_id,
        claim.turn_id,
        claim.step,
        claim.worker_id,
        claim.attempt,
        claim.revision,
        now,
        move.step_state,
        *columns([(event.event_type, event.body) for event in move.events], 2),
        *columns([_message(message) for message in move.messages], 12),
        sum(message.thread is None for message in move.messages),
        move.turn_state,
        *(move.error or (None, None)),
        move.prompt_tokens,
        move.completion_tokens,
        move.cost,
        move.next_message_id,
        *_request(move.request),
        claim.agent_type,
    ]
    if _is_plain(move):
        return PLAIN, common
    return WITH_CALLS, [*common, *_about_calls(claim, move)]


def as_json(rows: Sequence[Any]) -> str:
    """Structs or dictionaries as `json_to_recordset` takes them; bytes become base64."""
    return msgspec.json.encode(rows).decode()


def _is_plain(move: Advance) -> bool:
    lists = (
        move.calls,
        move.started_calls,
        move.dispatches,
        move.ended_calls,
        move.approvals,
        move.expired,
        move.withdrawn,
        move.audits,
        move.children,
    )
    return not any(lists) and not (move.switch or move.parent_result or move.park) and move.expected_news is None


def _message(message: NewMessage) -> tuple[object, ...]:
    return (
        message.message_id,
        message.ordinal,
        message.role,
        message.content,
        message.reasoning,
        message.name,
        message.call_id,
        message.tool_calls,
        message.agent_type,
        message.finish_reason,
        message.thread,
        message.turn_id,
    )


def _request(request: RequestRow | None) -> tuple[object, ...]:
    if request is None:
        return (None,) * 9
    return (
        request.model,
        request.started_at,
        request.duration_ms,
        request.prompt_tokens,
        request.completion_tokens,
        request.cost,
        request.tools,
        request.finish_reason,
        request.error_code,
    )


def _about_calls(claim: Claim, move: Advance) -> list[Any]:
    park_at = claim.news if move.expected_news is None else move.expected_news
    closed = [(approval_id, "rejected") for approval_id in move.expired]
    closed += [(approval_id, "withdrawn") for approval_id in move.withdrawn]
    return [
        move.expected_news,
        park_at if move.park else None,
        as_json(move.calls),
        as_json(_changes(move)),
        as_json(move.approvals),
        *columns(closed, 2),
        as_json(move.audits),
        as_json([] if move.switch is None else [move.switch]),
        as_json(move.children),
        *((None, None) if move.parent_result is None else (move.parent_result.call_id, move.parent_result.state)),
    ]


def _changes(move: Advance) -> list[dict[str, Any]]:
    """What becomes of the step's calls, each named once."""
    running: CallState = "running"
    changes: list[dict[str, Any]] = [{"call_id": call_id, "state": running} for call_id in move.started_calls]
    changes += [{"call_id": child.call_id, "state": running, "child_turn": child.turn_id} for child in move.children]
    changes += [{"call_id": ended.call_id, "state": ended.state} for ended in move.ended_calls]
    changes += [
        {
            "call_id": dispatch.call_id,
            "state": "ready" if dispatch.client_id is None else running,
            "dispatched": True,
            "client_id": dispatch.client_id,
            "deadline": dispatch.deadline,
            "release_at": dispatch.release_at,
        }
        for dispatch in move.dispatches
    ]
    return changes
