"""Does the model's endpoint answer, take the key, and have the model? It is asked for its list, and told nothing."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from server.agents.model.errors import ModelError, Where, read_refusal, refused, shown
from server.agents.model.reach import proxy_of, unreachable
from server.agents.model.settings import ModelSettings
from server.check.findings import Finding, error, note, ok, warning
from server.check.running import Context, Findings
from server.config import Config
from server.config.near import closest
from server.version import VERSION

__all__ = ["find"]

_CHAT: Final = "/chat/completions"
_MOST_BYTES: Final = 8 << 20
_SHOWN: Final = 8


async def find(context: Context) -> Findings:
    """The endpoint, by one `GET` of `/models`: what every conversation would meet, too."""
    settings = context.config.model
    if settings.model is None:
        yield ok("no model is configured: the offline agent answers by fixed rules")
        return
    where = Where(settings.origin, settings.model, settings.api_key is not None, settings.secrets)
    try:
        async with asyncio.timeout(min(settings.timeout_connect, context.patience)):
            status, body = await _get(settings, where)
    except TimeoutError:
        yield error(f"{settings.origin} does not answer in time", "does it run, and is model.base_url right?")
        return
    except ModelError as failure:
        what, _, advice = failure.message.partition("; ")
        yield error(what, advice or "check model.base_url")
        return
    if status == 200:
        for finding in _listed(body, where, context.config):
            yield finding
    else:
        yield _refusal(status, body, where, context.config)


async def _get(settings: ModelSettings, where: Where) -> tuple[int, bytes]:
    parts = urlsplit(settings.url)
    url = parts._replace(path=parts.path.removesuffix(_CHAT) + "/models").geturl()
    headers = {"Accept": "application/json", "User-Agent": f"parley-server/{VERSION}"}
    if settings.api_key is not None:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    headers |= {name.title(): value for name, value in settings.extra_headers.items()}
    proxy = proxy_of(settings)
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            # A redirect would take the key elsewhere.
            http.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response,
        ):
            body = bytearray()
            while len(body) < _MOST_BYTES and (piece := await response.content.readany()):
                body += piece
            return response.status, bytes(body)
    except (aiohttp.ClientError, OSError, ssl.SSLError) as failure:
        raise unreachable(failure, where, through_proxy=proxy is not None) from None


def _refusal(status: int, body: bytes, where: Where, config: Config) -> Finding:
    if status in (401, 403) and where.has_key:
        source = config.source("model.api_key")
        return error(f"{where.origin} refuses the key ({status})", f"check model.api_key (from {source})")
    if status in (401, 403):
        return error(f"{where.origin} wants a key ({status})", "set model.api_key (PARLEY_MODEL_API_KEY)")
    if status in (404, 405, 501):
        what = f"{where.origin} answers, and does not list its models ({status})"
        return note(what, "whether model.base_url is right shows when it is asked something")
    what, _, advice = refused(read_refusal(body, status), where).message.partition("; ")
    advice = advice or "see its log"
    return warning(what, advice) if status == 429 or status >= 500 else error(what, advice)


def _listed(body: bytes, where: Where, config: Config) -> list[Finding]:
    names = _names(body)
    if names is None:
        what = f"{where.origin} answers, and not as a model's endpoint does"
        return [error(what, "check model.base_url: it is the part before /chat/completions, and often ends in /v1")]
    wanted = {"model.model": where.model}
    for agent, override in config.agents.overrides.items():
        if override.model is not None and override.enabled:
            wanted[f"agents.overrides.{agent}.model"] = override.model
    return [_one(key, name, names, where) for key, name in wanted.items()]


def _one(key: str, name: str, names: list[str], where: Where) -> Finding:
    # Ollama calls a model without its tag by the tag `latest`.
    if name in names or f"{name}:latest" in names:
        return ok(f"{where.origin} has the model {name}")
    near = closest(name, names)
    some = ", ".join(shown(each, where) for each in sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    advice = f"did you mean {shown(near, where)}?" if near else f"it lists: {some or 'nothing'}"
    return warning(f"{key}: {where.origin} does not list a model {name}", advice)


def _names(body: bytes) -> list[str] | None:
    """The names in a list of models as OpenAI words it; None where it is something else."""
    try:
        answer: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    models = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(models, list):
        return None
    return [str(each["id"]) for each in models if isinstance(each, dict) and "id" in each]
