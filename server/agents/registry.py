"""Which agents there are, and which tools each of them gets."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
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

__all__ = ["ASK_AGENT_TOOL", "HANDOFF_TOOL", "TAKEN", "AgentFactory", "Registry", "ToolSource"]

HANDOFF_TOOL = "handoff"
"""The tool by which an agent hands its turn to another; the engine answers it, with one result like any other."""

ASK_AGENT_TOOL = "ask_agent"
"""The tool by which an agent asks another one and goes on with what it answers, in a turn of that one's own."""

TAKEN = frozenset({*CLIENT_TOOLS, HANDOFF_TOOL, ASK_AGENT_TOOL})
"""Names that a tool of the server's may not have."""

AgentFactory = Callable[[AgentDefinition], Agent]
"""Makes the agent that runs a definition on a model."""


class ToolSource(Protocol):
    """Where server tools come from that come and go while the server runs."""

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Those that there are now, by name; never one of ``TAKEN``."""


class Registry:
    """The agents and server tools of one running server.

    It does not change after it was built; its ``sources`` may.
    """

    def __init__(
        self, agents: Iterable[Agent], tools: Iterable[Tool], *, default: str, sources: Sequence[ToolSource] = ()
    ) -> None:
        """Collect agents (in the order in which people will see them), server tools, and sources of more of them.

        A tool of a source gives way to one of the same name that is there for good, or of an earlier source. Raises
        ``ValueError`` when two have the same name or when there is no agent ``default``.
        """
        self._agents: dict[str, Agent] = {}
        for agent in agents:
            if self._agents.setdefault(agent.definition.type, agent) is not agent:
                raise ValueError(f"there are two agents of type {agent.definition.type!r}")
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if self._tools.setdefault(tool.spec.name, tool) is not tool:
                raise ValueError(f"there are two server tools named {tool.spec.name!r}")
            if tool.spec.name in TAKEN:
                raise ValueError(f"a server tool may not be named {tool.spec.name!r}: the name is taken")
        self._sources = tuple(sources)
        self._by_id = {agent.definition.agent_id: agent for agent in self._agents.values()}
        if default not in self._agents:
            raise ValueError(f"the default agent {default!r} does not exist; there are: {', '.join(self._agents)}")
        self.default = self._agents[default].definition

    @classmethod
    def build(
        cls,
        config: AgentsConfig,
        *,
        base: Path | None = None,
        model: AgentFactory | None = None,
        sources: Sequence[ToolSource] = (),
    ) -> Registry:
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
        return cls(agents, (*BUILTIN_TOOLS, *user_tools), default=default, sources=sources)

    @property
    def definitions(self) -> tuple[AgentDefinition, ...]:
        """All agents, in the order in which people should see them."""
        return tuple(agent.definition for agent in self._agents.values())

    @property
    def server_tools(self) -> Mapping[str, Tool]:
        """The tools that the server runs itself, by name; those of sources as they are now."""
        if not self._sources:
            return MappingProxyType(self._tools)
        return MappingProxyType(ChainMap(self._tools, *(dict(source.tools) for source in self._sources)))

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
        name, and never a server tool. A client's tool under a name of its own, and what other servers offer, is for
        agents that name it or take ``extra_tools``. The tools to hand over and to ask other agents are there for an
        agent that may.
        """
        offered = dict(CLIENT_TOOLS)
        offered.update((spec.name, _as_registered(spec)) for spec in registered)
        offered.update((name, tool.spec) for name, tool in self.server_tools.items())
        for name in (HANDOFF_TOOL, ASK_AGENT_TOOL):
            offered.pop(name, None)
        allowed = [spec for spec in offered.values() if definition.may_call(spec)]
        if targets := self._present(definition.handoffs, definition):
            allowed.append(_handoff(targets))
        if targets := self._present(definition.delegates, definition):
            allowed.append(_ask_agent(targets))
        return tuple(allowed)

    def _present(self, types: Iterable[str], asking: AgentDefinition) -> list[AgentDefinition]:
        """Those of the agents that there are; none gets the turn from itself."""
        return [self._agents[name].definition for name in types if name in self._agents and name != asking.type]


def _as_registered(spec: ToolSpec) -> ToolSpec:
    """A client's tool; what the standard says of a tool of this name holds whatever the client forgot to say."""
    standard = CLIENT_TOOLS.get(spec.name)
    return msgspec.structs.replace(
        spec,
        parameters=spec.parameters if "type" in spec.parameters else {"type": "object", **spec.parameters},
        read_only=spec.read_only if standard is None else spec.read_only or standard.read_only,
        idempotent=spec.idempotent if standard is None else spec.idempotent or standard.idempotent,
        extra=standard is None,
        agents=None,
    )


def _handoff(targets: Sequence[AgentDefinition]) -> ToolSpec:
    return ToolSpec(
        name=HANDOFF_TOOL,
        description=f"Hand this turn to another agent, which goes on with the whole conversation:\n{_list(targets)}",
        parameters=_parameters(
            targets, {"reason": {"type": "string", "description": "The goal, and what you found out, in one sentence."}}
        ),
        executor="server",
        read_only=True,
        idempotent=True,
    )


def _ask_agent(targets: Sequence[AgentDefinition]) -> ToolSpec:
    # Neither read-only nor independent: what the other agent does meanwhile, nobody knows beforehand.
    return ToolSpec(
        name=ASK_AGENT_TOOL,
        description=(
            "Give another agent a task and get its answer; you go on yourself. It sees nothing of this conversation "
            f"but the task:\n{_list(targets)}"
        ),
        parameters=_parameters(
            targets,
            {
                "task": {
                    "type": "string",
                    "minLength": 1,
                    "description": "What to do and to answer, with all that it needs to know: paths, names, findings.",
                }
            },
            "task",
        ),
        executor="server",
    )


def _list(targets: Sequence[AgentDefinition]) -> str:
    return "\n".join(f"- {target.type}: {target.description}" for target in targets)


def _parameters(targets: Sequence[AgentDefinition], more: dict[str, object], *required: str) -> dict[str, object]:
    agent_type = {"type": "string", "enum": [target.type for target in targets]}
    return {
        "type": "object",
        "properties": {"agent_type": agent_type, **more},
        "required": ["agent_type", *required],
        "additionalProperties": False,
    }


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
        "extra_tools": override.extra_tools,
        "handoffs": override.handoffs,
        "delegates": override.delegates,
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
