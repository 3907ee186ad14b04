"""One move of a turn in the making: what its one transaction will write, put together event by event."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import structs

from protocol.events import ErrorInfo, TurnOutcome, Usage
from server.agents.interface import AgentDefinition
from server.turns import records
from server.turns.results import Result, result_event, result_message
from storage.calls import CallRow
from storage.claims import Claim
from storage.ids import new_id
from storage.log import NewEvent
from storage.moves import (
    Advance,
    Call,
    CallState,
    Dispatch,
    EndedCall,
    NewApproval,
    NewAudit,
    NewChild,
    NewMessage,
    ParentResult,
    RequestRow,
    Switch,
)

__all__ = ["Move"]


class Move:
    """Collects what is to be written. Calls that are new are written as they are when the move is `done`."""

    def __init__(self, claim: Claim, now: datetime) -> None:
        self.claim = claim
        self.now = now
        self._events: list[NewEvent] = []
        self._messages: list[NewMessage] = []
        self._new: dict[UUID, Call] = {}
        self._started: list[UUID] = []
        self._dispatches: list[Dispatch] = []
        self._ended: list[EndedCall] = []
        self._approvals: list[NewApproval] = []
        self._expired: list[UUID] = []
        self._withdrawn: list[UUID] = []
        self._audits: list[NewAudit] = []
        self._children: list[NewChild] = []
        self._switch: Switch | None = None
        self._parent: ParentResult | None = None
        self._parent_turn: UUID | None = None
        self._outcome: TurnOutcome | None = None
        self._error: ErrorInfo | None = None
        self.request: RequestRow | None = None

    @property
    def thread(self) -> UUID | None:
        """Which messages are this turn's own: those of a turn that answers a call are not the session's."""
        return self.claim.turn_id if self.claim.parent_call is not None else None

    @property
    def ends_turn(self) -> bool:
        """Whether nothing follows."""
        return self._outcome is not None

    @property
    def children(self) -> list[NewChild]:
        """The turns that begin with this move."""
        return self._children

    @property
    def concerns(self) -> list[UUID]:
        """The other turns that it sets going: those that begin with it, and the one whose call it answers."""
        turns = [child.turn_id for child in self._children]
        return turns if self._parent_turn is None else [*turns, self._parent_turn]

    def announce(self, events: Iterable[NewEvent]) -> int:
        """Add events; the ordinal of the last one."""
        self._events.extend(events)
        return len(self._events)

    def say(self, event: NewEvent, message: NewMessage) -> None:
        """Add a message and the event that announces it."""
        ordinal = self.announce([event])
        self._messages.append(structs.replace(message, ordinal=ordinal, thread=self.thread))

    def call(self, call: Call) -> None:
        """Add a call that the agent made."""
        self._new[call.call_id] = call
        self.announce([records.tool_call(self.claim, call)])

    def calls(self) -> list[Call]:
        """The new calls as they stand."""
        return list(self._new.values())

    def ask(self, call: Call, approval: NewApproval, parameters: dict[str, object] | None) -> None:
        """Let a person decide about a new call."""
        self._approvals.append(approval)
        self.announce([records.approval_required(self.claim, call, approval, parameters)])

    def audit(self, entry: NewAudit) -> None:
        """Note for later who or what decided."""
        self._audits.append(entry)

    def start(self, call: Call) -> None:
        """A tool of the server begins to run."""
        if call.call_id in self._new:
            self._new[call.call_id] = structs.replace(call, state="running", started_at=self.now)
        else:
            self._started.append(call.call_id)

    def dispatch(self, call: Call, client_id: str | None, deadline: datetime) -> None:
        """A client has the call from now on; or, with None, it waits for one."""
        if client_id is not None:
            self.announce([records.tool_dispatched(self.claim, call, client_id, deadline)])
        if call.call_id in self._new:
            state: CallState = "ready" if client_id is None else "running"
            self._new[call.call_id] = structs.replace(
                call,
                state=state,
                client_id=client_id,
                executors=() if client_id is None else (client_id,),
                deadline=deadline,
                started_at=None if client_id is None else self.now,
            )
        else:
            self._dispatches.append(Dispatch(call_id=call.call_id, client_id=client_id, deadline=deadline))

    def end_call(self, call: Call, result: Result, state: CallState) -> None:
        """A call has its one result."""
        ordinal = self.announce([result_event(self.claim.turn_id, call, result)])
        self._messages.append(result_message(call, result, ordinal, thread=self.thread))
        if call.call_id in self._new:
            self._new[call.call_id] = structs.replace(call, state=state, started_at=call.started_at)
        else:
            self._ended.append(EndedCall(call_id=call.call_id, state=state))

    def close_approval(self, call: Call, *, expired: bool) -> None:
        """The call's approval is not decided by anybody any more."""
        assert call.approval is not None, "a call that awaits approval has one"
        approval_id = call.approval.approval_id
        (self._expired if expired else self._withdrawn).append(approval_id)
        cause = "expiry" if expired else "cancel"
        self.announce(
            [
                records.approval_resolved(
                    approval_id, call, self.claim.turn_id, "reject", "expiry" if expired else "cancel"
                )
            ]
        )
        self.audit(
            NewAudit(
                event_type="approval_resolved",
                call_id=call.call_id,
                tool=call.name,
                decision="reject",
                cause=cause,
                arguments=call.arguments,
            )
        )

    def hand_over(self, agent: AgentDefinition, reason: str | None) -> None:
        """Another agent goes on with the turn, and with the session, from the next step on."""
        ordinal = self.announce([records.handed_over(self.claim, agent.type, reason)])
        self._switch = Switch(to_agent=agent.type, reason=reason, confidence=None, ordinal=ordinal)

    @property
    def next_agent(self) -> str | None:
        """Who goes on by this move, if it hands over."""
        return None if self._switch is None else self._switch.to_agent

    def begin_child(self, call: Call, agent: AgentDefinition, task: str) -> NewChild:
        """Another agent begins to answer a call, in a turn of its own."""
        turn_id, message_id = new_id(), new_id()
        first = len(self._events) + 1
        self.announce(records.child_begins(turn_id, message_id, task, agent, self.now, call.call_id))
        child = NewChild(
            turn_id=turn_id,
            call_id=call.call_id,
            agent_type=agent.type,
            message_id=message_id,
            answer_id=new_id(),
            content=task,
            ordinal=first,
        )
        self._children.append(child)
        if call.call_id in self._new:
            self._new[call.call_id] = structs.replace(call, state="running", child_turn=turn_id, started_at=self.now)
        return child

    def end_turn(self, outcome: TurnOutcome, usage: Usage, error: ErrorInfo | None) -> None:
        """The turn is over."""
        self._outcome, self._error = outcome, error
        self.announce([records.task_completed(self.claim, outcome, self.now, usage, error)])

    def answer_parent(self, call: CallRow, result: Result) -> None:
        """What this turn came to is the result of another turn's call."""
        ordinal = self.announce([result_event(call.turn_id, call, result)])
        self._messages.append(result_message(call, result, ordinal, thread=call.thread, turn_id=call.turn_id))
        self._parent = ParentResult(call_id=call.call_id, state=result.state)
        self._parent_turn = call.turn_id

    def leave_parent(self) -> None:
        """That call has its result already: what was put in for it last is taken out again."""
        self._events.pop()
        self._messages.pop()
        self._parent = None

    def done(
        self,
        step_state: Literal["running", "tools", "done"],
        *,
        expected_news: int | None = None,
        park: bool = False,
        next_message_id: UUID | None = None,
    ) -> Advance:
        """The whole move."""
        spent = self.request
        return Advance(
            step_state=step_state,
            events=self._events,
            messages=self._messages,
            calls=self.calls(),
            started_calls=self._started,
            dispatches=self._dispatches,
            ended_calls=self._ended,
            approvals=self._approvals,
            expired=self._expired,
            withdrawn=self._withdrawn,
            audits=self._audits,
            switch=self._switch,
            children=self._children,
            parent_result=self._parent,
            turn_state=self._outcome,
            error=None if self._error is None else (self._error.code, self._error.message),
            prompt_tokens=0 if spent is None else spent.prompt_tokens,
            completion_tokens=0 if spent is None else spent.completion_tokens,
            cost=None if spent is None else spent.cost,
            request=spent,
            next_message_id=next_message_id,
            expected_news=expected_news,
            park=park,
        )
