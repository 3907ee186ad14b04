"""What an agent wants of another one: that it goes on with the turn, or that it answers a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from protocol.errors import ParleyError
from protocol.values import clean_text
from server.agents.interface import AgentDefinition
from server.turns import records
from server.turns.moves import Move
from server.turns.results import Result
from storage.moves import Call, CallState

if TYPE_CHECKING:
    from server.turns.run import TurnRun

__all__ = ["ask_agent", "hand_over"]

_HANDED_OVER: Final = "The {agent} agent has the turn now, and goes on with the whole conversation."
_HANDED_TWICE: Final = "The turn was handed to another agent already."
_NO_SUCH_AGENT: Final = "The {agent} agent cannot hand over to, or ask, {target!r}."
_TOO_MANY_SWITCHES: Final = "The turn was handed over as often as it may be ({limit}); finish it yourself."
_TOO_DEEP: Final = "Agents may ask each other no deeper than {limit}; do it yourself."


def hand_over(run: TurnRun, move: Move, call: Call) -> tuple[Result, CallState]:
    """What comes of a hand-over: always a result, whatever the agent asked for."""
    claim, limit = run.claim, run.engine.settings.max_switches
    arguments = records.value_of(call.effective_arguments)
    target = _target(run, arguments, "handoffs")
    if target is None:
        wrong = _NO_SUCH_AGENT.format(agent=claim.agent_type, target=_named(arguments))
        return Result(error=wrong), "failed"
    if move.next_agent is not None:
        return Result(error=_HANDED_TWICE), "failed"
    if claim.switches >= limit:
        return Result(error=_TOO_MANY_SWITCHES.format(limit=limit)), "failed"
    # What the agent wrote as JSON may hold what no table keeps.
    reason = arguments.get("reason")
    move.hand_over(target, clean_text(reason) if isinstance(reason, str) else None)
    return Result(value=_HANDED_OVER.format(agent=target.type)), "completed"


def ask_agent(run: TurnRun, move: Move, call: Call) -> str | None:
    """Let another agent answer the call in a turn of its own; else why not, for the model."""
    claim, limit = run.claim, run.engine.settings.max_depth
    arguments = records.value_of(call.effective_arguments)
    target = _target(run, arguments, "delegates")
    if target is None:
        return _NO_SUCH_AGENT.format(agent=claim.agent_type, target=_named(arguments))
    if claim.depth >= limit:
        return _TOO_DEEP.format(limit=limit)
    move.begin_child(call, target, clean_text(str(arguments.get("task", ""))))
    return None


def _target(run: TurnRun, arguments: Any, field: Literal["handoffs", "delegates"]) -> AgentDefinition | None:
    """The definition of the agent that the arguments name, if the acting agent may turn to it."""
    registry = run.engine.registry
    name = _named(arguments)
    try:
        acting = registry.get(run.claim.agent_type).definition
        return registry.get(name).definition if name in getattr(acting, field) else None
    except ParleyError:
        return None


def _named(arguments: Any) -> str:
    name = arguments.get("agent_type") if isinstance(arguments, dict) else None
    return name if isinstance(name, str) else ""
