"""The end of a turn: what its session hears, and, when it answers the call of another turn, what that one gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.events import ErrorInfo, TurnOutcome
from server.turns.moves import Move
from server.turns.results import CANCELLED, Result

if TYPE_CHECKING:
    from server.turns.run import TurnRun

__all__ = ["end_turn"]

_NOT_FINISHED = "The {agent} agent could not finish: {why}"


async def end_turn(run: TurnRun, move: Move, outcome: TurnOutcome, *, error: ErrorInfo | None = None) -> None:
    """Put the end of the turn into the move that is its last."""
    claim, engine = run.claim, run.engine
    move.end_turn(outcome, run.usage(move.request), error)
    parent_call = claim.parent_call
    if parent_call is None:
        return
    found = await engine.persist(lambda: engine.calls.find(claim.session_id, parent_call))
    if found is None or found.finished_at is not None:
        # The session is gone, or whoever asked does not wait any more.
        return
    if outcome == "completed":
        result = Result(value=claim.content)
    elif outcome == "cancelled":
        result = Result(error=CANCELLED)
    else:
        why = error.message if error is not None else "it was interrupted"
        result = Result(error=_NOT_FINISHED.format(agent=claim.agent_type, why=why))
    move.answer_parent(found, result)
