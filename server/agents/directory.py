"""Where an agent is looked up: among the configured ones first, then in the project that the session belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Protocol, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from msgspec import Meta, Struct

from protocol._override import override
from protocol.commands import TOOL_NAME_PATTERN
from protocol.errors import ErrorCode, ParleyError
from server.agents.interface import Agent, AgentDefinition
from server.agents.registry import AgentFactory, Registry

__all__ = ["AgentDirectory", "ProjectAgentDefinition", "ProjectAgentSpec", "ProjectAgents"]

_AGENT_NAMESPACE = uuid5(NAMESPACE_URL, "urn:parley:project-agents")

ToolName: TypeAlias = Annotated[str, Meta(pattern=rf"^\*$|{TOOL_NAME_PATTERN}")]
FilePattern: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]


class ProjectAgentSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent as people write it for a project; what is left out is empty, and `file_patterns` null is no limit."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    description: Annotated[str, Meta(max_length=2_000)] = ""
    prompt: Annotated[str, Meta(max_length=65_536)] = ""
    tools: Annotated[tuple[ToolName, ...], Meta(max_length=256)] = ()
    file_patterns: Annotated[tuple[FilePattern, ...], Meta(max_length=64)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class ProjectAgentDefinition(AgentDefinition, frozen=True, kw_only=True):
    """An agent of a project. Others of its type may be in other projects, so its id is made of both."""

    project_id: UUID

    @property
    @override
    def agent_id(self) -> UUID:
        """A version 5 UUID (RFC 9562, section 5.5) of the project and the type."""
        return uuid5(_AGENT_NAMESPACE, f"{self.project_id}/{self.type}")

    @classmethod
    def of(cls, project_id: UUID, agent_type: str, spec: ProjectAgentSpec) -> ProjectAgentDefinition:
        """The definition of what was written. Raises ParleyError(INVALID) when the type can be no agent's."""
        try:
            return cls(
                type=agent_type,
                name=spec.name,
                description=spec.description,
                prompt=spec.prompt,
                allowed_tools=spec.tools,
                file_patterns=spec.file_patterns,
                model=spec.model,
                project_id=project_id,
            )
        except ValueError as error:
            raise ParleyError(ErrorCode.INVALID, str(error), path="$.type") from None


class ProjectAgents(Protocol):
    """The part of `storage.projects.Projects` that the directory reads."""

    async def agents_of_session(self, session_id: UUID) -> Sequence[tuple[UUID, str, bytes]]:
        """Project, type and definition of each agent of the session's project."""
        ...

    async def agents_of(self, project_id: UUID) -> Sequence[tuple[UUID, str, bytes]]:
        """The same of a project."""
        ...


class AgentDirectory:
    """All agents that a session may use. Holds nothing: what a project's owner changes counts from the next step on."""

    def __init__(self, registry: Registry, projects: ProjectAgents, run: AgentFactory) -> None:
        """`run` makes the agent that runs a project's definition: on the configured model, if there is one."""
        self.registry = registry
        self._projects = projects
        self._run = run

    async def agent(self, session_id: UUID | None, reference: str | UUID, *, project_id: UUID | None = None) -> Agent:
        """The agent of this type or `agent_id` that a session may use, or one of a project.

        Configured ones are found without asking the database. Raises ParleyError: UNKNOWN_AGENT, which lists those
        that there are; UNAVAILABLE.
        """
        try:
            return self.registry.get(reference)
        except ParleyError:
            if session_id is None and project_id is None:
                raise
        found = await self._own(session_id, project_id)
        for definition in found:
            if str(reference) in (definition.type, str(definition.agent_id)):
                return self._run(definition)
        raise self._unknown(reference, found)

    async def definition(
        self, session_id: UUID | None, reference: str | UUID, *, project_id: UUID | None = None
    ) -> AgentDefinition:
        """The same, as data."""
        return (await self.agent(session_id, reference, project_id=project_id)).definition

    async def definitions(
        self, session_id: UUID | None = None, *, project_id: UUID | None = None
    ) -> list[AgentDefinition]:
        """All that a session may use, or one of a project, in the order in which people should see them."""
        configured = list(self.registry.definitions)
        taken = {definition.type for definition in configured}
        own = await self._own(session_id, project_id)
        return [*configured, *(definition for definition in own if definition.type not in taken)]

    async def _own(self, session_id: UUID | None, project_id: UUID | None) -> list[ProjectAgentDefinition]:
        rows: Iterable[tuple[UUID, str, bytes]] = ()
        if session_id is not None:
            rows = await self._projects.agents_of_session(session_id)
        elif project_id is not None:
            rows = await self._projects.agents_of(project_id)
        return [
            ProjectAgentDefinition.of(project, agent_type, msgspec.json.decode(definition, type=ProjectAgentSpec))
            for project, agent_type, definition in rows
        ]

    def _unknown(self, reference: str | UUID, own: Iterable[AgentDefinition]) -> ParleyError:
        known = ", ".join(definition.type for definition in (*self.registry.definitions, *own))
        return ParleyError(
            ErrorCode.UNKNOWN_AGENT, f"there is no agent {str(reference)!r}; there are: {known}", path="$.agent_type"
        )
