from __future__ import annotations

import msgspec
import pytest

from server.agents.client_tools import CLIENT_TOOLS, ExecuteCommand, SearchInCode, file_refusal
from server.agents.shipped import parse_definition, shipped_definitions

READ = {"read_file", "list_files", "search_in_code"}
WRITE = {"write_file", "create_directory", "execute_command", "attempt_completion", "ask_followup_question"}
AGENTS = {definition.type: definition for definition in shipped_definitions()}


@pytest.mark.feature("S29")
def test_six_agents_each_with_its_tools_and_file_limits() -> None:
    assert {name: set(definition.allowed_tools) for name, definition in AGENTS.items()} == {
        "orchestrator": READ,
        "coder": READ | WRITE,
        "architect": READ | {"write_file"},
        "debug": READ | {"execute_command"},
        "ask": READ,
        "universal": READ | WRITE,
    }
    assert {name for name, definition in AGENTS.items() if definition.has_file_restrictions} == {"architect"}
    assert AGENTS["architect"].file_patterns == ("*.md",)
    assert set(AGENTS["orchestrator"].handoffs) == AGENTS.keys() - {"orchestrator"}


def test_every_agent_has_a_prompt_and_only_tools_that_exist() -> None:
    for definition in AGENTS.values():
        assert len(definition.prompt) > 500
        assert definition.description.endswith(".")
        assert CLIENT_TOOLS.keys() >= set(definition.allowed_tools)


def test_the_parameters_of_the_client_tools() -> None:
    parameters = {name: set(spec.parameters["properties"]) for name, spec in CLIENT_TOOLS.items()}
    assert parameters == {
        "read_file": {"path", "encoding", "start_line", "end_line"},
        "write_file": {"path", "content", "encoding", "create_dirs", "backup"},
        "list_files": {"path", "recursive", "include_hidden", "pattern"},
        "create_directory": {"path", "recursive"},
        "execute_command": {"command", "cwd", "timeout", "shell"},
        "search_in_code": {"query", "path", "file_pattern", "case_sensitive", "regex", "max_results"},
        "delete_file": {"path"},
        "move_file": {"source", "destination", "overwrite"},
        "attempt_completion": {"result", "command"},
        "ask_followup_question": {"question", "options"},
    }
    assert all(spec.executor == "client" and spec.description for spec in CLIENT_TOOLS.values())
    assert all(spec.parameters["additionalProperties"] is False for spec in CLIENT_TOOLS.values())
    assert all("$ref" not in str(spec.parameters) for spec in CLIENT_TOOLS.values())


def test_limits_and_defaults_of_the_client_tools() -> None:
    timeout = CLIENT_TOOLS["execute_command"].parameters["properties"]["timeout"]
    assert (timeout["default"], timeout["maximum"], timeout["minimum"]) == (60, 300, 1)
    most = CLIENT_TOOLS["search_in_code"].parameters["properties"]["max_results"]
    assert (most["default"], most["maximum"], most["minimum"]) == (100, 1000, 1)
    assert msgspec.convert({"command": "ls"}, ExecuteCommand).timeout == 60
    with pytest.raises(msgspec.ValidationError, match=r"\$.timeout"):
        msgspec.convert({"command": "ls", "timeout": 301}, ExecuteCommand)
    with pytest.raises(msgspec.ValidationError, match=r"\$.max_results"):
        msgspec.convert({"query": "x", "max_results": 1001}, SearchInCode)


def test_only_reading_tools_say_that_they_only_read() -> None:
    read_only = {name for name, spec in CLIENT_TOOLS.items() if spec.read_only}
    assert read_only == READ | {"attempt_completion", "ask_followup_question"}


def test_regression_16_a_forbidden_call_is_refused_before_anybody_is_asked() -> None:
    architect = AGENTS["architect"]
    assert file_refusal(architect, "write_file", {"path": "docs/plan.md", "content": ""}) is None
    assert "match *.md; path is 'x.py'" in str(file_refusal(architect, "write_file", {"path": "x.py"}))
    assert file_refusal(architect, "write_file", {}) is not None
    assert file_refusal(architect, "write_file", {"path": ["x.md"]}) is not None
    assert file_refusal(architect, "read_file", {"path": "x.py"}) is None
    assert file_refusal(AGENTS["coder"], "write_file", {"path": "x.py"}) is None


GOOD = '+++\ntype = "x"\nname = "X"\ndescription = "d"\ntools = []\n+++\nDo it.\n'


def test_a_definition_file() -> None:
    assert parse_definition(GOOD, "x.md").prompt == "Do it."
    assert parse_definition(GOOD.replace("\n", "\r\n"), "x.md").prompt == "Do it."


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Do it.", "starts with TOML"),
        ("+++\ntype = 1", "starts with TOML"),
        (GOOD.replace('type = "x"', "type = 1"), r"\$.type"),
        (GOOD.replace('type = "x"', 'type = "a b"'), "agent type"),
        (GOOD.replace("tools", "tulls"), "tulls"),
        (GOOD.replace('type = "x"', "type"), "x.md"),
    ],
)
def test_a_broken_definition_file_names_itself_and_the_field(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_definition(text, "x.md")
    assert str(caught.value).startswith("x.md: ")
