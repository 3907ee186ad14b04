from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from server.agents import loading
from server.agents.client_tools import CLIENT_TOOLS
from server.agents.config import AgentOverride, AgentsConfig
from server.agents.interface import Agent, AgentDefinition, FunctionAgent, Tool, ToolSpec
from server.agents.loading import AgentLoadError
from server.agents.offline import OfflineAgent
from server.agents.registry import ASK_AGENT_TOOL, HANDOFF_TOOL, Registry
from server.agents.tools import tool
from tests.agents.support import context, run
from tests.agents.test_interface import parrot

SHIPPED = ["orchestrator", "coder", "architect", "debug", "ask", "universal"]
ALONE = AgentsConfig(entry_points=False)

USERS_FILE = """
from server.agents.interface import agent
from server.agents.tools import tool

@tool
def dice() -> int:
    "Throw a die."
    return 4

@agent(type="mine", tools=["read_file", dice], description="Mine.")
async def mine(context):
    yield context.agent.prompt

@agent(type="coder", description="My coder.")
async def coder(context):
    yield "my own coder"

class Whole:
    from server.agents.interface import AgentDefinition
    definition = AgentDefinition(type="whole", name="Whole")
    async def run(self, context):
        yield None

whole = Whole()
nothing = 7
"""


def configured(**settings: object) -> AgentsConfig:
    return msgspec.convert({"entry_points": False, **settings}, AgentsConfig)


def model(definition: AgentDefinition) -> Agent:
    return parrot.with_definition(definition)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(USERS_FILE, encoding="utf-8")
    return tmp_path


def test_without_configuration_the_offline_agent_is_there_and_stands_in_for_all() -> None:
    registry = Registry.build(ALONE)
    assert [definition.type for definition in registry.definitions] == [*SHIPPED, "offline"]
    assert registry.default.type == "offline"
    assert all(isinstance(registry.get(name), OfflineAgent) for name in [*SHIPPED, "offline"])
    assert list(registry.server_tools) == ["clock", "calculate", "text_statistics"]


@pytest.mark.feature("S29")
def test_with_a_model_the_orchestrator_is_the_default() -> None:
    registry = Registry.build(ALONE, model=model)
    assert [definition.type for definition in registry.definitions] == SHIPPED
    assert registry.default.type == "orchestrator"
    assert isinstance(registry.get("coder"), FunctionAgent)
    assert isinstance(Registry.build(configured(default="offline"), model=model).get("offline"), OfflineAgent)


def test_agents_are_found_by_type_and_by_id() -> None:
    registry = Registry.build(ALONE)
    coder = registry.get("coder")
    assert registry.get(coder.definition.agent_id) is coder
    assert registry.get(str(coder.definition.agent_id)) is coder
    # Across processes and restarts.
    assert Registry.build(ALONE).get("coder").definition.agent_id == coder.definition.agent_id


@pytest.mark.parametrize("reference", ["nobody", "", "Coder", "*"])
def test_an_unknown_agent_is_refused_with_those_that_there_are(reference: str) -> None:
    with pytest.raises(ParleyError, match="there are: orchestrator, coder, architect") as caught:
        Registry.build(ALONE).get(reference)
    assert caught.value.code is ErrorCode.UNKNOWN_AGENT
    assert caught.value.path == "$.agent_type"
    with pytest.raises(ParleyError, match="no agent"):
        Registry.build(ALONE).get(uuid4())


@pytest.mark.feature("A06")
async def test_agents_of_a_users_file_with_their_tools(base: Path) -> None:
    registry = Registry.build(configured(python=["mine.py:mine", "mine.py:dice"], default="mine"), base=base)
    assert registry.default.description == "Mine."
    assert "dice" in registry.server_tools
    assert [spec.name for spec in registry.tools_for(registry.default)] == ["read_file", "dice"]


async def test_a_users_agent_replaces_a_shipped_one_and_can_be_overridden(base: Path) -> None:
    overrides = {"mine": {"prompt": "Be brief.", "tools": []}, "ask": {"enabled": False}}
    registry = Registry.build(
        configured(python=["mine.py:mine", "mine.py:coder"], overrides=overrides), base=base, model=model
    )
    assert [definition.type for definition in registry.definitions] == [
        "orchestrator", "coder", "architect", "debug", "universal", "mine",
    ]  # fmt: skip
    coder = registry.get("coder")
    assert (await run(coder, context(coder, "hi"))).text == "my own coder"
    mine = registry.get("mine")
    assert (await run(mine, context(mine, "hi"))).text == "Be brief."
    assert registry.tools_for(mine.definition) == ()


def test_overrides_change_what_they_name_and_nothing_else() -> None:
    override = AgentOverride(prompt="New.", tools=("clock",), description="D.", name="N", file_patterns=("*.py",))
    registry = Registry.build(AgentsConfig(entry_points=False, overrides={"ask": override}))
    ask = registry.get("ask").definition
    assert (ask.prompt, ask.allowed_tools, ask.description, ask.name) == ("New.", ("clock",), "D.", "N")
    assert ask.file_patterns == ("*.py",)
    before = Registry.build(ALONE).get("ask").definition
    assert (ask.handoffs, ask.rerun, ask.agent_id) == (before.handoffs, before.rerun, before.agent_id)
    assert [spec.name for spec in registry.tools_for(ask)] == ["clock"]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"default": "nobody"}, "default agent 'nobody' does not exist; there are: orchestrator"),
        ({"overrides": {"nobody": {}}}, "no agent 'nobody' to override"),
        ({"overrides": {"offline": {"enabled": False}}}, "default agent 'offline' does not exist"),
        ({"python": ["mine.py:whole"], "overrides": {"whole": {"prompt": "x"}}}, "only 'enabled' can be overridden"),
    ],
)
def test_a_configuration_that_fits_nothing_is_refused(base: Path, settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Registry.build(configured(**settings), base=base)


def test_an_object_with_definition_and_run_is_an_agent_too(base: Path) -> None:
    registry = Registry.build(configured(python=["mine.py:whole"]), base=base)
    assert registry.get("whole").definition.name == "Whole"


@pytest.mark.parametrize(
    ("python", "complaint"),
    [
        (["mine.py:nothing"], "mine.py:nothing is int; expected an agent"),
        (["mine.py:mine", "mine.py:mine"], "already an agent of type 'mine'"),
        (["other.py:x"], "no such file"),
    ],
)
def test_what_is_no_agent_is_refused_by_reference(base: Path, python: list[str], complaint: str) -> None:
    with pytest.raises(AgentLoadError, match=complaint):
        Registry.build(configured(python=python), base=base)


def test_entry_points_of_installed_packages_are_taken_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("parrot", "tests.agents.test_interface:parrot", loading.ENTRY_POINT_GROUP)
    monkeypatch.setattr(loading, "entry_points", lambda group: [point])
    assert Registry.build(AgentsConfig()).get("parrot").definition == parrot.definition
    with pytest.raises(ParleyError):
        Registry.build(ALONE).get("parrot")


def test_tools_of_clients_replace_the_standard_ones_and_never_the_servers() -> None:
    registry = Registry.build(ALONE)
    theirs = {
        name: ToolSpec(name=name, description="theirs", parameters={"type": "object"})
        for name in ("read_file", "clock", HANDOFF_TOOL, ASK_AGENT_TOOL, "open_tab")
    }
    offered = registry.tools_for(registry.get("offline").definition, theirs.values())
    offline = {spec.name: spec for spec in offered}
    assert len(offline) == len(offered)
    assert offline["read_file"].description == offline["open_tab"].description == "theirs"
    assert offline["read_file"].read_only, "it is, whatever the client forgot to say"
    assert [spec.name for spec in offered if spec.extra] == ["open_tab"]
    assert offline["clock"].executor == "server"
    assert "theirs" not in {offline[name].description for name in (HANDOFF_TOOL, ASK_AGENT_TOOL) if name in offline}
    ask = [spec.name for spec in registry.tools_for(registry.get("ask").definition, theirs.values())]
    assert ask == ["read_file", "list_files", "search_in_code"]


def test_the_handoff_tool_names_the_agents_that_there_are() -> None:
    overrides = {"debug": AgentOverride(enabled=False)}
    registry = Registry.build(AgentsConfig(entry_points=False, overrides=overrides))
    tools = {spec.name: spec for spec in registry.tools_for(registry.get("orchestrator").definition)}
    assert tools[ASK_AGENT_TOOL].parameters["properties"]["agent_type"]["enum"] == ["architect", "ask"]
    spec = tools[HANDOFF_TOOL]
    assert spec.parameters["properties"]["agent_type"]["enum"] == ["coder", "architect", "ask", "universal"]
    assert "- coder: Writes" in spec.description
    assert HANDOFF_TOOL not in [other.name for other in registry.tools_for(registry.get("coder").definition)]


@pytest.mark.parametrize("name", ["clock", "read_file", HANDOFF_TOOL, ASK_AGENT_TOOL])
def test_two_tools_of_one_name_are_refused(name: str) -> None:
    @tool(name=name)
    def mine() -> None:
        """Mine."""

    with pytest.raises(ValueError, match=name):
        Registry([parrot], [*Registry.build(ALONE).server_tools.values(), mine], default="parrot")


def test_two_agents_of_one_type_are_refused() -> None:
    with pytest.raises(ValueError, match="two agents of type 'parrot'"):
        Registry([parrot, parrot.with_definition(parrot.definition)], [], default="parrot")


def test_the_client_tools_are_offered_without_any_client() -> None:
    registry = Registry.build(ALONE)
    coder = registry.get("coder").definition
    assert [spec.name for spec in registry.tools_for(coder)] == [n for n in CLIENT_TOOLS if n in coder.allowed_tools]


@pytest.mark.feature("S29")
def test_what_clients_bring_under_names_of_their_own_is_for_agents_that_take_it() -> None:
    registry = Registry.build(ALONE)
    theirs = [ToolSpec(name="open_tab", description="Open a tab.", parameters={}, executor="client")]
    takers = [
        definition.type
        for definition in registry.definitions
        if "open_tab" in [spec.name for spec in registry.tools_for(definition, theirs)]
    ]
    assert takers == ["coder", "universal", "offline"]
    coder = registry.tools_for(registry.get("coder").definition, theirs)
    assert next(spec for spec in coder if spec.extra).parameters == {"type": "object"}, "models insist on it"


def test_a_client_does_not_choose_the_agents_of_its_tool() -> None:
    theirs = [ToolSpec(name="open_tab", description="", parameters={}, agents=("ask",))]
    registry = Registry.build(ALONE)
    assert "open_tab" not in [spec.name for spec in registry.tools_for(registry.get("ask").definition, theirs)]


class Source:
    """Tools that come and go."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}


def test_tools_of_a_source_come_and_go() -> None:
    @tool(name="files__read")
    def read() -> None:
        """Read."""

    @tool(name="clock")
    def other_clock() -> None:
        """Not the time."""

    source = Source()
    registry = Registry.build(ALONE, sources=[source])
    offline = registry.get("offline").definition
    before = registry.server_tools
    assert "files__read" not in before
    source.tools = {"files__read": read, "clock": other_clock}
    assert registry.server_tools["files__read"] is read
    assert registry.server_tools["clock"] is not other_clock
    assert "files__read" not in before, "what somebody has looked at stays as it was"
    assert [spec.name for spec in registry.tools_for(offline)].count("clock") == 1
    assert "files__read" in [spec.name for spec in registry.tools_for(offline)]
    source.tools = {}
    assert "files__read" not in [spec.name for spec in registry.tools_for(offline)]


def test_a_tool_that_is_for_some_agents_is_for_no_others() -> None:
    @tool(name="files__read")
    def read() -> None:
        """Read."""

    read.spec = msgspec.structs.replace(read.spec, extra=True, agents=("ask",))
    source = Source()
    source.tools = {"files__read": read}
    registry = Registry.build(ALONE, sources=[source])
    having = [
        definition.type
        for definition in registry.definitions
        if "files__read" in [spec.name for spec in registry.tools_for(definition)]
    ]
    assert having == ["ask"]


def test_an_agent_asks_neither_itself_nor_one_that_there_is_not() -> None:
    overrides = {"ask": AgentOverride(delegates=("ask", "nobody"), handoffs=("ask",))}
    registry = Registry.build(AgentsConfig(entry_points=False, overrides=overrides))
    names = [spec.name for spec in registry.tools_for(registry.get("ask").definition)]
    assert not {HANDOFF_TOOL, ASK_AGENT_TOOL} & {*names}
