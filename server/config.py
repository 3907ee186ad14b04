"""The configuration: one TOML file, a few environment variables, a few flags; the later beats the earlier.

The file is the one that `--config` or `PARLEY_CONFIG` names, else `parley.toml` in the data directory if there is
one. The working directory is never searched, so that a checkout cannot configure a server started within it.

Each section is a frozen struct: unknown keys are refused, and an error names the key, the reason and the source.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta, Struct

from server.agents.config import AgentsConfig
from server.agents.model.settings import OPENAI_URL, ModelSettings
from server.channel.settings import ChannelSettings
from server.turns.settings import TurnSettings

__all__ = [
    "MIN_TOKEN_LENGTH",
    "AuthSettings",
    "Config",
    "ConfigError",
    "DatabaseSettings",
    "LogSettings",
    "ServerSettings",
    "TokenSettings",
    "is_loopback",
    "load",
]

#: Characters; below this a token can be guessed. `openssl rand -hex 32` makes a good one.
MIN_TOKEN_LENGTH: Final = 16

CONFIG_NAME: Final = "parley.toml"

#: RFC 6750, section 2.1 (b64token). Those that browsers bring as a subprotocol are narrower still: no `/` and no `=`.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HOST_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s*]+")
_PASSWORD: Final = re.compile(r"(?<=:)[^:@/]+(?=@)")

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=3600)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]


class ConfigError(Exception):
    """The configuration cannot be used; the text says which key, why, and where it was set."""


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server listens and whom it answers.

    `allowed_hosts` are names beside the loopback ones under which it is reached (`parley.example.org`, or
    `*.example.org` for all below it; no port). `allowed_origins` are web origins beside its own whose pages may use
    it (`https://ide.example.org`). `port` 0 takes a free one. Times are in seconds.
    """

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    #: How long running requests may take to end once the server was told to stop.
    shutdown_timeout: Seconds = 20.0
    #: How long an idle connection is kept; longer than the 60 s after which common proxies drop theirs.
    keepalive_timeout: Seconds = 75.0

    def __post_init__(self) -> None:
        for name in self.allowed_hosts:
            if not (_HOST_NAME.fullmatch(name.lower()) or _address(name)):
                raise ValueError(f"allowed_hosts: {name!r} is not a host name or an address (without a port)")
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin.lower()):
                raise ValueError(f"allowed_origins: {origin!r} is not of the form scheme://host[:port]")


class DatabaseSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where everything is kept: a PostgreSQL of yours (`url`), or else an own one in `data_dir`."""

    url: str | None = None
    data_dir: str | None = None
    #: Connections to PostgreSQL of this process, at most.
    pool_size: Count = 16

    def __post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("postgres://", "postgresql://")):
            raise ValueError("url: it does not begin with postgresql://")

    def __repr__(self) -> str:
        url = None if self.url is None else _PASSWORD.sub("***", self.url)
        return f"DatabaseSettings(url={url!r}, data_dir={self.data_dir!r})"


class TokenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user's bearer token: itself, or the SHA-256 of it in hexadecimal so that the file holds no secret.

    A user may have several. The user `local` owns what was made while no tokens were configured.
    """

    user: Annotated[str, Meta(min_length=1, max_length=128)]
    token: str | None = None
    token_sha256: str | None = None

    def __post_init__(self) -> None:
        if (self.token is None) == (self.token_sha256 is None):
            raise ValueError("give either token or token_sha256")
        if self.token is not None and (len(self.token) < MIN_TOKEN_LENGTH or not _TOKEN.fullmatch(self.token)):
            # The token itself must not be quoted: this text ends up on screens and in logs.
            raise ValueError(f"token: it needs {MIN_TOKEN_LENGTH} characters or more out of A-Z a-z 0-9 - . _ ~ + /")
        if self.token_sha256 is not None and not _SHA256.fullmatch(self.token_sha256.lower()):
            raise ValueError("token_sha256: it is not 64 hexadecimal digits")

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the token."""
        if self.token is not None:
            return hashlib.sha256(self.token.encode()).digest()
        return bytes.fromhex(self.token_sha256 or "")

    def __repr__(self) -> str:
        return f"TokenSettings(user={self.user!r})"


class AuthSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may use the server. Without tokens it is one local user, and then only on a loopback address."""

    tokens: tuple[TokenSettings, ...] = ()

    def __post_init__(self) -> None:
        if len({entry.digest for entry in self.tokens}) != len(self.tokens):
            raise ValueError("tokens: the same token is given twice")


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the log looks: `auto` is readable lines on a terminal and JSON lines elsewhere."""

    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class _Sections(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file may hold."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    auth: AuthSettings = AuthSettings()
    channel: ChannelSettings = ChannelSettings()
    agents: AgentsConfig = AgentsConfig()
    model: ModelSettings = ModelSettings()
    turns: TurnSettings = TurnSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        if not self.auth.tokens and not is_loopback(self.server.host):
            raise ValueError(
                f"server.host: {self.server.host} can be reached from other machines, and nobody would be asked who "
                "they are; configure [[auth.tokens]], or listen on 127.0.0.1"
            )


class Config(_Sections, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration, checked. `file` is where it was read from, if anywhere; relative paths start there."""

    file: Path | None = None

    @property
    def base(self) -> Path:
        """The folder from which relative paths in the file are meant: the file's, else the working directory."""
        return Path.cwd() if self.file is None else self.file.parent


class _Variable(NamedTuple):
    key: str
    parse: Callable[[str], object]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for part in text.split(",") if (name := part.strip()))


#: The environment variables of the server; `PARLEY_CONFIG` names the file, the command line's help lists them all.
ENVIRONMENT: Final[Mapping[str, _Variable]] = {
    "PARLEY_HOST": _Variable("server.host", str),
    "PARLEY_PORT": _Variable("server.port", int),
    "PARLEY_ALLOWED_HOSTS": _Variable("server.allowed_hosts", _names),
    "PARLEY_ALLOWED_ORIGINS": _Variable("server.allowed_origins", _names),
    "PARLEY_DATABASE_URL": _Variable("database.url", str),
    "PARLEY_DATA_DIR": _Variable("database.data_dir", str),
    "PARLEY_AGENT": _Variable("agents.default", str),
    "PARLEY_MODEL": _Variable("model.model", str.strip),
    "PARLEY_MODEL_BASE_URL": _Variable("model.base_url", str.strip),
    "PARLEY_MODEL_API_KEY": _Variable("model.api_key", str.strip),
    "PARLEY_LOG_FORMAT": _Variable("log.format", str),
    "PARLEY_LOG_LEVEL": _Variable("log.level", str),
}


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
    default_data_dir: Path | None = None,
) -> Config:
    """Read and check the configuration.

    `flags` are values by dotted key (`{"server.port": 9000}`), None standing for a flag that was not given. `file` is
    what `--config` named. `default_data_dir` is where `parley.toml` is looked for when nothing names a data directory.
    Raises ConfigError.
    """
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    variables = _variables(environ)
    path = file or _named_file(environ) or _file_in(given, variables, default_data_dir)
    values = {} if path is None else _read(path)
    sources = dict.fromkeys(variables, "the environment") | dict.fromkeys(given, "the command line")
    for layer in (variables, given):
        if "database.data_dir" in layer and "database.url" not in layer:
            # Whoever names a data directory means the database in there, whatever URL a farther source has.
            _table(values, "database", path).pop("url", None)
        for key, value in layer.items():
            section, _, name = key.partition(".")
            _table(values, section, path)[name] = value
    _borrow_from_openai(_table(values, "model", path), environ)
    try:
        sections = msgspec.convert(values, _Sections)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), sources, path)) from None
    return Config(**{name: getattr(sections, name) for name in sections.__struct_fields__}, file=path)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _table(values: dict[str, Any], section: str, path: Path | None) -> dict[str, Any]:
    table = values.setdefault(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{section}: expected a table (from {path})")
    return table


def _variables(environ: Mapping[str, str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, variable in ENVIRONMENT.items():
        text = environ.get(name, "")
        # Kubernetes gives every container PARLEY_PORT=tcp://... when a service in its namespace is called "parley".
        if not text or (name == "PARLEY_PORT" and text.startswith("tcp://")):
            continue
        try:
            values[variable.key] = variable.parse(text)
        except ValueError:
            raise ConfigError(f"{variable.key}: {text!r} is not a number (from the environment, {name})") from None
    return values


def _borrow_from_openai(model: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Where a model is named and the rest is left open, take what OpenAI's own clients read from the environment.

    Without a name nothing is taken: many have such a key lying about, and no conversation leaves this machine for that.
    The key goes to the host that it is for, and to no other endpoint that the configuration names.
    """
    url, key = environ.get("OPENAI_BASE_URL", "").strip(), environ.get("OPENAI_API_KEY", "").strip()
    if not model.get("model"):
        return
    if url:
        model.setdefault("base_url", url)
    if key and model.get("base_url", OPENAI_URL) in (url, OPENAI_URL, f"{OPENAI_URL}/"):
        model.setdefault("api_key", key)


def _named_file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("PARLEY_CONFIG")
    return Path(named) if named else None


def _file_in(given: Mapping[str, object], variables: Mapping[str, object], default: Path | None) -> Path | None:
    named = given.get("database.data_dir") or variables.get("database.data_dir") or default
    if named is None:
        return None
    path = Path(str(named)).expanduser() / CONFIG_NAME
    return path if path.is_file() else None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _explain(message: str, sources: Mapping[str, str], path: Path | None) -> str:
    """From "Expected `int`, got `str` - at `$.server.port`" to "server.port: expected ... (from ...)"."""
    reason, _, place = message.partition(" - at `$")
    key = place.rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `(.*)`", reason)
    if unknown:
        key = f"{key}.{unknown[1]}".lstrip(".")
        reason = "there is no such key"
    named = re.match(r"(?:[a-z_]+\.)?[a-z_0-9]+(?=: )", reason)
    if named and not unknown:
        # A check of our own, which names the key within its section.
        reason = reason[named.end() + 2 :]
        key = named[0] if "." in named[0] else f"{key}.{named[0]}".lstrip(".")
    source = sources.get(key) or (str(path) if path else "the defaults")
    return f"{key}: {reason[:1].lower()}{reason[1:]} (from {source})"
