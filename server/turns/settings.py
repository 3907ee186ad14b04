"""What of the configuration turns go by: `[turns]`, `[tools]`, `[approvals]`, `[[policies]]`, `[prices]`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocol.commands import Decision

__all__ = ["ApprovalSettings", "PolicySettings", "PriceSettings", "ToolsSettings", "TurnSettings"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
#: How long a person may take: up to a year, and 0 for as long as they like.
Patience = Annotated[float, Meta(ge=0, le=31_536_000)]
Price = Annotated[float, Meta(ge=0, le=1_000_000)]


class TurnSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of turns. Times are in seconds."""

    #: Calls of the agent in one turn.
    max_steps: Annotated[int, Meta(ge=1, le=1000)] = 25
    #: How often a step is begun before its message is closed as interrupted.
    max_attempts: Annotated[int, Meta(ge=1, le=1000)] = 5
    #: How often a turn may be handed to another agent.
    max_switches: Annotated[int, Meta(ge=0, le=100)] = 8
    #: How deep agents may ask each other.
    max_depth: Annotated[int, Meta(ge=0, le=16)] = 3
    #: Tool calls in one step.
    max_calls: Annotated[int, Meta(ge=1, le=1000)] = 64
    #: Where a message is cut off (finish reason `length`).
    max_message_chars: Annotated[int, Meta(ge=1000, le=10_000_000)] = 200_000
    #: Messages that may wait for one session.
    queue_limit: Annotated[int, Meta(ge=1, le=1024)] = 100
    #: Messages that an agent is shown.
    history_limit: Annotated[int, Meta(ge=1, le=100_000)] = 400
    #: How long an agent may take over one step.
    step_timeout: Seconds = 600
    #: After how long a dead process's turns are taken over.
    lease_seconds: Seconds = 10
    #: How often the texts of messages being written are kept.
    checkpoint_interval: Seconds = 0.25


class ToolsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tools that clients run. Times are in seconds."""

    #: What a client may take over one call; each sign of progress from it begins the time anew.
    deadline: Seconds = 300.0
    #: How long a call is kept for a client that went away, before another one gets it.
    grace: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    #: How long a call waits for a client that offers its tool; then it fails, and the agent is told.
    wait: Seconds = 60.0
    #: Tools that one client may register.
    max_registered: Annotated[int, Meta(ge=1, le=256)] = 128


class ApprovalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tool calls that wait for a person. Times are in seconds."""

    #: After how long a call that nobody decided about is rejected; 0 is never. Policies may say otherwise.
    timeout: Patience = 0.0
    #: How long before that those who follow the session are warned; 0 is not at all.
    warn_before: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    #: What people may decide: `approve`, `edit`, `reject`, `respond`. Policies may say otherwise.
    decisions: Annotated[tuple[Decision, ...], Meta(min_length=1)] = ("approve", "edit", "reject", "respond")


class PolicySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which tool calls run, wait for a person, or are refused. A refusal wins; of the others the first that matches."""

    #: The exact name of the tool, no pattern; `*` stands for all.
    tool: Annotated[str, Meta(min_length=1, max_length=128, examples=["execute_command"])]
    #: What is done with the call: `allow` runs it, `ask` lets a person decide, `deny` refuses it.
    effect: Literal["allow", "ask", "deny"]
    #: The type of the agent that calls; when missing, every agent.
    agent: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    #: Only calls whose arguments match these patterns: `{ path = "docs/*" }`. `*` is any text, `?` one character.
    arguments: dict[str, Annotated[str, Meta(max_length=1024)]] = {}
    #: Why, in a sentence: for people who decide, and for the agent where it is refused.
    reason: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    #: After how long nobody's decision is a rejection, in place of `approvals.timeout`; 0 is never.
    timeout: Patience | None = None
    #: What people may decide, in place of `approvals.decisions`.
    decisions: Annotated[tuple[Decision, ...], Meta(min_length=1)] | None = None


class PriceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, by its name: `[prices."gpt-4.1"]`. Without a price, tokens are counted and no cost."""

    #: A million tokens that the model reads.
    prompt: Price
    #: A million tokens that the model writes.
    completion: Price
    #: The currency, the same for all models, as costs are added up.
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", examples=["EUR"])] = "USD"
