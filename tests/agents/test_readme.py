from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

import server.agents
from server.agents.config import AgentsConfig
from server.agents.registry import Registry
from tests.agents.support import context, run, tool_context

FOLDER = Path(server.agents.__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


async def test_the_readmes_agent_and_configuration_work(tmp_path: Path) -> None:
    (tmp_path / "parrot.py").write_text(block("python"), encoding="utf-8")
    config = msgspec.convert(tomllib.loads(block("toml"))["agents"], AgentsConfig)
    registry = Registry.build(config, base=tmp_path)
    parrot = registry.get(registry.default.type)
    assert (await run(parrot, context(parrot, "one two"))).text == "one two "
    assert [spec.name for spec in registry.tools_for(registry.default)] == ["clock", "area_code"]
    assert await registry.server_tools["area_code"].call('{"city": "Paris"}', tool_context()) == "01"
    assert "ask" not in [definition.type for definition in registry.definitions]


def test_the_readme_names_every_module() -> None:
    modules = {path.name for path in FOLDER.glob("*.py") if path.name != "__init__.py"}
    assert set(re.findall(r"^\| `(\w+\.py)` \|", README, re.MULTILINE)) == modules
