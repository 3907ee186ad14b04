"""Which agents there are, and which tools each of them gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

import msgspec

from protocol.errors import ErrorCode, ParleyError
from server.agents.builtin_tools import BUILTIN_TOOLS
from server.agents.client_tools import CLIENT_TOOLS
from server.agents.config import AgentOverride, AgentsConfig
from server.agents.interface import Agent, AgentDefinition, FunctionAgent, Tool, ToolSpec
from server.agents.loading import AgentLoadError, FileLoader, load_entry_points
from server.agents.offline import OFFLINE, OfflineAgent
from server.agents.shipped import shipped_definitions
from server.agents.tools import ServerTool

__all__ = ["ASK_AGENT_TOOL", "HANDOFF_TOOL", "AgentFactory", "Registry"]

HANDOFF_TOOL = "handoff"
"""The tool by which an agent hands its turn to another; the engine answers it, with one result like any other."""

ASK_AGENT_TOOL = "ask_agent"
"""The tool by which an agent asks another one and goes on with what it answers, in a turn of that one's own."""

AgentFactory = Callable[[AgentDefinition], Agent]
"""Makes the agent that runs a definition on a model."""


class Registry:
    """The agents and server tools of one running server; it does not change after it was built."""

    def __init__(self, agents: Iterable[Agent], tools: Iterable[Tool], *, default: str) -> None:
        """Collect agents (in the order in which people will see them) and server tools.

        Raises ``ValueError`` when two have the same name or when there is no agent ``default``.
        """
        self._agents: dict[str, Agent] = {}
        for agent in agents:
            if self._agents.setdefault(agent.definition.type, agent) is not agent:
                raise ValueError(f"there are two agents of type {agent.definition.type!r}")
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if self._tools.setdefault(tool.spec.name, tool) is not tool:
                raise ValueError(f"there are two server tools named {tool.spec.name!r}")
            if tool.spec.name in CLIENT_TOOLS or tool.spec.name == HANDOFF_TOOL:
                raise ValueError(f"a server tool may not be named {tool.spec.name!r}: the name is taken")
        self._by_id = {agent.definition.agent_id: agent for agent in self._agents.values()}
        if default not in self._agents:
            raise ValueError(f"the default agent {default!r} does not exist; there are: {', '.join(self._agents)}")
        self.default = self._agents[default].definition

    @classmethod
    def build(cls, config: AgentsConfig, *, base: Path | None = None, model: AgentFactory | None = None) -> Registry:
        """The registry that a configuration describes.

        ``base`` is the folder that relative paths start at (default: the working directory). ``model`` makes the
        agents that run on a model; without it, the offline agent stands in for each. Raises ``AgentLoadError`` for
        what is wrong in a user's file and ``ValueError`` for what is wrong in the configuration.
        """
        user_agents, user_tools = _load(config, base or Path.cwd())

        def offline(definition: AgentDefinition) -> Agent:
            return OfflineAgent(definition, config.offline)

        definitions = {definition.type: definition for definition in shipped_definitions()}
        drivers: dict[str, AgentFactory] = dict.fromkeys(definitions, model or offline)
        if model is None or config.default == OFFLINE.type:
            definitions[OFFLINE.type], drivers[OFFLINE.type] = OFFLINE, offline
        for agent in user_agents:
            # A user's agent replaces a shipped one of the same type.
            definitions[agent.definition.type] = agent.definition
            drivers[agent.definition.type] = _redefine(agent)
        if unknown := config.overrides.keys() - definitions.keys():
            raise ValueError(f"no agent {min(unknown)!r} to override; there are: {', '.join(definitions)}")
        agents = [
            drivers[name](_overridden(definition, config.overrides.get(name, AgentOverride())))
            for name, definition in definitions.items()
            if config.overrides.get(name, AgentOverride()).enabled
        ]
        default = config.default or ("orchestrator" if model else OFFLINE.type)
        return cls(agents, (*BUILTIN_TOOLS, *user_tools), default=default)

    @property
    def definitions(self) -> tuple[AgentDefinition, ...]:
        """All agents, in the order in which people should see them."""
        return tuple(agent.definition for agent in self._agents.values())

    @property
    def server_tools(self) -> Mapping[str, Tool]:
        """The tools that the server runs itself, by name."""
        return MappingProxyType(self._tools)

    def get(self, reference: str | UUID) -> Agent:
        """The agent of this type or ``agent_id``; ``ParleyError`` (``unknown_agent``) lists those that there are."""
        agent = self._agents.get(reference) if isinstance(reference, str) else None
        if agent is None:
            agent_id = _uuid(reference) if isinstance(reference, str) else reference
            agent = None if agent_id is None else self._by_id.get(agent_id)
        if agent is None:
            known = ", ".join(self._agents)
            raise ParleyError(
                ErrorCode.UNKNOWN_AGENT,
                f"there is no agent {str(reference)!r}; there are: {known}",
                path="$.agent_type",
            )
        return agent

    def tools_for(self, definition: AgentDefinition, registered: Iterable[ToolSpec] = ()) -> tuple[ToolSpec, ...]:
        """The tools that the agent may call, each name once.

        ``registered`` are those that the session's clients offer; they replace a standard client tool of the same
        name, and never a server tool. The hand-off tool is there for an agent that may hand over.
        """
        offered = dict(CLIENT_TOOLS)
        offered.update((spec.name, spec) for spec in registered if spec.name != HANDOFF_TOOL)
        offered.update((name, tool.spec) for name, tool in self._tools.items())
        allowed = [spec for name, spec in offered.items() if definition.allows_tool(name)]
        if handoff := self._handoff(definition):
            allowed.append(handoff)
        return tuple(allowed)

    def _handoff(self, definition: AgentDefinition) -> ToolSpec | None:
        targets = [self._agents[name].definition for name in definition.handoffs if name in self._agents]
        if not targets:
            return None
        who = "\n".join(f"- {target.type}: {target.description}" for target in targets)
        return ToolSpec(
            name=HANDOFF_TOOL,
            description=f"Hand this turn to another agent, which goes on with the whole conversation:\n{who}",
            parameters={
                "type": "object",
                "properties": {
                    "agent_type": {"type": "string", "enum": [target.type for target in targets]},
                    "reason": {"type": "string", "description": "The goal, and what you found out, in one sentence."},
                },
                "required": ["agent_type"],
                "additionalProperties": False,
            },
            executor="server",
            read_only=True,
            idempotent=True,
        )


def _load(config: AgentsConfig, base: Path) -> tuple[list[Agent], list[Tool]]:
    """The agents and tools of the user's files and of installed packages, each tool once."""
    files = FileLoader(base)
    found = [(reference, files.load(reference)) for reference in config.python]
    if config.entry_points:
        found += load_entry_points()
    agents: dict[str, Agent] = {}
    tools: dict[int, Tool] = {}
    for source, item in found:
        if isinstance(item, ServerTool):
            tools[id(item)] = item
        elif isinstance(item, Agent):
            if item.definition.type in agents:
                raise AgentLoadError(f"{source}: there is already an agent of type {item.definition.type!r}")
            agents[item.definition.type] = item
            tools.update((id(tool), tool) for tool in getattr(item, "tools", ()))
        else:
            raise AgentLoadError(
                f"{source} is {type(item).__name__}; expected an agent (@agent on an async generator function, or an "
                "object with 'definition' and 'run') or a tool (@tool on a function)"
            )
    return list(agents.values()), list(tools.values())


def _redefine(agent: Agent) -> AgentFactory:
    """A factory that runs the user's agent under a definition that the configuration may have changed."""

    def make(definition: AgentDefinition) -> Agent:
        if isinstance(agent, FunctionAgent):
            return agent.with_definition(definition)
        if definition != agent.definition:
            raise ValueError(f"agent {definition.type!r} defines itself; only 'enabled' can be overridden")
        return agent

    return make


def _overridden(definition: AgentDefinition, override: AgentOverride) -> AgentDefinition:
    changes = {
        "name": override.name,
        "description": override.description,
        "prompt": override.prompt,
        "allowed_tools": override.tools,
        "file_patterns": override.file_patterns,
        "handoffs": override.handoffs,
        "model": override.model,
    }
    return msgspec.structs.replace(
        definition, **{field: value for field, value in changes.items() if value is not None}
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
