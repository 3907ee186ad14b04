"""The model's endpoint: asked for its list, and told nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.check.running import Context
from tests.check.support import context, found, looked, said
from tests.support.model_endpoint import ModelEndpoint, model_endpoint

KEY = "sk-this-is-a-secret"


@pytest.fixture
async def endpoint() -> AsyncIterator[ModelEndpoint]:
    async with model_endpoint() as endpoint:
        endpoint.models = ["qwen3:latest", "gpt-4.1", "gpt-4.1-mini"]
        yield endpoint


def at(endpoint: ModelEndpoint, name: str = "gpt-4.1", patience: float = 8, **environ: str) -> Context:
    variables = {"PARLEY_MODEL": name, "PARLEY_MODEL_BASE_URL": endpoint.url, **environ}
    return context(environ=variables, patience=patience)


def test_without_a_model_nobody_is_asked() -> None:
    (finding,) = found("model", context(environ={"OPENAI_API_KEY": KEY}))
    assert (finding.level, finding.what) == ("ok", "no model is configured: the offline agent answers by fixed rules")


async def test_a_model_that_is_listed(endpoint: ModelEndpoint) -> None:
    (finding,) = await looked("model", at(endpoint, PARLEY_MODEL_API_KEY=KEY))
    assert (finding.level, finding.what) == ("ok", f"{endpoint.url.removesuffix('/v1')} has the model gpt-4.1")
    # It was asked for the list, with the key, and nothing was sent along.
    (asked,) = endpoint.asked
    assert (asked.path, asked.body, asked.headers["Authorization"]) == ("/v1/models", {}, f"Bearer {KEY}")


async def test_a_model_by_its_latest_tag(endpoint: ModelEndpoint) -> None:
    assert said(await looked("model", at(endpoint, "qwen3"))) == []


async def test_models_that_are_not_listed(endpoint: ModelEndpoint, tmp_path: Path) -> None:
    (tmp_path / "parley.toml").write_text(
        f'[model]\nmodel = "gtp-4.1"\nbase_url = "{endpoint.url}"\n'
        '[agents.overrides.ask]\nmodel = "zzz"\n[agents.overrides.debug]\nmodel = "zzz"\nenabled = false\n'
    )
    first, second = said(await looked("model", context(tmp_path / "parley.toml")))
    assert first.startswith("warning: model.model: ")
    assert first.endswith("does not list a model gtp-4.1 -> did you mean gpt-4.1?")
    assert second.startswith("warning: agents.overrides.ask.model: ")
    assert second.endswith("it lists: gpt-4.1, gpt-4.1-mini, qwen3:latest")


@pytest.mark.parametrize(
    ("status", "key", "text"),
    [
        (
            401,
            {"OPENAI_API_KEY": "x"},
            "refuses the key (401) -> check model.api_key (from the environment, OPENAI_API_KEY)",
        ),
        (403, {"PARLEY_MODEL_API_KEY": "x"}, "(from the environment, PARLEY_MODEL_API_KEY)"),
        (401, {}, "wants a key (401) -> set model.api_key (PARLEY_MODEL_API_KEY)"),
        (404, {}, "note: {} answers, and does not list its models (404)"),
        (429, {}, "warning: {} gets too many requests"),
        (503, {}, "warning: {} is out of order (503)"),
        (302, {}, "error: {} redirects; set model.base_url"),
        (400, {}, "error: {} refused the request (400)"),
    ],
)
async def test_refusals_say_what_to_do(
    status: int, key: dict[str, str], text: str, endpoint: ModelEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.refuse(status, f"no, not with {KEY}", Location="http://127.0.0.1:1/")
    environ = {"OPENAI_BASE_URL": endpoint.url, "PARLEY_MODEL": "m", **key}
    if not key or "PARLEY_MODEL_API_KEY" in key:
        environ["PARLEY_MODEL_BASE_URL"] = environ.pop("OPENAI_BASE_URL")
    (finding,) = said(await looked("model", context(environ=environ)))
    assert text.format(endpoint.url.removesuffix("/v1")) in finding.replace(" -> ", "; ", 1) or text in finding


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"[]", b'{"data": 7}', b"\xff", b"[" * 100_000])
async def test_somebody_else_answers(body: bytes, endpoint: ModelEndpoint) -> None:
    endpoint.reply(body)
    (finding,) = said(await looked("model", at(endpoint)))
    assert "answers, and not as a model's endpoint does -> check model.base_url" in finding


async def test_an_endpoint_that_hangs_and_one_that_is_not_there(endpoint: ModelEndpoint, unused_tcp_port: int) -> None:
    endpoint.reply(then="hang")
    (finding,) = said(await looked("model", at(endpoint, patience=0.2)))
    assert "does not answer in time" in finding
    endpoint.url = f"http://127.0.0.1:{unused_tcp_port}/v1"
    (finding,) = said(await looked("model", at(endpoint)))
    assert finding.startswith(f"error: no connection to http://127.0.0.1:{unused_tcp_port} (")
    assert finding.endswith("-> does it run, and is model.base_url right?")
