"""Each value knows where it was set."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import Config, Source, load
from server.config.shown import Entry, as_toml, entries

TEXT = """\
[server]
port = 1
host = "::1"

[[auth.tokens]]
user = "ada"
token = "Zk3-9vQ_xP7.bLw2mT5a"

[agents.overrides.ask]
prompt = "Be brief."
tools = ["*"]

[model.extra_body]
top.k = 3
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "parley.toml"
    file.write_text(TEXT)
    environ = {"PARLEY_PORT": "2", "PARLEY_LOG_LEVEL": "error", "PARLEY_MODEL": "m", "OPENAI_API_KEY": "sk-secret"}
    return load({"server.host": "localhost", "log.level": None}, environ=environ, file=file)


def test_the_source_is_that_of_the_value_in_force(config: Config) -> None:
    name = str(config.file)
    sources = {
        "server.host": Source("flag"),
        "server.port": Source("environment", "PARLEY_PORT"),
        "server.allowed_hosts": Source("default"),
        "log.level": Source("environment", "PARLEY_LOG_LEVEL"),
        "auth.tokens[0].user": Source("file", name, 6),
        "agents.overrides.ask.tools": Source("file", name, 11),
        "agents.overrides.ask.model": Source("default"),
        "model.api_key": Source("borrowed", "OPENAI_API_KEY"),
        "model.extra_body.top.k": Source("file", name, 14),
        "no.such.key": Source("default"),
    }
    assert {key: config.source(key) for key in sources} == sources


def test_a_value_that_was_put_aside_leaves_no_source(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text('[database]\nurl = "postgresql://db/x"\n')
    config = load({"database.data_dir": "/srv/parley"}, environ={}, file=file)
    assert config.database.url is None
    assert config.source("database.url") == Source("default")
    assert config.source("database.data_dir") == Source("flag")


def test_entries_are_all_keys_with_value_default_and_source(config: Config) -> None:
    shown = {entry.name: entry for entry in entries(config)}
    assert shown["server.port"] == Entry("server.port", 2, 8080, True, Source("environment", "PARLEY_PORT"))
    assert shown["server.keepalive_timeout"] == Entry("server.keepalive_timeout", 75.0, 75.0, False, Source("default"))
    assert shown["auth.tokens[0].token"].value == shown["model.api_key"].value == "***"
    # Of tables with free names, and of arrays, what was set and nothing else.
    assert [name for name in shown if name.startswith(("auth", "agents.overrides", "model.extra"))] == [
        "auth.tokens[0].user",
        "auth.tokens[0].token",
        "auth.login_lifetime",
        "agents.overrides.ask.prompt",
        "agents.overrides.ask.tools",
        "model.extra_headers",
        "model.extra_body.top.k",
    ]
    assert (shown["server.port"].section, shown["server.port"].key) == ("server", "port")
    assert (shown["auth.tokens[0].user"].section, shown["auth.tokens[0].user"].key) == ("auth", "tokens[0].user")


def test_a_value_set_to_its_default_is_set_and_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text("[server]\nport = 8080\n[agents.overrides.ask]\nenabled = true\n")
    shown = {entry.name: entry for entry in entries(load(environ={}, file=file))}
    assert (shown["server.port"].changed, shown["server.port"].source.line) == (False, 2)
    assert not shown["agents.overrides.ask.enabled"].changed


def test_a_configuration_made_by_hand_can_be_shown() -> None:
    assert {entry.source.kind for entry in entries(Config())} == {"default"}
    assert not any(entry.changed for entry in entries(Config()))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "true"),
        (1e-7, "1e-07"),
        (("a", 'b"\n\x7f'), '["a", "b\\"\\n\\u007f"]'),
        ({"a b": {"c": 1}, "d": []}, '{ "a b" = { c = 1 }, d = [] }'),
        ({}, "{}"),
    ],
)
def test_values_are_written_as_in_the_file(value: object, text: str) -> None:
    assert as_toml(value) == text
