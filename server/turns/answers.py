"""What clients answer to agents: the results of tools that they ran, and the decisions of people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from protocol.commands import Decision, HitlDecision, ToolProgress, ToolResult
from protocol.errors import ErrorCode, ParleyError
from protocol.events import ApprovalResolved, ToolProgressEvent
from protocol.ids import format_timestamp
from protocol.values import clean_text
from server.agents.arguments import problem
from server.turns import records
from server.turns.engine import Engine
from server.turns.matching import MAX_PATTERN
from server.turns.results import Result, rejected, result_event, result_message
from storage.calls import CallApproval, CallRow
from storage.commands import CommandHead, Commands, DecisionPlan, NewRule, Reply, ResultPlan
from storage.ids import new_id
from storage.moves import CallState, NewAudit

if TYPE_CHECKING:
    from server.turns.service import Origin
    from storage.sessions import Session

__all__ = ["Answers"]

_Decided: TypeAlias = Literal["approved", "edited", "rejected", "responded"]

#: What a decision makes of the approval and of the call.
_OUTCOMES: Final[dict[Decision, tuple[_Decided, CallState]]] = {
    "approve": ("approved", "ready"),
    "edit": ("edited", "ready"),
    "reject": ("rejected", "rejected"),
    "respond": ("responded", "completed"),
}


class Answers:
    """Prepares answers and stores each in one statement; the first one wins, there and nowhere else."""

    def __init__(self, engine: Engine, commands: Commands) -> None:
        self._engine = engine
        self._commands = commands

    async def tool_result(self, row: CallRow, command: ToolResult, head: CommandHead, origin: Origin) -> Reply:
        """A client has run a call."""
        took = None
        if row.started_at is not None:
            took = max(0, round((head.now - row.started_at).total_seconds() * 1000))
        error = None if command.error is None else clean_text(command.error)
        result = Result(value=command.result, error=error, duration_ms=took)
        plan = ResultPlan(
            state="completed" if error is None else "failed",
            client_id=origin.client_id,
            message=result_message(row, result, 1, thread=row.thread, turn_id=row.turn_id),
            events=[result_event(row.turn_id, row, result, origin.client_id)],
        )
        return await self._commands.tool_result(head, row.call_id, plan)

    async def decide(self, row: CallRow, command: HitlDecision, head: CommandHead, origin: Origin) -> Reply:
        """A person has decided about a call."""
        asked = _asked(command, row)
        final = await self._edited(command, row)
        approval_state, call_state = _OUTCOMES[command.decision]
        executed = (final or row.arguments) if call_state == "ready" else None
        feedback = None if command.feedback is None else clean_text(command.feedback)
        resolved = ApprovalResolved(
            approval_id=asked.approval_id,
            call_id=str(row.call_id),
            turn_id=row.turn_id,
            decision=command.decision,
            cause="person",
            arguments=None if executed is None else records.value_of(executed),
            feedback=feedback,
            user=origin.user_id,
            client_id=origin.client_id,
            command_id=command.id,
        )
        events, message = [records.event(resolved)], None
        if call_state != "ready":
            result = rejected(feedback) if call_state == "rejected" else Result(value=feedback)
            events.append(result_event(row.turn_id, row, result))
            message = result_message(row, result, len(events), thread=row.thread, turn_id=row.turn_id)
        plan = DecisionPlan(
            approval_state=approval_state,
            call_state=call_state,
            final_arguments=final,
            feedback=feedback,
            message=message,
            events=events,
            audit=_audit(command, row, origin, executed, feedback),
            rule=_rule(command, row, origin),
        )
        return await self._commands.decide(head, row.call_id, plan)

    async def progress(self, session: Session, command: ToolProgress, origin: Origin) -> None:
        """A client is at work on a call: it may go on, and everybody sees how far it is."""
        if origin.client_id is None:
            raise ParleyError(
                ErrorCode.INVALID,
                "progress comes from the client that runs the call: name it (client_id)",
                id=command.id,
            )
        deadline = self._engine.now() + timedelta(seconds=self._engine.terms.tools.deadline)
        call_id = _call_id(command.call_id, command.id)
        await self._engine.calls.progress(session.session_id, call_id, origin.client_id, deadline)
        self._engine.outlet.transient(
            session.session_id,
            "tool_progress",
            ToolProgressEvent(
                call_id=command.call_id,
                message=command.message,
                fraction=command.fraction,
                client_id=origin.client_id,
                deadline=format_timestamp(deadline),
            ),
        )

    # --- who can run calls

    async def client_joined(self, session_id: UUID, client_id: str) -> None:
        """A client is here (again): its calls stay with it."""
        await self._engine.calls.keep(session_id, client_id)

    async def client_left(self, session_id: UUID, client_id: str) -> None:
        """A client is gone: its calls wait for it, but not for ever."""
        release_at = self._engine.now() + timedelta(seconds=self._engine.terms.tools.grace)
        await self._engine.calls.release(session_id, client_id, release_at)
        self._engine.look(session_id)

    async def tools_registered(self, session_id: UUID, names: Sequence[str]) -> None:
        """Calls that waited for somebody who offers these tools go on."""
        engine = self._engine
        for claim in await engine.calls.claim_for_tools(engine.worker_id, session_id, names):
            engine.begin(claim)
        engine.look(session_id)

    # --- inside

    async def find(self, session: Session, call_id: str, command_id: str) -> CallRow:
        """The call that a command is about. Raises ParleyError NOT_FOUND."""
        row = await self._engine.calls.find(session.session_id, _call_id(call_id, command_id))
        if row is None:
            raise _unknown(call_id, command_id)
        return row

    async def _edited(self, command: HitlDecision, row: CallRow) -> str | None:
        """The arguments that a person put in place of the agent's: they must be what the agent might have written."""
        arguments = command.modified_arguments
        if arguments is None:
            return None
        asked = row.approval
        assert asked is not None, "only calls that were asked about are edited"
        schema = None if asked.parameters is None else msgspec.json.decode(asked.parameters)
        wrong = None if schema is None else problem(schema, arguments)
        if wrong is None:
            agent = (await self._engine.agent_of(row.session_id, row.agent_type)).definition
            verdict = self._engine.terms.policy.verdict(agent, None, row.name, arguments)
            wrong = verdict.reason if verdict.effect == "deny" else None
        if wrong is not None:
            raise ParleyError(ErrorCode.INVALID, wrong, path="$.modified_arguments", id=command.id)
        return msgspec.json.encode(arguments).decode()


def _asked(command: HitlDecision, row: CallRow) -> CallApproval:
    """What was asked about the call. Raises ParleyError when nothing was, or when this is no answer to it."""
    asked = row.approval
    if asked is None:
        raise ParleyError(ErrorCode.NOT_FOUND, "nobody was asked about this call", path="$.call_id", id=command.id)
    if command.decision not in asked.allowed_decisions:
        allowed = ", ".join(asked.allowed_decisions)
        raise ParleyError(
            ErrorCode.NOT_A_DECISION,
            f"this call does not allow `{command.decision}`, but: {allowed}",
            path="$.decision",
            id=command.id,
        )
    return asked


def _audit(command: HitlDecision, row: CallRow, origin: Origin, executed: str | None, feedback: str | None) -> NewAudit:
    """Who decided what, from where, and what will have run by that."""
    return NewAudit(
        event_type="approval_resolved",
        user_id=origin.user_id,
        client_id=origin.client_id,
        transport=origin.transport,
        turn_id=row.turn_id,
        call_id=row.call_id,
        tool=row.name,
        decision=command.decision,
        cause="person",
        arguments=row.arguments,
        executed=executed,
        feedback=feedback,
        rule=None if row.approval is None else row.approval.rule,
    )


def _rule(command: HitlDecision, row: CallRow, origin: Origin) -> NewRule | None:
    """The standing permission or refusal that the decision makes, if it makes one."""
    remember = command.remember
    if remember is None or remember.scope == "call":
        return None
    if remember.scope == "user" and origin.role != "owner":
        raise ParleyError(
            ErrorCode.FORBIDDEN,
            "a rule for all sessions of a user is for that user to make; the scope `session` is yours",
            path="$.remember.scope",
            id=command.id,
        )
    if remember.arguments and any(len(pattern) > MAX_PATTERN for pattern in remember.arguments.values()):
        raise ParleyError(
            ErrorCode.INVALID,
            f"patterns have at most {MAX_PATTERN} characters",
            path="$.remember.arguments",
            id=command.id,
        )
    return NewRule(
        rule_id=new_id(),
        scope=remember.scope,
        tool=remember.tool or row.name,
        arguments=msgspec.json.encode(remember.arguments) if remember.arguments else None,
        effect="allow" if command.decision == "approve" else "deny",
    )


def _call_id(text: str, command_id: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _unknown(text, command_id) from None


def _unknown(call_id: str, command_id: str) -> ParleyError:
    return ParleyError(
        ErrorCode.NOT_FOUND, f"there is no call {call_id!r} on this session", path="$.call_id", id=command_id
    )
