"""Do the names that policies, prices, overrides and servers of tools give lead anywhere?

Part of `server.check.agents_inside`: what agents and tools there are is known once all of them are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from server.agents.client_tools import CLIENT_TOOLS
from server.agents.config import AgentsConfig
from server.agents.interface import ALL_TOOLS
from server.agents.registry import ASK_AGENT_TOOL, HANDOFF_TOOL, Registry
from server.check.findings import Finding, note, warning
from server.config.near import closest

__all__ = ["Names", "PolicyNames", "named"]


class PolicyNames(Struct, frozen=True):
    """What a policy names."""

    tool: str
    agent: str | None
    arguments: tuple[str, ...]


class Names(Struct, frozen=True):
    """What the configuration names beside the agents: no secret is among it.

    `servers` are those of tools, each with the agents that it is for. `models` are those that are configured, `prices`
    those that have a price.
    """

    policies: tuple[PolicyNames, ...] = ()
    servers: Mapping[str, tuple[str, ...]] = {}
    models: tuple[str, ...] = ()
    prices: tuple[str, ...] = ()


def named(config: AgentsConfig, names: Names, registry: Registry) -> Iterator[Finding]:
    """Names that lead nowhere."""
    known = _Known(registry, names)
    for agent, override in config.overrides.items():
        at = f"agents.overrides.{agent}"
        yield from known.tools(f"{at}.tools", override.tools or ())
        yield from known.agents(f"{at}.handoffs", override.handoffs or ())
        yield from known.agents(f"{at}.delegates", override.delegates or ())
    for number, policy in enumerate(names.policies):
        at = f"policies[{number}]"
        yield from known.tools(f"{at}.tool", [policy.tool])
        yield from known.agents(f"{at}.agent", [] if policy.agent is None else [policy.agent])
        yield from known.arguments(f"{at}.arguments", policy)
    for server, agents in names.servers.items():
        yield from known.agents(f"mcp.{server}.agents", agents)
    yield from _prices(names, registry)


class _Known:
    """What there is to be named."""

    def __init__(self, registry: Registry, names: Names) -> None:
        self._agents = {definition.type for definition in registry.definitions}
        self._specs = {**CLIENT_TOOLS, **{name: tool.spec for name, tool in registry.server_tools.items()}}
        self._tools = {*self._specs, HANDOFF_TOOL, ASK_AGENT_TOOL, ALL_TOOLS}
        # What these offer, they are asked by a check of their own.
        self._servers = tuple(f"{name}__" for name in names.servers)

    def tools(self, place: str, names: Iterable[str]) -> Iterator[Finding]:
        for name in sorted({*names} - self._tools):
            if not name.startswith(self._servers):
                near = closest(name, self._tools)
                advice = f"did you mean {near}?" if near else "it is there only while a client brings it"
                yield warning(f"{place}: there is no tool {name}", advice)

    def agents(self, place: str, names: Iterable[str]) -> Iterator[Finding]:
        for name in sorted({*names} - self._agents):
            near = closest(name, self._agents)
            advice = f"did you mean {near}?" if near else f"there are: {', '.join(sorted(self._agents))}"
            yield warning(f"{place}: there is no agent {name}", advice)

    def arguments(self, place: str, policy: PolicyNames) -> Iterator[Finding]:
        """Arguments that the tool does not have: no call would ever match."""
        spec = self._specs.get(policy.tool)
        has = spec.parameters.get("properties", {}) if spec else {}
        for name in sorted({*policy.arguments} - {*has}) if spec else ():
            near = closest(name, has)
            advice = f"did you mean {near}?" if near else f"it has: {', '.join(has) or 'none'}"
            yield warning(f"{place}: {policy.tool} has no argument {name}, so no call matches", advice)


def _prices(names: Names, registry: Registry) -> Iterator[Finding]:
    if not names.prices:
        return
    used = {*names.models, *(each.model for each in registry.definitions if each.model is not None)}
    for model in sorted({*names.prices} - used):
        near = closest(model, used)
        yield note(f"prices.{model}: no agent runs on a model of this name", f"did you mean {near}?" if near else "")
    for model in sorted(used - {*names.prices, ALL_TOOLS}):
        yield note(f"the model {model} has no price, so what it costs is not counted", "see [prices.MODEL]")
