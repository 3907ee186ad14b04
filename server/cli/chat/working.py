"""What agents are doing: the calls that are under way, and the agents that were asked by others."""

from __future__ import annotations

from uuid import UUID

from protocol.durable import TaskCompleted, TaskStarted, ToolCall, ToolDispatched, ToolResultEvent
from protocol.events import ToolProgressEvent
from server.cli.chat.calls import Call
from server.cli.text import one_line

__all__ = ["Working"]

_PROGRESS = 100


class Working:
    """The calls without a result. `take` is told of what happens, `end` of a result."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}
        #: The turns of agents that others asked, while they run.
        self.asked: set[UUID] = set()
        #: How deep such turns stand, and in which turn a call was made.
        self._depths: dict[UUID, int] = {}
        self._turns: dict[str, UUID] = {}

    def clear(self) -> None:
        """The turn is over."""
        for known in (self.calls, self.asked, self._depths, self._turns):
            known.clear()

    def depth(self, turn_id: UUID | None) -> int:
        """How many agents stand between a turn and the one that people asked."""
        return 0 if turn_id is None else self._depths.get(turn_id, 0)

    def take(self, payload: object) -> bool:
        """Take an event; False if it says nothing about work."""
        match payload:
            case ToolCall(call_id=call_id, turn_id=turn_id):
                self.calls[call_id] = Call.of(payload)._replace(depth=self.depth(turn_id))
                self._turns[call_id] = turn_id
            case ToolDispatched(call_id=call_id):
                # A person may have changed the arguments.
                if call_id in self.calls:
                    self.calls[call_id] = self.calls[call_id]._replace(arguments=payload.arguments)
            case ToolProgressEvent(call_id=call_id):
                if call_id in self.calls:
                    self.calls[call_id] = self.calls[call_id]._replace(progress=_progress(payload))
            case TaskStarted(parent_call_id=str() as call_id, turn_id=turn_id):
                self._depths[turn_id] = self.depth(self._turns.get(call_id)) + 1
                self.asked.add(turn_id)
            case _:
                if isinstance(payload, TaskCompleted):
                    self.asked.discard(payload.turn_id)
                return False
        return True

    def end(self, result: ToolResultEvent) -> Call:
        """The call that a result belongs to."""
        known = self.calls.pop(result.call_id, None)
        return known or Call(result.name, depth=self.depth(result.turn_id))


def _progress(payload: ToolProgressEvent) -> str:
    parts = [one_line(payload.message, _PROGRESS)] if payload.message else []
    parts += [f"{payload.fraction:.0%}"] if payload.fraction is not None else []
    return f"… {' '.join(parts)}".rstrip()
