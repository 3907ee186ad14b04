"""Moves about calls, in a line each: asked, parked, dispatched, answered, decided."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from storage.commands import DecisionPlan, NewRule, Reply, ResultPlan
from storage.ids import new_id
from storage.sessions import Session
from storage.turns import (
    Advance,
    Advanced,
    Call,
    CallState,
    Claim,
    Dispatch,
    EndedCall,
    NewApproval,
    NewAudit,
    NewChild,
    NewMessage,
    OpenApproval,
)
from tests.storage.scene import NOW, Scene, event

#: A moment that no clock of these tests comes to, and one that all have passed.
LATER: Final = NOW + timedelta(hours=1)
BEFORE: Final = NOW - timedelta(hours=1)


def client_call(name: str = "look", **more: Any) -> Call:
    """A call that a client runs."""
    return Call(**{"call_id": new_id(), "name": name, "arguments": '{"a": 1}', "executor": "client", **more})


def asked_call(name: str = "remove", expires_at: datetime | None = None) -> Call:
    """A call that waits for a person."""
    return client_call(name, state="awaiting_approval", approval=OpenApproval(new_id(), expires_at))


def approval_of(call: Call, **more: Any) -> NewApproval:
    """What a person is asked about it."""
    assert call.approval is not None
    return NewApproval(
        **{
            "approval_id": call.approval.approval_id,
            "call_id": call.call_id,
            "agent_type": "universal",
            "name": call.name,
            "arguments_hash": b"\x00\xffhash",
            "allowed_decisions": ("approve", "edit", "reject"),
            "rule": "policies[0]",
            "reason": "it removes",
            "parameters": b'{"type":"object"}',
            "expires_at": call.approval.expires_at,
            **more,
        }
    )


def asking(claim: Claim, *calls: Call, **more: Any) -> Advance:
    """The step ends in these calls."""
    thread = claim.turn_id if claim.depth else None
    message = NewMessage(
        message_id=claim.message_id,
        ordinal=1,
        role="assistant",
        content="let me see",
        finish_reason="tool_calls",
        thread=thread,
    )
    return Advance(
        **{
            "step_state": "tools",
            "events": [event("message_created"), *(event("tool_call") for _ in calls)],
            "messages": [message],
            "calls": calls,
            "approvals": [approval_of(call) for call in calls if call.approval is not None],
            **more,
        }
    )


def result_of(call: Call, text: str = "42", *, ordinal: int = 1, **more: Any) -> NewMessage:
    """A call's result as the model reads it."""
    return NewMessage(
        message_id=new_id(), ordinal=ordinal, role="tool", content=text, name=call.name, call_id=call.call_id, **more
    )


def ending(claim: Claim, *calls: Call, state: CallState = "completed", **more: Any) -> Advance:
    """The calls have their results."""
    thread = claim.turn_id if claim.depth else None
    return Advance(
        **{
            "step_state": "tools",
            "events": [event("tool_result") for _ in calls],
            "messages": [result_of(call, ordinal=number, thread=thread) for number, call in enumerate(calls, start=1)],
            "ended_calls": [EndedCall(call_id=call.call_id, state=state) for call in calls],
            **more,
        }
    )


def dispatch(call: Call, client_id: str | None = "c1", deadline: datetime | None = LATER) -> Dispatch:
    return Dispatch(call_id=call.call_id, client_id=client_id, deadline=deadline)


def child_of(call: Call, ordinal: int = 1) -> NewChild:
    """A turn that answers the call; its task is announced by the event of that ordinal."""
    return NewChild(
        turn_id=new_id(),
        call_id=call.call_id,
        agent_type="coder",
        message_id=new_id(),
        answer_id=new_id(),
        content="the task",
        ordinal=ordinal,
    )


class Calling:
    """A turn with calls, acted on in a line each."""

    def __init__(self, scene: Scene, session: Session, claim: Claim) -> None:
        self.scene = scene
        self.session = session
        self.claim = claim

    @classmethod
    async def begun(cls, scene: Scene, *calls: Call, park: bool = False, **more: Any) -> Calling:
        """A turn whose first step has ended in these calls."""
        session = await scene.session()
        self = cls(scene, session, await scene.begun(session))
        advanced = await self.move(asking(self.claim, *calls, park=park, **more))
        assert advanced.parked == park
        self.claim.state = "tools"
        return self

    async def move(self, move: Advance) -> Advanced:
        return await self.scene.turns.advance(self.claim, move, self.scene.now())

    async def park(self, **more: Any) -> Advanced:
        """Wait, with all news known."""
        return await self.move(Advance(step_state="tools", park=True, expected_news=self.claim.news, **more))

    async def result(
        self, call: Call, command_id: str = "result", client: str | None = "c1", body: str = "42", **head: Any
    ) -> Reply:
        """What a client's tool came to."""
        plan = ResultPlan(
            state="completed", client_id=client, message=result_of(call, body), events=[event("tool_result", body)]
        )
        head = {"body": body, "client": client, **head}
        return await self.scene.commands.tool_result(
            self.scene.head(self.session, command_id, **head), call.call_id, plan
        )

    async def decide(
        self,
        call: Call,
        decision: str = "approve",
        command_id: str = "decide",
        *,
        rule: NewRule | None = None,
        **head: Any,
    ) -> Reply:
        """What a person decided."""
        states = {
            "approve": ("approved", "ready"),
            "edit": ("edited", "ready"),
            "reject": ("rejected", "rejected"),
            "respond": ("responded", "completed"),
        }
        approval_state, call_state = states[decision]
        settled = decision in ("reject", "respond")
        plan = DecisionPlan(
            approval_state=approval_state,  # type: ignore[arg-type]
            call_state=call_state,  # type: ignore[arg-type]
            events=[event("approval_resolved"), *([event("tool_result")] if settled else [])],
            audit=NewAudit(
                event_type="approval_resolved",
                user_id="ada",
                client_id="c1",
                transport="websocket",
                tool=call.name,
                decision=decision,
                cause="person",
                arguments=call.arguments,
                executed=None if settled else '{"a": 2}' if decision == "edit" else call.arguments,
                feedback="because",
                rule="policies[0]",
            ),
            final_arguments='{"a": 2}' if decision == "edit" else None,
            feedback="because",
            message=result_of(call, "no", ordinal=2) if settled else None,
            rule=rule,
        )
        return await self.scene.commands.decide(
            self.scene.head(self.session, command_id, **{"body": decision, **head}), call.call_id, plan
        )

    async def state(self) -> tuple[str, int]:
        """The turn's state and its news."""
        (row,) = await self.scene.rows("SELECT state, news FROM turns WHERE turn_id = $1", self.claim.turn_id)
        return row["state"], row["news"]

    async def row(self, call: Call) -> dict[str, Any]:
        """The call as it stands."""
        (row,) = await self.scene.rows("SELECT * FROM tool_calls WHERE call_id = $1", call.call_id)
        return dict(row)

    async def cancel(self, command_id: str = "stop") -> Reply:
        return await self.scene.cancel(self.session, command_id, self.claim.turn_id)

    async def end_all(self, claim: Claim, *, state: CallState = "cancelled") -> None:
        """Whoever holds the turn ends it and its open calls, as an engine does at a cancellation."""
        step = await self.scene.turns.calls(claim)
        left = [call for call in step.calls if call.open]
        withdrawn = [call.approval.approval_id for call in left if call.approval is not None]
        await self.scene.turns.advance(
            claim,
            ending(
                claim,
                *left,
                state=state,
                step_state="done",
                turn_state=state,
                withdrawn=withdrawn,
                expected_news=step.news,
            ),
            self.scene.now(),
        )
