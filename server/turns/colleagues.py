"""What an agent wants of another one: that it goes on with the turn, or that it answers a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

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
_NO_SUCH_AGENT: Final = "There is no agent {target!r} any more."
_TOO_MANY_SWITCHES: Final = "The turn was handed over as often as it may be ({limit}); finish it yourself."
_TOO_DEEP: Final = "Agents may ask each other no deeper than {limit}; do it yourself."


def hand_over(run: TurnRun, move: Move, call: Call) -> tuple[Result, CallState]:
    """What comes of a hand-over: always a result, whatever the agent asked for."""
    claim, limit = run.claim, run.engine.settings.max_switches
    arguments = records.value_of(call.effective_arguments)
    target = _target(run, arguments)
    if target is None:
        return Result(error=_NO_SUCH_AGENT.format(target=_named(arguments))), "failed"
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
    target = _target(run, arguments)
    if target is None:
        return _NO_SUCH_AGENT.format(target=_named(arguments))
    if claim.depth >= limit:
        return _TOO_DEEP.format(limit=limit)
    move.begin_child(call, target, clean_text(str(arguments.get("task", ""))))
    return None


def _target(run: TurnRun, arguments: Any) -> AgentDefinition | None:
    """The definition of the agent that the arguments name, if there is one still.

    That whoever wrote the call may turn to it, the tool's schema said; another agent may be acting by now.
    """
    try:
        return run.engine.registry.get(_named(arguments)).definition
    except ParleyError:
        return None


def _named(arguments: Any) -> str:
    name = arguments.get("agent_type") if isinstance(arguments, dict) else None
    return name if isinstance(name, str) else ""
