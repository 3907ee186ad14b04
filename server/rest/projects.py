"""Projects, and their agents."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

import msgspec
from aiohttp import hdrs, web
from msgspec import Meta, Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.ids import ID_PATTERN, format_timestamp
from server.agents.directory import ProjectAgentDefinition, ProjectAgentSpec
from server.auth import principal_of
from server.rest.inputs import body_of, query_of
from server.rest.openapi import Routes
from server.rest.places import place, place_of
from server.rest.responses import json_response
from server.services import SERVICES, Services
from storage.projects import Project, ProjectAgent

__all__ = ["add_routes"]

ROUTES: Final = Routes("Projects", "Sessions and agents of yours, put together under a name.")


class ProjectBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A project to make; `project_id` is the caller's own name for it in addresses."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    project_id: Annotated[str, Meta(pattern=ID_PATTERN)] | None = None
    description: Annotated[str, Meta(max_length=4_000)] | None = None


class ProjectUpdate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be changed about a project; an empty description takes it away."""

    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    description: Annotated[str, Meta(max_length=4_000)] | None = None


class ProjectView(Struct, frozen=True, kw_only=True):
    """A project; `id` is the server's UUID, `alias` the owner's own name for it."""

    id: UUID
    alias: str | None
    name: str
    description: str | None
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, project: Project) -> ProjectView:
        """A stored project."""
        return cls(
            id=project.project_id,
            alias=project.alias,
            name=project.name,
            description=project.description,
            created_at=format_timestamp(project.created_at),
            updated_at=format_timestamp(project.updated_at),
        )


class ProjectList(Struct, frozen=True, kw_only=True):
    """A page of projects, the oldest first; `total` counts all, `next` is what `after` takes for the following page."""

    projects: list[ProjectView]
    total: int
    next: str | None


class ProjectsQuery(Struct, frozen=True):
    """What `GET /projects` takes."""

    after: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class ProjectAgentBody(ProjectAgentSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent to make; `type` is its name for programs, which no configured agent has."""

    type: Annotated[
        str,
        Meta(min_length=1, max_length=64, extra_json_schema={"pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)"}),
    ]


class ProjectAgentView(Struct, frozen=True, kw_only=True):
    """An agent of a project, as its owner wrote it."""

    type: str
    agent_id: UUID
    name: str
    description: str
    prompt: str
    tools: tuple[str, ...]
    file_patterns: tuple[str, ...] | None
    model: str | None
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, project_id: UUID, agent: ProjectAgent) -> ProjectAgentView:
        """A stored agent."""
        spec = msgspec.json.decode(agent.definition, type=ProjectAgentSpec)
        return cls(
            type=agent.agent_type,
            agent_id=ProjectAgentDefinition.of(project_id, agent.agent_type, spec).agent_id,
            created_at=format_timestamp(agent.created_at),
            updated_at=format_timestamp(agent.updated_at),
            **msgspec.structs.asdict(spec),
        )


class ProjectAgentList(Struct, frozen=True, kw_only=True):
    """The agents of a project, by type."""

    agents: list[ProjectAgentView]
    total: int


# --- projects


@ROUTES.post(
    "/projects",
    body=ProjectBody,
    answer=ProjectView,
    status=201,
    errors=(ErrorCode.CONFLICT, ErrorCode.LIMIT_REACHED),
)
async def _create(request: web.Request) -> web.Response:
    """Make a project."""
    services = request.app[SERVICES]
    body = await body_of(request, ProjectBody)
    try:
        project = await services.projects.create(
            principal_of(request).user_id,
            name=body.name,
            now=services.clock.now(),
            most=services.config.limits.projects,
            alias=body.project_id,
            description=body.description,
        )
    except ParleyError as error:
        if error.code is ErrorCode.CONFLICT:
            error.path = "$.project_id"
        raise
    return json_response(
        ProjectView.of(project), status=201, headers={hdrs.LOCATION: f"/projects/{project.project_id}"}
    )


@ROUTES.get("/projects", query=ProjectsQuery, answer=ProjectList)
async def _list(request: web.Request) -> web.Response:
    """List your projects, the oldest first."""
    services = request.app[SERVICES]
    query = query_of(request, ProjectsQuery)
    after = place_of(query.after, UUID)
    found, total = await services.projects.page(principal_of(request).user_id, limit=query.limit + 1, after=after)
    page = [ProjectView.of(project) for project in found[: query.limit]]
    following = place(page[-1].id) if len(found) > len(page) else None
    return json_response(ProjectList(projects=page, total=total, next=following))


@ROUTES.get("/projects/{project}", answer=ProjectView)
async def _read(request: web.Request) -> web.Response:
    """Read a project; its sessions are `GET /sessions?project_id=`."""
    return json_response(ProjectView.of(await _project(request)))


@ROUTES.patch("/projects/{project}", body=ProjectUpdate, body_required=False, answer=ProjectView)
async def _update(request: web.Request) -> web.Response:
    """Give a project another name or description."""
    services = request.app[SERVICES]
    project = await _project(request)
    body = await body_of(request, ProjectUpdate)
    if body.name is not None or body.description is not None:
        project = await services.projects.update(
            project, name=body.name, description=body.description, now=services.clock.now()
        )
    return json_response(ProjectView.of(project))


@ROUTES.delete("/projects/{project}")
async def _delete(request: web.Request) -> web.Response:
    """Delete a project and its agents; its sessions stay, and belong to no project."""
    services = request.app[SERVICES]
    await services.projects.delete(await _project(request), services.clock.now())
    return web.Response(status=204)


# --- their agents


@ROUTES.post(
    "/projects/{project}/agents",
    body=ProjectAgentBody,
    answer=ProjectAgentView,
    status=201,
    errors=(ErrorCode.CONFLICT, ErrorCode.LIMIT_REACHED),
)
async def _create_agent(request: web.Request) -> web.Response:
    """Make an agent that the project's sessions may use."""
    services = request.app[SERVICES]
    project = await _project(request)
    body = await body_of(request, ProjectAgentBody)
    fields = msgspec.structs.asdict(body)
    agent_type = fields.pop("type")
    definition = _checked(services, project, agent_type, ProjectAgentSpec(**fields))
    agent = await services.projects.create_agent(
        project, agent_type, definition, now=services.clock.now(), most=services.config.limits.agents
    )
    location = f"/projects/{project.project_id}/agents/{agent_type}"
    return json_response(ProjectAgentView.of(project.project_id, agent), status=201, headers={hdrs.LOCATION: location})


@ROUTES.get("/projects/{project}/agents", answer=ProjectAgentList)
async def _list_agents(request: web.Request) -> web.Response:
    """List a project's agents."""
    project = await _project(request)
    agents = await request.app[SERVICES].projects.agents(project.project_id)
    views = [ProjectAgentView.of(project.project_id, agent) for agent in agents]
    return json_response(ProjectAgentList(agents=views, total=len(views)))


@ROUTES.get("/projects/{project}/agents/{agent}", answer=ProjectAgentView)
async def _read_agent(request: web.Request) -> web.Response:
    """Read one of a project's agents."""
    project, agent = await _agent(request)
    return json_response(ProjectAgentView.of(project.project_id, agent))


@ROUTES.put("/projects/{project}/agents/{agent}", body=ProjectAgentSpec, answer=ProjectAgentView)
async def _replace_agent(request: web.Request) -> web.Response:
    """Define one of a project's agents anew; it counts from the next step of a turn on."""
    services = request.app[SERVICES]
    project, agent = await _agent(request)
    spec = await body_of(request, ProjectAgentSpec)
    definition = _checked(services, project, agent.agent_type, spec)
    replaced = await services.projects.replace_agent(project, agent.agent_type, definition, now=services.clock.now())
    if replaced is None:
        raise _no_agent()
    return json_response(ProjectAgentView.of(project.project_id, replaced))


@ROUTES.delete("/projects/{project}/agents/{agent}")
async def _delete_agent(request: web.Request) -> web.Response:
    """Take an agent out of a project; sessions in which it acts need another one."""
    project, agent = await _agent(request)
    if not await request.app[SERVICES].projects.delete_agent(project, agent.agent_type):
        raise _no_agent()
    return web.Response(status=204)


async def _project(request: web.Request) -> Project:
    """The project of the path, which is the caller's own."""
    return await request.app[SERVICES].projects.resolve(principal_of(request).user_id, request.match_info["project"])


async def _agent(request: web.Request) -> tuple[Project, ProjectAgent]:
    project = await _project(request)
    reference = request.match_info["agent"]
    for agent in await request.app[SERVICES].projects.agents(project.project_id):
        view = ProjectAgentView.of(project.project_id, agent)
        if reference in (view.type, str(view.agent_id)):
            return project, agent
    raise _no_agent()


def _no_agent() -> ParleyError:
    return ParleyError(ErrorCode.NOT_FOUND, "the project has no such agent")


def _checked(services: Services, project: Project, agent_type: str, spec: ProjectAgentSpec) -> bytes:
    """The definition as it is stored; what the type, the names and the model may be is asked here."""
    definition = ProjectAgentDefinition.of(project.project_id, agent_type, spec)
    if any(agent.type == agent_type for agent in services.registry.definitions):
        raise ParleyError(
            ErrorCode.CONFLICT, f"{agent_type!r} is an agent of this server; choose another type", path="$.type"
        )
    config = services.config
    named = {config.model.model, *(override.model for override in config.agents.overrides.values())}
    allowed = {model for model in (*named, *config.limits.models) if model is not None}
    if definition.model is not None and definition.model not in allowed and "*" not in allowed:
        known = ", ".join(sorted(allowed)) or "none"
        raise ParleyError(
            ErrorCode.INVALID, f"this server lets agents of projects name these models: {known}", path="$.model"
        )
    return msgspec.json.encode(spec)


def add_routes(app: web.Application) -> None:
    """Add the routes of projects."""
    ROUTES.add_to(app)
