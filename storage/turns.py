"""Turns and steps: claimed, written by fenced transactions, taken over (`sql/queries/turns.sql`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from storage.commits import Committed, committed
from storage.log import NewEvent
from storage.pool import Database, columns

__all__ = ["Advance", "Advanced", "Call", "Claim", "LostClaimError", "NewMessage", "Started", "Turns", "Waiting"]


class LostClaimError(Exception):
    """The step belongs to somebody else by now, or is gone with its session: stop, and write nothing more."""


class Claim(Struct, kw_only=True):
    """A step that a worker holds. `attempt` fences its writes; `revision` counts them, and the claims, of the turn."""

    session_id: UUID
    turn_id: UUID
    step: int
    message_id: UUID
    state: Literal["running", "tools"]
    worker_id: UUID
    attempt: int
    agent_type: str
    user_message_id: UUID
    turn_created_at: datetime
    revision: int = 0
    content: str = ""
    reasoning: str = ""
    cancel_requested: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def begin_next(self, message_id: UUID) -> None:
        """The step is done; the claim is now of the next one, which that same transaction created."""
        self.step += 1
        self.message_id = message_id
        self.state = "running"
        self.attempt = 1
        self.content = self.reasoning = ""


class NewMessage(Struct, frozen=True, kw_only=True):
    """A message to be stored; `ordinal` counts from 1 and says which of the transaction's events announces it."""

    message_id: UUID
    ordinal: int
    role: Literal["assistant", "tool"]
    content: str
    reasoning: str | None = None
    name: str | None = None
    call_id: UUID | None = None
    tool_calls: bytes | None = None
    agent_type: str | None = None
    finish_reason: str | None = None


class Call(Struct, frozen=True, kw_only=True):
    """A tool call; `arguments` is the JSON text that the agent wrote."""

    call_id: UUID
    name: str
    arguments: str
    executor: Literal["server", "client"]
    state: Literal["pending", "running", "done"] = "pending"


class Advance(Struct, frozen=True, kw_only=True):
    """One move of a turn: all that its transaction writes."""

    step_state: Literal["running", "tools", "done"]
    events: Sequence[NewEvent] = ()
    messages: Sequence[NewMessage] = ()
    calls: Sequence[Call] = ()
    ended_calls: Sequence[tuple[UUID, bool]] = ()
    turn_state: Literal["completed", "cancelled", "failed", "interrupted"] | None = None
    error: tuple[str, str] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    next_message_id: UUID | None = None


class Advanced(Struct, frozen=True):
    """What came of it. `commit` is None when the write had happened before and its answer was lost."""

    commit: Committed | None
    cancel_requested: bool
    queued: int


class Waiting(Struct, frozen=True, kw_only=True):
    """The first message in a session's queue, and the session's agent."""

    message_id: UUID
    content: str
    agent_type: str | None
    command_id: str
    client_id: str | None
    current_agent: str


class Started(Struct, frozen=True, kw_only=True):
    """A waiting message that becomes a turn: ids made beforehand, events encoded beforehand."""

    session_id: UUID
    message_id: UUID
    agent_type: str
    agent_is_default: bool
    turn_id: UUID
    answer_id: UUID
    worker_id: UUID
    now: datetime
    events: Sequence[NewEvent]
    message_ordinal: int


class Turns:
    """Reads and writes turns. Writers of a session's events hold its gate. All raise UNAVAILABLE on a lost database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def advance(self, claim: Claim, move: Advance, now: datetime) -> Advanced:
        """Write one move, fenced by the claim, whose revision is raised. Raises LostClaimError.

        May be repeated when its answer was lost: what was written is not written again.
        """
        row = await self._database.fetchrow(
            "advance",
            claim.session_id,
            claim.turn_id,
            claim.step,
            claim.worker_id,
            claim.attempt,
            claim.revision,
            now,
            move.step_state,
            *columns([(event.event_type, event.body) for event in move.events], 2),
            *columns([_message(message) for message in move.messages], 10),
            *columns([(call.call_id, call.name, call.arguments, call.executor) for call in move.calls], 4),
            *columns(move.ended_calls, 2),
            move.turn_state,
            *(move.error or (None, None)),
            move.prompt_tokens,
            move.completion_tokens,
            move.next_message_id,
        )
        if row is None:
            return await self._written_before(claim)
        claim.revision += 1
        commit = committed(claim.session_id, row["epoch"], row["seq"], now, move.events)
        return Advanced(commit, row["cancel_requested"], row["queued"])

    async def _written_before(self, claim: Claim) -> Advanced:
        row = await self._database.fetchrow("turn_now", claim.turn_id)
        # Who claims the step raises the revision as well, but begins no step; so what comes right after this claim's
        # revision is its own write, or has another attempt of the same step.
        if (
            row is None
            or (row["worker_id"], row["revision"]) != (claim.worker_id, claim.revision + 1)
            or (row["step"], row["attempt"]) not in {(claim.step, claim.attempt), (claim.step + 1, 1)}
        ):
            raise LostClaimError(f"step {claim.step} of turn {claim.turn_id}, attempt {claim.attempt}")
        claim.revision += 1
        return Advanced(None, row["cancel_requested"], row["queued"])

    async def start_call(self, claim: Claim, call_id: UUID, now: datetime) -> None:
        """Note that a call begins to run, so that a crash knows it did. Raises LostClaimError."""
        if await self._database.fetchrow("start_call", call_id, claim.worker_id, claim.attempt, now) is None:
            raise LostClaimError(f"call {call_id} of turn {claim.turn_id}")

    async def calls(self, claim: Claim) -> list[Call]:
        """The calls of the step, in the order given by the agent."""
        rows = await self._database.fetch("calls_of_step", claim.turn_id, claim.step)
        return [Call(**row) for row in rows]

    async def checkpoint(self, worker_id: UUID, claims: Sequence[Claim]) -> set[UUID]:
        """Keep the texts of messages being written; returns the turns whose steps are still the worker's."""
        rows = [(claim.turn_id, claim.step, claim.attempt, claim.content, claim.reasoning) for claim in claims]
        found = await self._database.fetch("checkpoint", worker_id, *columns(rows, 5))
        return {row[0] for row in found}

    async def claim(self, worker_id: UUID, known: Collection[UUID], limit: int) -> list[Claim]:
        """Take over steps whose worker is gone, and the worker's own of turns that it does not know of."""
        rows = await self._database.fetch("claim_steps", worker_id, list(known), limit)
        return [
            Claim(worker_id=worker_id, turn_created_at=row["created_at"], **{name: row[name] for name in _CLAIMED})
            for row in rows
        ]

    async def cancelled(self, turn_ids: Collection[UUID]) -> set[UUID]:
        """Those of the turns that somebody asked to stop, or that are gone with their session."""
        return {row[0] for row in await self._database.fetch("cancelled_turns", list(turn_ids))}

    async def next_waiting(self, session_id: UUID) -> Waiting | None:
        """The first message in the queue of an idle session."""
        row = await self._database.fetchrow("next_queued", session_id)
        return Waiting(**row) if row is not None else None

    async def start_waiting(self, start: Started) -> Committed | None:
        """Begin the turn of a waiting message; None when somebody else was faster or the agent has changed."""
        row = await self._database.fetchrow(
            "start_queued",
            start.session_id,
            start.message_id,
            start.agent_type,
            start.agent_is_default,
            start.turn_id,
            start.answer_id,
            start.worker_id,
            start.now,
            *columns([(event.event_type, event.body) for event in start.events], 2),
            start.message_ordinal,
        )
        return (
            committed(start.session_id, row["epoch"], row["seq"], start.now, start.events) if row is not None else None
        )

    async def waiting_sessions(self, limit: int) -> list[UUID]:
        """Idle sessions in whose queue somebody waits."""
        return [row[0] for row in await self._database.fetch("waiting_sessions", limit)]


_CLAIMED = (
    "session_id",
    "turn_id",
    "step",
    "message_id",
    "state",
    "attempt",
    "revision",
    "content",
    "reasoning",
    "agent_type",
    "user_message_id",
    "cancel_requested",
    "prompt_tokens",
    "completion_tokens",
)


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
    )
