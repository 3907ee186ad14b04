"""The environment: the variables that the server reads, and those that only look like it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from server.config.near import closest
from server.config.problems import Problem
from server.config.sources import Given, Source

__all__ = ["CONFIG_VARIABLE", "ENVIRONMENT", "OTHER_VARIABLES", "Stray", "Variable", "read_variables", "strays"]

#: Names the file.
CONFIG_VARIABLE: Final = "PARLEY_CONFIG"

#: Variables of ours that other commands read.
OTHER_VARIABLES: Final[Mapping[str, str]] = {
    "PARLEY_URL": "the server that `parley tail` and the like talk to",
    "PARLEY_TOKEN": "your token there",
}

_PREFIX: Final = "PARLEY_"
#: What Kubernetes gives every container for a service whose name is, or begins with, "parley"; and Docker's old links.
_LINK: Final = re.compile(r"PARLEY_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_(?:TCP|UDP|SCTP)\w*|ENV_\w+)")
_LINKED: Final = re.compile(r"(?:tcp|udp|sctp)://")


class Variable(NamedTuple):
    """What a variable sets: the dotted key, and how its text becomes a value (ValueError where it cannot)."""

    key: str
    parse: Callable[[str], Any]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


#: The environment variables of the server; `PARLEY_CONFIG` names the file, the command line's help lists them all.
ENVIRONMENT: Final[Mapping[str, Variable]] = {
    "PARLEY_HOST": Variable("server.host", str),
    "PARLEY_PORT": Variable("server.port", int),
    "PARLEY_ALLOWED_HOSTS": Variable("server.allowed_hosts", _names),
    "PARLEY_ALLOWED_ORIGINS": Variable("server.allowed_origins", _names),
    "PARLEY_TLS_CERTIFICATE_FILE": Variable("tls.certificate_file", str),
    "PARLEY_TLS_KEY_FILE": Variable("tls.key_file", str),
    "PARLEY_TLS_KEY_PASSWORD": Variable("tls.key_password", str),
    "PARLEY_DATABASE_URL": Variable("database.url", str),
    "PARLEY_DATA_DIR": Variable("database.data_dir", str),
    "PARLEY_AGENT": Variable("agents.default", str),
    "PARLEY_MODEL": Variable("model.model", str.strip),
    "PARLEY_MODEL_BASE_URL": Variable("model.base_url", str.strip),
    "PARLEY_MODEL_API_KEY": Variable("model.api_key", str.strip),
    "PARLEY_LOG_FORMAT": Variable("log.format", str),
    "PARLEY_LOG_LEVEL": Variable("log.level", str),
}


class Stray(NamedTuple):
    """A variable with our prefix that nobody reads, and the one that may be meant."""

    name: str
    meant: str | None


def read_variables(environ: Mapping[str, str]) -> tuple[dict[str, tuple[Any, Source]], list[Problem]]:
    """The values that the environment sets, by dotted key, and what is wrong with it. Empty variables set nothing."""
    values: dict[str, tuple[Any, Source]] = {}
    problems = []
    for name, variable in ENVIRONMENT.items():
        text = environ.get(name, "")
        if not text or is_link(name, text):
            continue
        source = Source("environment", name)
        try:
            values[variable.key] = (variable.parse(text), source)
        except ValueError:
            problems.append(Problem(variable.key, f"{text!r} is not a number", source))
    return values, problems


def is_link(name: str, text: str) -> bool:
    """Whether a variable was set by Kubernetes for a service of our name, such as `PARLEY_PORT=tcp://10.0.0.1:80`."""
    return bool(_LINK.fullmatch(name)) or (name.endswith("_PORT") and bool(_LINKED.match(text)))


def strays(environ: Mapping[str, str]) -> list[Stray]:
    """The variables with our prefix that nothing of ours reads, sorted by name."""
    known = {*ENVIRONMENT, CONFIG_VARIABLE, *OTHER_VARIABLES}
    found = [
        name
        for name, text in environ.items()
        if name.startswith(_PREFIX) and name not in known and not is_link(name, text)
    ]
    return [Stray(name, _meant(name, known)) for name in sorted(found)]


def _meant(name: str, known: set[str]) -> str | None:
    own = name.removeprefix(_PREFIX)
    names = {each.removeprefix(_PREFIX) for each in known}
    # PARLEY_STAGING_DATABASE_URL and the like are no slip: somebody keeps them for purposes of their own.
    if any("_" in each and own.endswith(f"_{each}") for each in names):
        return None
    near = closest(own, names)
    return None if near is None else _PREFIX + near


def borrow_from_openai(given: Given, environ: Mapping[str, str], default_url: str) -> None:
    """Where a model is named and the rest is left open, take what OpenAI's own clients read from the environment.

    Without a name nothing is taken: many have such a key lying about, and no conversation leaves this machine for that.
    The key goes to the host that it is for, which is `default_url`, and to no other endpoint that is configured.
    """
    url, key = environ.get("OPENAI_BASE_URL", "").strip(), environ.get("OPENAI_API_KEY", "").strip()
    if not given.get("model", "model"):
        return
    if url and given.get("model", "base_url") is None:
        given.put("model", "base_url", url, Source("borrowed", "OPENAI_BASE_URL"))
    base_url = given.get("model", "base_url") or default_url
    if key and given.get("model", "api_key") is None and base_url in (url, default_url, f"{default_url}/"):
        given.put("model", "api_key", key, Source("borrowed", "OPENAI_API_KEY"))
