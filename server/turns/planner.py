"""What can be done now about the calls of a step: decided here, purely; done in `settling`.

The calls of a step run in the order in which the agent gave them. Two of them may overlap only if one is independent of
everything, or if both change nothing: so a read never runs before the write that the agent put in front of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from storage.moves import Call

__all__ = ["Dispatched", "Ending", "Plan", "Scene", "may_overlap", "plan"]

Cause: TypeAlias = Literal["result", "cancelled", "expired", "deadline", "nobody", "lost"]


class Scene(Struct, frozen=True, kw_only=True):
    """What the plan is made from, beside the calls.

    `here` are the calls whose tools run in this process, `results` those whose result is here and not stored.
    `executor` names the client that should run a tool, `offers` says whether a client is here and offers one;
    `idempotent` whether a tool of the server may run again after its process died.
    """

    now: datetime
    cancelling: bool
    here: Collection[UUID]
    results: Collection[UUID]
    executor: Callable[[str], str | None]
    offers: Callable[[str, str], bool]
    idempotent: Callable[[str], bool]
    deadline: float
    wait: float


class Ending(Struct, frozen=True):
    """A call that is over, and why."""

    call: Call
    cause: Cause


class Dispatched(Struct, frozen=True):
    """A client's call and who has it from now on; without `client_id` it waits for somebody until the deadline."""

    call: Call
    client_id: str | None
    deadline: datetime


@dataclass
class Plan:
    """What to do now, at once and in this order; `rest` are the calls that stay open."""

    endings: list[Ending] = field(default_factory=list)
    starts: list[Call] = field(default_factory=list)
    children: list[Call] = field(default_factory=list)
    dispatches: list[Dispatched] = field(default_factory=list)
    rest: list[Call] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do but wait."""
        return not (self.endings or self.starts or self.children or self.dispatches)


def may_overlap(one: Call, other: Call) -> bool:
    """Whether two calls of a step may run at the same time."""
    return one.independent or other.independent or (one.read_only and other.read_only)


def plan(calls: Sequence[Call], scene: Scene) -> Plan:
    """What can be done now about the calls of one step, given in the agent's order."""
    made = Plan()
    for call in (call for call in calls if call.open):
        cause = _cause(call, scene)
        if cause is not None:
            made.endings.append(Ending(call, cause))
            continue
        if not scene.cancelling and call.state != "awaiting_approval":
            startable = all(may_overlap(call, earlier) for earlier in made.rest)
            _advance(call, scene, made, startable=startable)
        made.rest.append(call)
    return made


def _cause(call: Call, scene: Scene) -> Cause | None:
    """Why the call is over, if it is."""
    if call.call_id in scene.results:
        return "result"
    if scene.cancelling:
        # Another turn that answers the call is cancelled as well, and ends it; so does a tool that runs here.
        waits = call.call_id in scene.here or (call.executor == "agent" and call.state == "running")
        return None if waits else "cancelled"
    if call.state == "awaiting_approval":
        expired = call.approval is not None and _over(call.approval.expires_at, scene.now)
        return "expired" if expired else None
    if call.executor == "client" and _over(call.deadline, scene.now):
        return "deadline" if call.state == "running" else "nobody"
    if call.executor == "server" and call.state == "running" and call.call_id not in scene.here:
        return None if scene.idempotent(call.name) else "lost"
    return None


def _advance(call: Call, scene: Scene, made: Plan, *, startable: bool) -> None:
    """Bring a call on its way, if it can go on now."""
    if call.state == "running":
        if call.executor == "server" and call.call_id not in scene.here:
            # Its process died, and the tool says that it may run again.
            made.starts.append(call)
        elif call.executor == "client" and _over(call.release_at, scene.now):
            _reassign(call, scene, made)
    elif startable and call.executor == "server":
        made.starts.append(call)
    elif startable and call.executor == "agent":
        made.children.append(call)
    elif startable:
        _offer(call, scene, made)


def _offer(call: Call, scene: Scene, made: Plan) -> None:
    client_id = scene.executor(call.name)
    if client_id is not None:
        made.dispatches.append(Dispatched(call, client_id, scene.now + timedelta(seconds=scene.deadline)))
    elif call.deadline is None:
        made.dispatches.append(Dispatched(call, None, scene.now + timedelta(seconds=scene.wait)))


def _reassign(call: Call, scene: Scene, made: Plan) -> None:
    """The client that had the call did not come back in time: somebody else gets it, or it waits for somebody."""
    assert call.deadline is not None, "a call that runs at a client has a deadline"
    if call.client_id is not None and scene.offers(call.client_id, call.name):
        # It is back after all: told once more, it answers from what it did, or goes on.
        made.dispatches.append(Dispatched(call, call.client_id, call.deadline))
        return
    client_id = scene.executor(call.name)
    if client_id is not None:
        made.dispatches.append(Dispatched(call, client_id, scene.now + timedelta(seconds=scene.deadline)))
    else:
        made.dispatches.append(Dispatched(call, None, call.deadline))


def _over(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment <= now
