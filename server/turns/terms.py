"""The terms on which turns run: tools, approvals and prices as configured, and who is there beside the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

from server.agents.interface import Agent
from server.clock import SystemClock
from server.turns.executors import Executors, NoExecutors
from server.turns.limits import LimitSettings
from server.turns.policy import Policy
from server.turns.pricing import Prices
from server.turns.settings import ApprovalSettings, ToolsSettings
from server.turns.spaces import Spaces

__all__ = ["AgentLookup", "Terms"]

#: Finds an agent by its type or id for a session, whose project may have agents of its own.
AgentLookup: TypeAlias = Callable[[UUID, str], Awaitable[Agent]]


def _nobody(_turn_id: UUID) -> None:
    """There is no other process to tell."""


@dataclass
class Terms:
    """One object of each; what is not given is as an empty configuration has it, on a server without company.

    Without `agents` there are those of the registry alone.
    `stir` tells the process that runs a turn, if it is another one, that there is news of it.
    """

    policy: Policy = field(default_factory=Policy)
    prices: Prices = field(default_factory=lambda: Prices({}))
    tools: ToolsSettings = field(default_factory=ToolsSettings)
    approvals: ApprovalSettings = field(default_factory=ApprovalSettings)
    spaces: Spaces = field(default_factory=lambda: Spaces(LimitSettings(), SystemClock()))
    executors: Executors = field(default_factory=NoExecutors)
    agents: AgentLookup | None = None
    stir: Callable[[UUID], None] = _nobody
