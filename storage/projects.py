"""Projects: a user's sessions and agents put together under a name."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, TypedDict, Unpack
from uuid import UUID

import asyncpg
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import parse_alias
from storage.ids import as_uuid, new_id
from storage.pool import Database

__all__ = ["Project", "ProjectAgent", "ProjectFields", "ProjectPage", "Projects"]


class Project(Struct, frozen=True, kw_only=True):
    """A project; `alias` is its owner's own name for it in addresses, `name` what people read."""

    project_id: UUID
    owner: str
    alias: str | None
    name: str
    description: str | None
    created_at: datetime
    updated_at: datetime


class ProjectFields(TypedDict, total=False):
    """What a new project may have beside its name."""

    alias: str | None
    description: str | None


class ProjectAgent(Struct, frozen=True, kw_only=True):
    """An agent of a project; `definition` is JSON as it was given."""

    agent_type: str
    definition: bytes
    created_at: datetime
    updated_at: datetime


class ProjectPage(NamedTuple):
    """Some of an owner's projects, and how many there are in all."""

    page: list[Project]
    total: int


class Projects:
    """The projects in one database. An owner sees his own only; another's are as if they did not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, owner: str, *, name: str, now: datetime, most: int, **given: Unpack[ProjectFields]
    ) -> Project:
        """A new project. Raises ParleyError: INVALID for a bad alias, CONFLICT when it is taken, LIMIT_REACHED."""
        alias = given.get("alias")
        if alias is not None:
            parse_alias(alias)
        description = given.get("description") or None
        try:
            row = await self._database.fetchrow("create_project", new_id(), owner, alias, name, description, now, most)
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "projects_have_one_alias":
                raise
            raise ParleyError(ErrorCode.CONFLICT, f"you have a project {alias!r} already") from error
        if row is None:
            raise ParleyError(ErrorCode.LIMIT_REACHED, f"you have as many projects as you may ({most}); delete some")
        return Project(**row)

    async def resolve(self, owner: str, reference: str) -> Project:
        """The owner's project by id or by alias. Raises ParleyError(NOT_FOUND)."""
        row = None
        try:
            row = await self._database.fetchrow("find_project", owner, as_uuid(reference), parse_alias(reference))
        except ParleyError as error:
            # Nothing can have such a name, so nothing has it.
            if error.code is not ErrorCode.INVALID:
                raise
        if row is None:
            raise ParleyError(ErrorCode.NOT_FOUND, "there is no project of this name")
        return Project(**row)

    async def page(self, owner: str, *, limit: int, after: UUID | None = None) -> ProjectPage:
        """The owner's projects in the order in which they were made, after one of them; `total` is 0 past the end."""
        rows = await self._database.fetch("project_page", owner, after, limit)
        page = [Project(**{name: row[name] for name in Project.__struct_fields__}) for row in rows]
        return ProjectPage(page, rows[0]["total"] if rows else 0)

    async def update(self, project: Project, *, name: str | None, description: str | None, now: datetime) -> Project:
        """Change what is given; an empty description takes it away. Raises ParleyError(NOT_FOUND)."""
        row = await self._database.fetchrow("update_project", project.owner, project.project_id, name, description, now)
        if row is None:
            raise _gone()
        return Project(**row)

    async def delete(self, project: Project, now: datetime) -> None:
        """Take the project away, with its agents; its sessions stay. Raises ParleyError(NOT_FOUND)."""
        deleted, _ = await self._database.together(
            ("delete_project", project.owner, project.project_id, now), ("empty_project", project.project_id)
        )
        if deleted is None:
            raise _gone()

    # --- agents

    async def agents(self, project_id: UUID) -> list[ProjectAgent]:
        """The project's agents, by type."""
        return [ProjectAgent(**row) for row in await self._database.fetch("project_agents", project_id)]

    async def agents_of_session(self, session_id: UUID) -> list[tuple[UUID, str, bytes]]:
        """Project, type and definition of each agent of the project that the session belongs to."""
        return [tuple(row) for row in await self._database.fetch("session_project_agents", session_id)]

    async def agents_of(self, project_id: UUID) -> list[tuple[UUID, str, bytes]]:
        """Project, type and definition of each of the project's agents."""
        return [(project_id, agent.agent_type, agent.definition) for agent in await self.agents(project_id)]

    async def create_agent(
        self, project: Project, agent_type: str, definition: bytes, *, now: datetime, most: int
    ) -> ProjectAgent:
        """A new agent. Raises ParleyError: CONFLICT when there is one of this type, LIMIT_REACHED, NOT_FOUND."""
        try:
            row = await self._database.fetchrow(
                "create_project_agent", project.project_id, agent_type, definition, now, most
            )
        except asyncpg.UniqueViolationError as error:
            raise ParleyError(ErrorCode.CONFLICT, f"the project has an agent {agent_type!r} already") from error
        if row is not None:
            return ProjectAgent(**row)
        if len(await self.agents(project.project_id)) < most:
            raise _gone()
        raise ParleyError(ErrorCode.LIMIT_REACHED, f"the project has as many agents as it may ({most})")

    async def replace_agent(
        self, project: Project, agent_type: str, definition: bytes, *, now: datetime
    ) -> ProjectAgent | None:
        """Another definition of an agent; None when there is none of this type."""
        row = await self._database.fetchrow("replace_project_agent", project.project_id, agent_type, definition, now)
        return None if row is None else ProjectAgent(**row)

    async def delete_agent(self, project: Project, agent_type: str) -> bool:
        """Take an agent away; False when there is none of this type."""
        return await self._database.fetchrow("delete_project_agent", project.project_id, agent_type) is not None


def _gone() -> ParleyError:
    return ParleyError(ErrorCode.NOT_FOUND, "there is no project of this name")
