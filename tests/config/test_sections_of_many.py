"""Sections of which there may be many: policies, prices, servers of tools."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from server.agents.client_tools import CLIENT_TOOLS
from server.agents.interface import AgentDefinition
from server.config import Config, load, read
from server.config.keys import sections
from server.config.reference import template
from server.config.secrets import HIDDEN
from server.config.shown import entries
from server.turns.policy import Policy

FILE = """
[[policies]]
tool = "execute_command"
effect = "allow"
arguments = { command = "npm test" }

[[policies]]
tool = "*"
effect = "ask"
agent = "coder"
timeout = 0
decisions = ["approve", "reject"]

[approvals]
timeout = 600

[prices."gpt-4.1"]
prompt = 2
completion = 8.0

[prices.local]
prompt = 0
completion = 0

[mcp.files]
command = "uvx"
args = ["files", "--token", "secret"]
env = { TOKEN = "s3cret" }
agents = ["coder"]

[mcp.search]
url = "https://tools.example.org/mcp?code=s3cret"
headers = { X-Whatever = "s3cret" }
"""


NO_NAME = (
    "mcp: 'a__b' cannot be part of a tool's name; use letters, digits and single - or _, 32 characters at most "
    "(from FILE, line 1)"
)


def configured(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "parley.toml"
    file.write_text(text, encoding="utf-8")
    return load(environ={}, file=file)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "parley.toml"
    file.write_text(text, encoding="utf-8")
    return [str(problem).replace(str(file), "FILE") for problem in read(environ={}, file=file).problems]


def test_they_are_read_in_their_order(tmp_path: Path) -> None:
    config = configured(tmp_path, FILE)
    assert [policy.tool for policy in config.policies] == ["execute_command", "*"]
    assert config.policies[1].decisions == ("approve", "reject")
    assert config.prices["gpt-4.1"].completion == 8
    assert config.mcp["files"].args[0] == "files"
    assert str(config.source("policies[1].effect")).endswith("parley.toml, line 9")
    assert str(config.source('prices."gpt-4.1".prompt')).endswith("line 18")


@pytest.mark.feature("A06", "S30")
def test_policies_of_a_file_decide(tmp_path: Path) -> None:
    config = configured(tmp_path, FILE)
    policy = Policy(config.policies, config.approvals)
    coder = AgentDefinition(type="coder", name="Coder", allowed_tools=("*",))
    tool = CLIENT_TOOLS["execute_command"]
    allowed = policy.verdict(coder, tool, tool.name, {"command": "npm test"})
    assert (allowed.effect, allowed.rule) == ("allow", "policies[0]")
    asked = policy.verdict(coder, tool, tool.name, {"command": "npm publish"})
    assert (asked.effect, asked.rule, asked.allowed_decisions) == ("ask", "policies[1]", ("approve", "reject"))
    assert asked.timeout is None, "0 is never"
    other = policy.verdict(AgentDefinition(type="x", name="X", allowed_tools=("*",)), tool, tool.name, {})
    assert (other.rule, other.timeout) == ("default.changes", 600)


def test_they_are_shown_without_their_secrets(tmp_path: Path) -> None:
    shown = {entry.name: entry.value for entry in entries(configured(tmp_path, FILE))}
    assert shown["policies[0].arguments.command"] == "npm test"
    assert shown["mcp.files.env.TOKEN"] == HIDDEN
    assert shown["mcp.search.headers.X-Whatever"] == HIDDEN
    assert shown["mcp.search.url"] == "https://tools.example.org/mcp?code=***"
    assert "s3cret" not in repr(configured(tmp_path, FILE).mcp)


def test_without_any_there_is_nothing_to_show() -> None:
    shown = {entry.section for entry in entries(Config())}
    assert not {"policies", "prices", "mcp"} & shown


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("policies = 7", "policies: expected an array of tables (from FILE, line 1)"),
        ("policies = [7]", "policies: expected an array of tables (from FILE, line 1)"),
        ('[policies]\ntool = "x"', "policies: expected an array of tables (from FILE, line 1)"),
        ("[[prices]]", "prices: expected a table (from FILE, line 1)"),
        ('[[policies]]\ntool = "x"', "policies[0].effect: it is missing (from FILE, line 1)"),
        (
            '[[policies]]\ntool = "x"\neffect = "maybe"',
            "policies[0].effect: expected `allow`, `ask` or `deny`, got 'maybe' (from FILE, line 3)",
        ),
        (
            '[[policies]]\ntool = "x"\neffect = "ask"\ntimout = 3',
            "policies[0].timout: there is no such key; did you mean policies[0].timeout? (from FILE, line 4)",
        ),
        ("[prices.x]\nprompt = 1", "prices.x.completion: it is missing (from FILE, line 1)"),
        ("[mcp.x]\ntimeout = 3", "mcp.x: give either command or url (from FILE, line 1)"),
        (
            '[mcp.x]\nurl = "ftp://x"',
            "mcp.x.url: it does not begin with http:// or https:// and a host (from FILE, line 2)",
        ),
        (
            '[mcp.x]\nurl = "http://x"\nargs = ["y"]',
            "mcp.x.url: args, env and cwd are for a program that is started; leave them out (from FILE, line 2)",
        ),
        ('[mcp.x]\ncommand = "y"\nheaders = {A = "b"}', "mcp.x.headers: they are for a url (from FILE, line 3)"),
        (
            '[mcp.a__b]\ncommand = "y"',
            NO_NAME,
        ),
        (
            '[prices.a]\nprompt = 1\ncompletion = 1\n[prices.b]\nprompt = 1\ncompletion = 1\ncurrency = "EUR"',
            "prices: costs are added up, so all are in one currency; there are EUR, USD (from FILE, line 1)",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, told: str) -> None:
    assert mistakes(tmp_path, text) == [told]


def test_the_file_to_start_from_says_what_a_free_name_is() -> None:
    headers = [section.header for section in sections()]
    assert {"[[policies]]", "[prices.MODEL]", "[mcp.NAME]", "[agents.overrides.TYPE]"} <= {*headers}
    assert {"policies", "prices", "mcp"}.isdisjoint(tomllib.loads(template()))
