"""What becomes of a tool call: it runs, a person is asked, or it is refused. Pure: everything comes in as arguments.

A call is looked at in this order; the first that has something to say decides:

1. what the agent is: the tools that it may call and the files that it may write (refused),
2. the configured policies that refuse,
3. what people have decided for good (`Rule`): a refusal before a permission,
4. the other configured policies, in their order,
5. the defaults: what changes the workspace, and whatever nobody has vouched for, asks.

Names of tools match whole, never by their beginning. What arguments must match is in `server.turns.matching`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from protocol.commands import Decision
from server.agents.builtin_tools import BUILTIN_TOOLS
from server.agents.client_tools import CLIENT_TOOLS, file_refusal
from server.agents.interface import ALL_TOOLS, AgentDefinition, ToolSpec
from server.agents.registry import ASK_AGENT_TOOL, HANDOFF_TOOL
from server.turns.matching import matches
from server.turns.settings import ApprovalSettings, PolicySettings

__all__ = ["DECISIONS", "Effect", "Policy", "Rule", "Verdict"]

Effect: TypeAlias = Literal["allow", "ask", "deny"]

DECISIONS: Final[tuple[Decision, ...]] = ("approve", "edit", "reject", "respond")
"""What people may decide where nothing else is configured."""

_DANGEROUS: Final = frozenset({"write_file", "delete_file", "move_file", "create_directory", "execute_command"})
#: What is harmless whoever runs it: reading tools of the client's, our own tools, and talk between agents.
_HARMLESS: Final = frozenset(
    {
        *(name for name, spec in CLIENT_TOOLS.items() if spec.read_only),
        *(tool.spec.name for tool in BUILTIN_TOOLS),
        HANDOFF_TOOL,
        ASK_AGENT_TOOL,
    }
)


class Rule(Struct, frozen=True, kw_only=True):
    """What a person decided for all calls to come, of one session or of all of theirs, until it is revoked."""

    rule_id: UUID
    scope: Literal["session", "user"]
    tool: str
    effect: Literal["allow", "deny"]
    session_id: UUID | None = None
    arguments: Mapping[str, str] = {}


class Verdict(Struct, frozen=True, kw_only=True):
    """What becomes of a call.

    `rule` names what decided, for people and for the audit: `agent.tools`, `agent.files`, `policies[0]`, `rule:<id>`,
    `default.changes`, `default.unknown`, `default.harmless`. `timeout` is in seconds, None for never.
    """

    effect: Effect
    rule: str
    reason: str | None = None
    allowed_decisions: tuple[Decision, ...] = DECISIONS
    timeout: float | None = None


class Policy:
    """The configured policies and the defaults."""

    def __init__(self, policies: Sequence[PolicySettings] = (), approvals: ApprovalSettings | None = None) -> None:
        self._policies = tuple((f"policies[{number}]", policy) for number, policy in enumerate(policies))
        self._approvals = approvals or ApprovalSettings()

    def verdict(
        self,
        agent: AgentDefinition,
        tool: ToolSpec | None,
        name: str,
        arguments: Mapping[str, Any],
        rules: Iterable[Rule] = (),
    ) -> Verdict:
        """What becomes of this call of the agent's.

        `tool` is None where nobody offers a tool of that name now. `rules` are those in force for the user and the
        session of the call; of others they are not told apart here.
        """
        if refused := _forbidden(agent, tool, name, arguments):
            return refused
        denials = (each for each in self._policies if each[1].effect == "deny")
        others = (each for each in self._policies if each[1].effect != "deny")
        return (
            self._configured(denials, agent, name, arguments)
            or _remembered(rules, name, arguments)
            or self._configured(others, agent, name, arguments)
            or self._default(tool, name)
        )

    def _configured(
        self,
        policies: Iterable[tuple[str, PolicySettings]],
        agent: AgentDefinition,
        name: str,
        arguments: Mapping[str, Any],
    ) -> Verdict | None:
        for place, policy in policies:
            if policy.tool not in (name, ALL_TOOLS) or policy.agent not in (None, agent.type):
                continue
            if matches(name, policy.arguments, arguments, permitting=policy.effect == "allow"):
                reason = policy.reason
                if policy.effect == "deny":
                    reason = reason or f"a policy of this server forbids this call of {name}"
                return self._verdict(policy.effect, place, reason, policy)
        return None

    def _default(self, tool: ToolSpec | None, name: str) -> Verdict:
        if name in _DANGEROUS:
            return self._verdict("ask", "default.changes")
        # What runs here was put here by whoever runs the server; what a client says of its own tools proves nothing.
        vouched = tool is not None and tool.executor == "server" and tool.read_only
        if name in _HARMLESS or vouched:
            return self._verdict("allow", "default.harmless")
        return self._verdict("ask", "default.unknown")

    def _verdict(
        self, effect: Effect, rule: str, reason: str | None = None, policy: PolicySettings | None = None
    ) -> Verdict:
        approvals = self._approvals
        timeout, decisions = approvals.timeout, approvals.decisions
        if policy is not None:
            timeout = timeout if policy.timeout is None else policy.timeout
            decisions = policy.decisions or decisions
        return Verdict(effect=effect, rule=rule, reason=reason, allowed_decisions=decisions, timeout=timeout or None)


def _forbidden(
    agent: AgentDefinition, tool: ToolSpec | None, name: str, arguments: Mapping[str, Any]
) -> Verdict | None:
    # A tool that nobody offers now may be there again in a moment: whoever takes such tools may wait for it.
    may_call = agent.allows_tool(name) or agent.extra_tools if tool is None else _may_call(agent, tool)
    if not may_call:
        return Verdict(effect="deny", rule="agent.tools", reason=f"the {agent.type} agent may not use {name}")
    if reason := file_refusal(agent, name, arguments):
        return Verdict(effect="deny", rule="agent.files", reason=reason)
    return None


def _may_call(agent: AgentDefinition, tool: ToolSpec) -> bool:
    if tool.name == HANDOFF_TOOL:
        return bool(agent.handoffs)
    if tool.name == ASK_AGENT_TOOL:
        return bool(agent.delegates)
    return agent.may_call(tool)


def _remembered(rules: Iterable[Rule], name: str, arguments: Mapping[str, Any]) -> Verdict | None:
    found: Verdict | None = None
    for rule in rules:
        allow = rule.effect == "allow"
        if rule.tool != name or not matches(name, rule.arguments, arguments, permitting=allow):
            continue
        if not allow:
            reason = f"the user has refused such calls of {name}"
            return Verdict(effect="deny", rule=f"rule:{rule.rule_id}", reason=reason)
        found = found or Verdict(effect="allow", rule=f"rule:{rule.rule_id}")
    return found
