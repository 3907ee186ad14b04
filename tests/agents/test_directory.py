"""Agents are looked up among the configured ones, then in the session's project."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from uuid import UUID, uuid4

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from server.agents.directory import AgentDirectory, ProjectAgentDefinition, ProjectAgentSpec
from server.agents.interface import AgentContext, AgentYield, agent
from server.agents.offline import OfflineAgent
from server.agents.registry import Registry

PROJECT, SESSION = uuid4(), uuid4()
SCRIBE = ProjectAgentSpec(name="The Scribe", tools=("look",), file_patterns=("*.md",))


@agent(type="clerk", description="Configured.")
async def clerk(_context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Says nothing much."""
    yield "yes"


class Shelf:
    """A project's agents, and how often somebody asked for them."""

    def __init__(self, **agents: ProjectAgentSpec) -> None:
        self.asked = 0
        self._rows = [(PROJECT, name, msgspec.json.encode(spec)) for name, spec in agents.items()]

    async def agents_of_session(self, session_id: UUID) -> list[tuple[UUID, str, bytes]]:
        self.asked += 1
        return self._rows if session_id == SESSION else []

    async def agents_of(self, project_id: UUID) -> list[tuple[UUID, str, bytes]]:
        self.asked += 1
        return self._rows if project_id == PROJECT else []


def directory(shelf: Shelf) -> AgentDirectory:
    return AgentDirectory(Registry([clerk], [], default="clerk"), shelf, OfflineAgent)


@pytest.mark.feature("S33")
async def test_a_configured_agent_is_found_without_asking_and_comes_first() -> None:
    shelf = Shelf(clerk=SCRIBE)
    agents = directory(shelf)
    assert await agents.agent(SESSION, "clerk") is clerk
    assert await agents.agent(SESSION, clerk.definition.agent_id) is clerk
    assert shelf.asked == 0
    assert await agents.definitions(SESSION) == [clerk.definition]


@pytest.mark.feature("S33")
async def test_a_projects_agent_is_found_by_type_or_id_within_the_project() -> None:
    agents = directory(Shelf(scribe=SCRIBE))
    definition = await agents.definition(SESSION, "scribe")
    assert isinstance(definition, ProjectAgentDefinition)
    assert (definition.type, definition.name, definition.allowed_tools) == ("scribe", "The Scribe", ("look",))
    assert definition.allows_file("notes.md")
    assert not definition.allows_file("notes.txt")
    assert await agents.definition(SESSION, str(definition.agent_id)) == definition
    assert await agents.definition(None, "scribe", project_id=PROJECT) == definition
    assert await agents.definitions(project_id=PROJECT) == [clerk.definition, definition]
    # Others of its name in other projects are not the same agent.
    other = ProjectAgentDefinition.of(uuid4(), "scribe", SCRIBE)
    assert other.agent_id != definition.agent_id
    for session_id, project_id in ((uuid4(), None), (None, uuid4()), (None, None)):
        with pytest.raises(ParleyError, match="there is no agent 'scribe'; there are: clerk"):
            await agents.agent(session_id, "scribe", project_id=project_id)


async def test_who_asks_for_an_unknown_agent_is_told_which_there_are() -> None:
    with pytest.raises(ParleyError, match="there are: clerk, scribe") as caught:
        await directory(Shelf(scribe=SCRIBE)).agent(SESSION, "nobody")
    assert (caught.value.code, caught.value.path) == (ErrorCode.UNKNOWN_AGENT, "$.agent_type")


@pytest.mark.parametrize("name", ["a b", "", "x" * 65, "-x", "51280bbf-f1ea-4670-865e-55a37720a86a"])
def test_a_type_that_could_be_mistaken_is_refused(name: str) -> None:
    with pytest.raises(ParleyError) as caught:
        ProjectAgentDefinition.of(PROJECT, name, SCRIBE)
    assert (caught.value.code, caught.value.path) == (ErrorCode.INVALID, "$.type")
