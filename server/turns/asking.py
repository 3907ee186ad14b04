"""What becomes of the calls that an agent has written: refused, allowed, or put before a person.

Decided before anything is stored or anybody is asked: a call that nobody could approve (a tool that does not exist,
arguments that do not fit, a file that the agent may not change) fails at once, as a result that the model reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast
from uuid import UUID

import msgspec
from msgspec import Struct

from server.agents.arguments import hash_of, problem
from server.agents.interface import AgentDefinition, ToolSpec
from server.agents.registry import ASK_AGENT_TOOL, HANDOFF_TOOL
from server.turns.policy import Rule, Verdict
from storage.approvals import RuleRow
from storage.ids import new_id
from storage.moves import Call, NewApproval, NewAudit, OpenApproval

if TYPE_CHECKING:
    from server.turns.run import TurnRun

__all__ = ["Asked", "ask"]

NO_TOOL = "The {agent} agent may not use a tool {name!r}; there are: {tools}."
NO_JSON = "The arguments of {name} are not valid JSON ({why})."
NO_FIT = "The arguments of {name} do not fit: {wrong}"
NO_OBJECT = "The arguments of {name} are no JSON object."


class Asked(Struct, frozen=True, kw_only=True):
    """A call and what becomes of it: `refusal` is what the model reads, `approval` what a person is asked."""

    call: Call
    refusal: str | None = None
    approval: NewApproval | None = None
    parameters: dict[str, Any] | None = None
    audit: NewAudit | None = None


async def ask(run: TurnRun, agent: AgentDefinition, written: Sequence[tuple[UUID, str, str]]) -> list[Asked]:
    """What becomes of each call, in the agent's order; `written` are their ids, tools and arguments."""
    engine, claim = run.engine, run.claim
    rules = await engine.persist(lambda: engine.rules.in_force(claim.owner, claim.session_id))
    known = [_rule(rule) for rule in rules]
    return [_asked(run, agent, ordinal, call, known) for ordinal, call in enumerate(written, start=1)]


def _asked(
    run: TurnRun, agent: AgentDefinition, ordinal: int, written: tuple[UUID, str, str], rules: Sequence[Rule]
) -> Asked:
    call_id, name, text = written
    spec = run.offered.get(name)
    call = Call(
        call_id=call_id,
        name=name,
        arguments=text.strip() or "{}",
        executor=_executor(name, spec),
        state="ready",
        read_only=spec is not None and spec.read_only,
        independent=spec is not None and spec.independent,
        ordinal=ordinal,
    )
    if spec is None:
        tools = ", ".join(sorted(run.offered)) or "none"
        return Asked(call=call, refusal=NO_TOOL.format(name=name, agent=agent.type, tools=tools))
    arguments = _arguments(call, spec)
    if isinstance(arguments, str):
        return Asked(call=call, refusal=arguments)
    verdict = run.engine.terms.policy.verdict(agent, spec, name, arguments, rules)
    if verdict.effect == "deny":
        return Asked(call=call, refusal=verdict.reason or f"{name} is not allowed", audit=_audit(call, verdict))
    if verdict.effect == "allow":
        return Asked(call=call, audit=_audit(call, verdict) if verdict.rule.startswith("rule:") else None)
    return _waiting(run, agent, call, spec, verdict)


def _arguments(call: Call, spec: ToolSpec) -> dict[str, Any] | str:
    """The arguments as they fit the tool; else why they do not, for the model."""
    try:
        arguments = msgspec.json.decode(call.arguments)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return NO_JSON.format(name=call.name, why=error)
    if not isinstance(arguments, dict):
        return NO_OBJECT.format(name=call.name)
    wrong = problem(spec.parameters, arguments)
    return arguments if wrong is None else NO_FIT.format(name=call.name, wrong=wrong)


def _waiting(run: TurnRun, agent: AgentDefinition, call: Call, spec: ToolSpec, verdict: Verdict) -> Asked:
    settings, now = run.engine.terms.approvals, run.engine.now()
    expires_at = None if verdict.timeout is None else now + timedelta(seconds=verdict.timeout)
    approval = NewApproval(
        approval_id=new_id(),
        call_id=call.call_id,
        agent_type=agent.type,
        name=call.name,
        arguments_hash=hash_of(call.arguments),
        allowed_decisions=tuple(verdict.allowed_decisions),
        rule=verdict.rule,
        reason=verdict.reason,
        parameters=msgspec.json.encode(spec.parameters),
        expires_at=expires_at,
        due_at=None if expires_at is None else max(now, expires_at - timedelta(seconds=settings.warn_before)),
    )
    return Asked(
        call=msgspec.structs.replace(
            call, state="awaiting_approval", approval=OpenApproval(approval.approval_id, expires_at)
        ),
        approval=approval,
        parameters=spec.parameters,
    )


def _rule(row: RuleRow) -> Rule:
    return Rule(
        rule_id=row.rule_id,
        scope=cast("Literal['session', 'user']", row.scope),
        tool=row.tool,
        effect=cast("Literal['allow', 'deny']", row.effect),
        session_id=row.session_id,
        arguments={} if row.arguments is None else msgspec.json.decode(row.arguments, type=dict[str, str]),
    )


def _executor(name: str, spec: ToolSpec | None) -> Any:
    if name == ASK_AGENT_TOOL:
        return "agent"
    return "server" if spec is None or name == HANDOFF_TOOL else spec.executor


def _audit(call: Call, verdict: Verdict) -> NewAudit:
    return NewAudit(
        event_type="tool_policy",
        call_id=call.call_id,
        tool=call.name,
        decision="approve" if verdict.effect == "allow" else "reject",
        cause="rule",
        arguments=call.arguments,
        executed=call.arguments if verdict.effect == "allow" else None,
        rule=verdict.rule,
    )
