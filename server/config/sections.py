"""The sections of the configuration as types: what may stand in each, and what must be true of it.

The `#:` comment above a field is its documentation: help, README and the file of `parley config --defaults` are made
of it. A check in `__post_init__` names the key first (`host: ...`), so that an error can say where it was set.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from server.agents.config import AgentsConfig
from server.agents.mcp.settings import NAME_PATTERN, McpSettings
from server.agents.model.settings import ModelSettings
from server.bus.settings import BusSettings
from server.channel.settings import ChannelSettings
from server.config.secrets import hidden_url
from server.config.sources import DEFAULT, Source
from server.tls.settings import TlsSettings
from server.turns.limits import LimitSettings
from server.turns.settings import ApprovalSettings, PolicySettings, PriceSettings, ToolsSettings, TurnSettings

__all__ = [
    "MIN_TOKEN_LENGTH",
    "AuthSettings",
    "Config",
    "DatabaseSettings",
    "LogSettings",
    "Sections",
    "ServerSettings",
    "TokenSettings",
    "is_loopback",
]

#: Characters; below this a token can be guessed. `openssl rand -hex 32` makes a good one.
MIN_TOKEN_LENGTH: Final = 16

#: RFC 6750, section 2.1 (b64token). Those that browsers bring as a subprotocol are narrower still: no `/` and no `=`.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_HOST_NAME: Final = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9])?")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s*]+")

#: Half of what a tool's name may have; the other half is for the tool.
_MCP_NAME_LENGTH: Final = 32

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=3600)]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the server listens and whom it answers. Times are in seconds."""

    #: The address to listen on; anything but a loopback one needs tokens.
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    #: The port to listen on; 0 takes a free one.
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    #: Names beside the loopback ones under which it is reached: `parley.example.org`, or `*.example.org` for all below
    #: it; no port.
    allowed_hosts: tuple[str, ...] = ()
    #: Web origins beside its own whose pages may use it, such as `https://ide.example.org`.
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

    #: A PostgreSQL of yours, 15 or newer.
    url: Annotated[str, Meta(examples=["postgresql://ada@db.example.org/parley"])] | None = None
    #: Where the own PostgreSQL is kept; when missing, in the user's data directory (`/var/lib/parley` as root).
    data_dir: Annotated[str, Meta(examples=["/srv/parley"])] | None = None
    #: Connections to PostgreSQL of this process, at most.
    pool_size: Count = 16

    def __post_init__(self) -> None:
        if self.url is not None and not self.url.startswith(("postgres://", "postgresql://")):
            raise ValueError("url: it does not begin with postgresql://")

    def __repr__(self) -> str:
        url = None if self.url is None else hidden_url(self.url)
        return f"DatabaseSettings(url={url!r}, data_dir={self.data_dir!r})"


class TokenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user's bearer token: itself, or the SHA-256 of it so that the file holds no secret. A user may have several."""

    #: Whose token it is. The user `local` owns what was made while no tokens were configured.
    user: Annotated[str, Meta(min_length=1, max_length=128, examples=["ada"])]
    #: The token, 16 characters or more (`openssl rand -hex 32`); or give `token_sha256`.
    token: str | None = None
    #: The SHA-256 of the token, in hexadecimal (`printf %s TOKEN | sha256sum`).
    token_sha256: str | None = None
    #: What it is good for: `all` that its user may do, or only to `read`.
    scope: Literal["all", "read"] = "all"
    #: When it ends, with an offset from UTC; when missing, never.
    expires: Annotated[datetime, Meta(tz=True, examples=["2030-01-31T12:00:00Z"])] | None = None

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
    #: How long a browser's login lasts, in seconds; never longer than the token that it was made of.
    login_lifetime: Annotated[float, Meta(ge=60, le=31_536_000)] = 604_800.0

    def __post_init__(self) -> None:
        if len({entry.digest for entry in self.tokens}) != len(self.tokens):
            raise ValueError("tokens: the same token is given twice")


class LogSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the log looks; it goes to standard error."""

    #: `auto` is readable lines on a terminal and JSON lines elsewhere.
    format: Literal["auto", "json", "console"] = "auto"
    #: The least level that is logged.
    level: Literal["debug", "info", "warning", "error"] = "info"


class Sections(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file may hold."""

    server: ServerSettings = ServerSettings()
    tls: TlsSettings = TlsSettings()
    database: DatabaseSettings = DatabaseSettings()
    auth: AuthSettings = AuthSettings()
    channel: ChannelSettings = ChannelSettings()
    bus: BusSettings = BusSettings()
    agents: AgentsConfig = AgentsConfig()
    model: ModelSettings = ModelSettings()
    turns: TurnSettings = TurnSettings()
    limits: LimitSettings = LimitSettings()
    tools: ToolsSettings = ToolsSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    policies: tuple[PolicySettings, ...] = ()
    mcp: dict[str, McpSettings] = {}
    prices: dict[str, PriceSettings] = {}
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        if not self.auth.tokens and not is_loopback(self.server.host):
            raise ValueError(
                f"server.host: {self.server.host} can be reached from other machines, and nobody would be asked who "
                "they are; configure [[auth.tokens]], or listen on 127.0.0.1"
            )
        for name in self.mcp:
            if not NAME_PATTERN.fullmatch(name) or len(name) > _MCP_NAME_LENGTH:
                raise ValueError(
                    f"mcp: {name!r} cannot be part of a tool's name; use letters, digits and single - or _, "
                    f"{_MCP_NAME_LENGTH} characters at most"
                )
        if len(currencies := sorted({price.currency for price in self.prices.values()})) > 1:
            raise ValueError(
                f"prices: costs are added up, so all are in one currency; there are {', '.join(currencies)}"
            )


class Config(Sections, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration, checked.

    `file` is where it was read from, if anywhere; relative paths start there. `sources` says of each value that is no
    default where it was set, by its dotted key (`server.port`, `auth.tokens[0].user`).
    """

    file: Path | None = None
    sources: dict[str, Source] = {}

    @property
    def base(self) -> Path:
        """The folder from which relative paths in the file are meant: the file's, else the working directory."""
        return Path.cwd() if self.file is None else self.file.parent

    def source(self, key: str) -> Source:
        """Where the value of a dotted key was set."""
        return self.sources.get(key, DEFAULT)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
