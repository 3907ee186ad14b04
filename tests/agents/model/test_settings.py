"""The `[model]` section: what it may say, where else it may be said, and what is kept to itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from server.agents.config import AgentsConfig
from server.agents.model.agent import ModelAgent
from server.agents.model.settings import ModelSettings
from server.agents.offline import OfflineAgent
from server.app import build
from server.config import Config, ConfigError, load

KEY = "sk-this-is-a-secret"
OPENAI = {"OPENAI_API_KEY": KEY}


def read(tmp_path: Path, text: str = "", environ: Mapping[str, str] | None = None) -> ModelSettings:
    file = tmp_path / "parley.toml"
    file.write_text(text)
    return load(environ=environ or {}, file=file).model


def test_nothing_is_configured_by_itself(tmp_path: Path) -> None:
    assert read(tmp_path) == ModelSettings()
    # Many have these for other programs; no conversation goes there for that.
    assert read(tmp_path, environ={**OPENAI, "OPENAI_BASE_URL": "http://x/v1"}) == ModelSettings()


@pytest.mark.feature("A06")
def test_the_environment_is_enough_and_beats_the_file(tmp_path: Path) -> None:
    environ = {"PARLEY_MODEL": "m", "PARLEY_MODEL_BASE_URL": "http://x/v1", "PARLEY_MODEL_API_KEY": f" {KEY}\n"}
    wanted = ModelSettings(model="m", base_url="http://x/v1", api_key=KEY)
    assert read(tmp_path, environ=environ) == wanted
    assert read(tmp_path, '[model]\nmodel = "n"\nbase_url = "http://y"\napi_key = "z"', environ) == wanted


@pytest.mark.parametrize(
    ("text", "environ", "url", "key"),
    [
        ("", OPENAI, None, KEY),
        ("", {**OPENAI, "PARLEY_MODEL_API_KEY": "mine"}, None, "mine"),
        ('api_key = "mine"', OPENAI, None, "mine"),
        ("", {**OPENAI, "OPENAI_BASE_URL": "http://gate/v1"}, "http://gate/v1", KEY),
        ('base_url = "https://api.openai.com/v1"', OPENAI, "https://api.openai.com/v1", KEY),
        ('base_url = "http://127.0.0.1:11434/v1"', OPENAI, "http://127.0.0.1:11434/v1", None),
        ('base_url = "http://a/v1"', {**OPENAI, "OPENAI_BASE_URL": "http://b/v1"}, "http://a/v1", None),
        ('base_url = "http://a/v1"', {**OPENAI, "OPENAI_BASE_URL": "http://a/v1"}, "http://a/v1", KEY),
    ],
)
def test_openais_own_variables_fill_gaps_and_the_key_goes_nowhere_else(
    tmp_path: Path, text: str, environ: dict[str, str], url: str | None, key: str | None
) -> None:
    settings = read(tmp_path, f'[model]\nmodel = "m"\n{text}', environ)
    assert (settings.base_url, settings.api_key) == (url, key)


@pytest.mark.parametrize(
    ("base_url", "url", "origin"),
    [
        (None, "https://api.openai.com/v1/chat/completions", "https://api.openai.com"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/chat/completions", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/", "http://[::1]:8000/chat/completions", "http://[::1]:8000"),
        ("https://x/v1/chat/completions/", "https://x/v1/chat/completions", "https://x"),
        ("https://x/openai?api-version=1", "https://x/openai/chat/completions?api-version=1", "https://x"),
    ],
)
def test_where_it_is(base_url: str | None, url: str, origin: str) -> None:
    settings = ModelSettings(model="m", base_url=base_url, api_key=KEY)
    assert (settings.url, settings.origin) == (url, origin)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('base_url = "http://x"', "model.model: it is missing"),
        (f'api_key = "{KEY}"', "model.model: it is missing"),
        ('model = "m"', "model.base_url: say where the model is"),
        ('model = "m"\napi_key = ""', "model.base_url: say where"),
        ('model = "m"\napi_key = "sk-a b"', "model.api_key: it is empty or holds characters"),
        ('model = "m"\nbase_url = "localhost:11434"', "model.base_url: it is not of the form"),
        ('model = "m"\nbase_url = "ftp://x"', "model.base_url: it is not of the form"),
        ('model = "m"\nbase_url = "http://x:port"', "model.base_url: it is not a URL"),
        ('model = "m"\nbase_url = "http://a..b/v1"', "model.base_url: it is not a URL"),
        (f'model = "m"\nbase_url = "http://{"a" * 64}.test"', "model.base_url: it is not a URL"),
        ('model = "m"\nbase_url = "http://x"\nreasoning_field = "thoughts"', "model.reasoning_field: "),
        (f'model = "m"\nbase_url = "http://{KEY}@x"', "model.base_url: a key does not belong into it"),
        ('model = "m"\nbase_url = "http://x#y"', "model.base_url: it has a fragment"),
        ('model = "m"\nbase_url = "http://x"\nextra_headers = {a = "b\\nc: d"}', "model.extra_headers: 'a' is not"),
        ('model = "m"\nbase_url = "http://x"\nextra_headers = {"a b" = "c"}', "model.extra_headers: 'a b' is not"),
        ('model = "m"\nbase_url = "http://x"\nextra_body = {stream = false}', "model.extra_body: 'stream' is set by"),
        ('model = "m"\nbase_url = "http://x"\ntimeout_idle = 0', "model.timeout_idle: expected `float` > 0.0"),
        ('model = "m"\nbase_url = "http://x"\nmodle = 0', "model.modle: there is no such key"),
    ],
)
def test_mistakes_are_told_without_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"[model]\n{text}")
    assert str(caught.value).startswith(said)
    assert KEY not in str(caught.value)


def test_a_configuration_can_be_shown(tmp_path: Path) -> None:
    settings = read(tmp_path, f'[model]\nmodel = "m"\napi_key = "{KEY}"\nextra_headers = {{a = "{KEY}"}}')
    assert KEY not in repr(Config(model=settings))


@pytest.mark.feature("A06")
async def test_the_shipped_agents_run_on_the_model_as_soon_as_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text('[agents.overrides.ask]\nmodel = "small"\n[model]\nmodel = "m"\nbase_url = "http://127.0.0.1:9/v1"')
    services = await build(load(environ={}, file=file))
    agents = [services.registry.get(one.type) for one in services.registry.definitions]
    assert all(isinstance(one, ModelAgent) for one in agents)
    assert services.registry.default.type == "orchestrator"
    assert services.registry.get("ask").definition.model == "small"


async def test_without_a_model_the_offline_agent_stands_in() -> None:
    services = await build(Config(agents=AgentsConfig(entry_points=False)))
    assert isinstance(services.registry.get("coder"), OfflineAgent)
    assert services.registry.default.type == "offline"
    assert services.endpoint is None
