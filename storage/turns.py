"""Turns and steps: claimed, written by fenced transactions, parked, taken over (`sql/queries/turns.sql`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple, NoReturn
from uuid import UUID

import asyncpg
from msgspec import Struct

from storage import parameters
from storage.claims import AnsweredError, Claim, LostClaimError, NewsError, claims_of
from storage.commits import Committed, committed
from storage.moves import (
    Advance,
    Call,
    CallState,
    Dispatch,
    EndedCall,
    Executor,
    NewApproval,
    NewAudit,
    NewChild,
    NewMessage,
    OpenApproval,
    ParentResult,
    RequestRow,
    Started,
    SteerPlan,
    Switch,
    Waiting,
)
from storage.pool import Database, columns

__all__ = [
    "Advance",
    "Advanced",
    "AnsweredError",
    "Call",
    "CallState",
    "Claim",
    "Dispatch",
    "EndedCall",
    "Executor",
    "ExpiresSoon",
    "LostClaimError",
    "NewApproval",
    "NewAudit",
    "NewChild",
    "NewMessage",
    "NewsError",
    "OpenApproval",
    "ParentResult",
    "RequestRow",
    "Started",
    "SteerPlan",
    "StepCalls",
    "Switch",
    "Turns",
    "Waiting",
]


class Advanced(Struct, frozen=True):
    """What came of a move. `commit` is None when the write had happened before and its answer was lost.

    `queued` messages wait; `steering`: some of them may be for this turn's next step. `parked`: the turn waits now and
    belongs to nobody. `parent`: the turn whose call was answered, if it waited; it is the caller's now.
    """

    commit: Committed | None
    cancel_requested: bool
    queued: int
    parked: bool = False
    news: int = 0
    steering: bool = False
    parent: Claim | None = None


class StepCalls(Struct, frozen=True):
    """The calls of a step in the order given by the agent, and the news that they are the outcome of."""

    calls: list[Call]
    news: int
    cancel_requested: bool


class ExpiresSoon(NamedTuple):
    """An approval of which people should be warned."""

    session_id: UUID
    approval_id: UUID
    call_id: UUID
    expires_at: datetime


class Turns:
    """Reads and writes turns. Writers of a session's events hold its gate. All raise UNAVAILABLE on a lost database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- moves

    async def advance(self, claim: Claim, move: Advance, now: datetime) -> Advanced:
        """Write one move, fenced by the claim, whose revision is raised.

        Raises LostClaimError; NewsError when there is other news than `expected_news`; AnsweredError when the call of
        `parent_result` has its result already. May be repeated when its answer was lost: what was written is not
        written again.
        """
        name, arguments = parameters.of_move(claim, move, now)
        row = await self._database.fetchrow(name, *arguments)
        if row is None:
            row = await self._written_before(claim)
            if row is None:
                await self._explain(claim, move)
            claim.revision += 1
            return _advanced(row, None, parked=row["state"] == "waiting")
        claim.revision += 1
        commit = committed(claim.session_id, row["epoch"], row["seq"], now, move.events)
        if name == parameters.PLAIN:
            return _advanced(row, commit)
        parents = claims_of(row["claims"])
        return _advanced(row, commit, parked=row["parked"], parent=parents[0] if parents else None)

    async def _written_before(self, claim: Claim) -> asyncpg.Record | None:
        """How the turn stands, if the very write that found nothing to write had happened before."""
        row = await self._database.fetchrow("turn_now", claim.turn_id)
        # Who claims the step raises the revision as well, but begins no step; so what comes right after this claim's
        # revision is its own write, or has another attempt of the same step.
        if (
            row is not None
            and (row["worker_id"], row["revision"]) == (claim.worker_id, claim.revision + 1)
            and (row["step"], row["attempt"]) in {(claim.step, claim.attempt), (claim.step + 1, 1)}
        ):
            return row
        return None

    async def _explain(self, claim: Claim, move: Advance) -> NoReturn:
        """Say why nothing was written."""
        row = await self._database.fetchrow("turn_now", claim.turn_id)
        if row is not None and row["finished_at"] is None and _position(row) == _claimed(claim):
            if move.expected_news is not None and row["news"] != move.expected_news:
                raise NewsError(row["news"])
            if move.parent_result is not None:
                raise AnsweredError(f"call {move.parent_result.call_id}")
        raise LostClaimError(f"step {claim.step} of turn {claim.turn_id}, attempt {claim.attempt}")

    async def calls(self, claim: Claim) -> StepCalls:
        """The calls of the step. Raises LostClaimError."""
        rows = await self._database.fetch("calls_of_step", claim.turn_id, claim.step, claim.worker_id, claim.attempt)
        if not rows:
            raise LostClaimError(f"step {claim.step} of turn {claim.turn_id}, attempt {claim.attempt}")
        calls = [_call(row) for row in rows if row["call_id"] is not None]
        return StepCalls(calls, rows[0]["news"], rows[0]["cancel_requested"])

    async def checkpoint(self, worker_id: UUID, claims: Sequence[Claim]) -> set[UUID]:
        """Keep the texts of messages being written; returns the turns whose steps are still the worker's."""
        # In one order for all who lock several turns.
        ordered = sorted(claims, key=lambda claim: claim.turn_id)
        rows = [(claim.turn_id, claim.step, claim.attempt, claim.content, claim.reasoning) for claim in ordered]
        found = await self._database.fetch("checkpoint", worker_id, *columns(rows, 5))
        return {row[0] for row in found}

    # --- claims

    async def claim(self, worker_id: UUID, known: Collection[UUID], limit: int) -> list[Claim]:
        """Take over steps whose worker is gone, and the worker's own of turns that it does not know of."""
        return claims_of(await self._database.fetch("claim_steps", worker_id, list(known), limit))

    async def claim_due(self, worker_id: UUID, now: datetime, limit: int) -> list[Claim]:
        """Take over waiting turns with a call that is due, or with an approval that has expired."""
        return claims_of(await self._database.fetch("claim_due", worker_id, now, limit))

    async def warn_due(self, now: datetime, limit: int) -> list[ExpiresSoon]:
        """Approvals that expire soon; each is returned once."""
        return [ExpiresSoon(*row) for row in await self._database.fetch("warn_due", now, limit)]

    async def news_of(self, turn_ids: Collection[UUID]) -> dict[UUID, tuple[int, bool]]:
        """News of the turns, and whether somebody asked to stop them; those gone with their session are missing."""
        rows = await self._database.fetch("news_of_turns", list(turn_ids))
        return {row["turn_id"]: (row["news"], row["cancel_requested"]) for row in rows}

    # --- the queue

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

    async def steering(self, session_id: UUID) -> list[Waiting]:
        """The waiting messages that are for the running turn's next step, in their order."""
        return [Waiting(**row) for row in await self._database.fetch("steering_messages", session_id)]

    async def steer(self, claim: Claim, plan: SteerPlan) -> Advanced | None:
        """Take waiting messages into the running turn, fenced by the claim, whose revision is raised.

        None when one of them waits no more: nothing was written, look again. Raises LostClaimError. May be repeated
        when its answer was lost.
        """
        row = await self._database.fetchrow(
            "steer",
            claim.session_id,
            claim.turn_id,
            claim.step,
            claim.worker_id,
            claim.attempt,
            claim.revision,
            plan.now,
            *columns([(event.event_type, event.body) for event in plan.events], 2),
            *columns(plan.messages, 2),
        )
        if row is not None:
            claim.revision += 1
            return _advanced(row, committed(claim.session_id, row["epoch"], row["seq"], plan.now, plan.events))
        row = await self._written_before(claim)
        if row is not None:
            claim.revision += 1
            return _advanced(row, None)
        row = await self._database.fetchrow("turn_now", claim.turn_id)
        if row is None or row["finished_at"] is not None or _position(row) != _claimed(claim):
            raise LostClaimError(f"step {claim.step} of turn {claim.turn_id}, attempt {claim.attempt}")
        return None


def _advanced(
    row: asyncpg.Record, commit: Committed | None, *, parked: bool = False, parent: Claim | None = None
) -> Advanced:
    return Advanced(commit, row["cancel_requested"], row["queued"], parked, row["news"], row["steering"], parent)


def _position(row: asyncpg.Record) -> tuple[object, ...]:
    return (row["worker_id"], row["step"], row["attempt"], row["revision"])


def _claimed(claim: Claim) -> tuple[object, ...]:
    return (claim.worker_id, claim.step, claim.attempt, claim.revision)


def _call(row: asyncpg.Record) -> Call:
    approval_id = row["approval_id"]
    return Call(
        call_id=row["call_id"],
        name=row["name"],
        arguments=row["arguments"],
        executor=row["executor"],
        state=row["state"],
        final_arguments=row["final_arguments"],
        read_only=row["read_only"],
        independent=row["independent"],
        client_id=row["client_id"],
        executors=tuple(row["executors"]),
        child_turn=row["child_turn"],
        deadline=row["deadline"],
        release_at=row["release_at"],
        ordinal=row["ordinal"],
        started_at=row["started_at"],
        approval=OpenApproval(approval_id, row["expires_at"]) if approval_id is not None else None,
    )
