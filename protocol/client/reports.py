"""What REST answers about approvals, rules, branches, turns and usage, as types. Unknown fields are passed over."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from protocol.client.views import SessionInfo
from protocol.commands import Decision
from protocol.parts import ErrorInfo, Usage

__all__ = [
    "Approval",
    "ApprovalDetails",
    "ApprovalPage",
    "Branch",
    "Grouping",
    "Policies",
    "PolicyInfo",
    "RuleInfo",
    "TurnInfo",
    "TurnPage",
    "UsageGroup",
    "UsageReport",
    "UsageTotal",
]

#: By what usage is added up.
Grouping: TypeAlias = Literal["day", "model", "agent", "session"]


class ApprovalDetails(Struct, frozen=True, kw_only=True):
    """About a call that needs a decision: `parameters` is the tool's JSON Schema, `rule` the policy that asked."""

    agent_type: str
    turn_id: UUID
    arguments_hash: str
    allowed_decisions: list[Decision]
    rule: str | None
    expires_at: str | None
    parameters: dict[str, Any] | None = None


class Approval(Struct, frozen=True, kw_only=True):
    """A call that waits for a person, or did.

    `state` is `pending`, `approved`, `edited`, `rejected`, `responded` or `withdrawn`; `executed` are the arguments of
    what was approved. `decided_by` is None where nobody decided: the time was up, or the turn ended.
    """

    request_id: UUID
    session_id: UUID
    call_id: UUID
    tool_name: str
    arguments: Any
    details: ApprovalDetails
    reason: str | None
    created_at: str
    state: str = "pending"
    decided_at: str | None = None
    decided_by: str | None = None
    feedback: str | None = None
    executed: Any = None


class ApprovalPage(Struct, frozen=True, kw_only=True):
    """A page of what waits in all your sessions, the oldest first; `next` is what `after` takes for more."""

    approvals: list[Approval]
    count: int
    next: str | None = None


class PolicyInfo(Struct, frozen=True, kw_only=True):
    """A policy of the server's configuration; `arguments` maps an argument to a pattern, `timeout` is in seconds."""

    name: str
    tool: str
    effect: str
    agent: str | None = None
    arguments: dict[str, str] = {}
    reason: str | None = None
    timeout: float | None = None
    decisions: list[Decision] | None = None


class RuleInfo(Struct, frozen=True, kw_only=True):
    """What somebody decided for calls to come, of one session or of all of yours; `revoke` takes its `rule_id`."""

    rule_id: UUID
    scope: str
    tool: str
    effect: str
    created_at: str
    created_by: str
    arguments: dict[str, str] = {}
    session_id: UUID | None = None
    call_id: UUID | None = None


class Policies(Struct, frozen=True, kw_only=True):
    """The configured policies in their order, and your rules, the oldest first."""

    policies: list[PolicyInfo]
    rules: list[RuleInfo]


class Branch(SessionInfo, frozen=True, kw_only=True):
    """A new session that begins as a copy; `message_id` and `turn_id` are of what was said in it, if anything was."""

    message_id: UUID | None = None
    turn_id: UUID | None = None


class TurnInfo(Struct, frozen=True, kw_only=True):
    """A turn, and what it took.

    `duration_ms` counts what it waited for people as well, and is None until it ends; `error` is why it failed;
    `parent_call_id` is the call of another turn that it answers.
    """

    turn_id: UUID
    user_message_id: UUID
    agent_type: str
    state: str
    steps: int
    usage: Usage
    started_at: str
    cursor: str
    finished_at: str | None = None
    duration_ms: int | None = None
    error: ErrorInfo | None = None
    parent_call_id: UUID | None = None


class TurnPage(Struct, frozen=True, kw_only=True):
    """A page of a session's turns in order; `next` is what `after` takes for the following one."""

    session_id: UUID
    turns: list[TurnInfo]
    next: str | None = None


class UsageTotal(Struct, frozen=True, kw_only=True):
    """What some steps of agents used.

    `cost` adds up the steps whose price is known; `unpriced_requests` are the others that used tokens. `duration_ms` is
    the time that models took.
    """

    requests: int
    turns: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float | None
    unpriced_requests: int
    duration_ms: int


class UsageGroup(UsageTotal, frozen=True, kw_only=True):
    """The same of one day (`2026-01-02`, UTC), model, agent or session."""

    key: str | None


class UsageReport(Struct, frozen=True, kw_only=True):
    """What was used in all, and in groups, the latest first; not `complete`: there are more groups than are here."""

    usage: UsageTotal
    by: str
    groups: list[UsageGroup]
    complete: bool
    currency: str | None = None
    since: str | None = None
    until: str | None = None
