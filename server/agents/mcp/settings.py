"""The `[mcp.NAME]` sections of the configuration: servers of tools that speak the Model Context Protocol."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Meta, Struct

__all__ = ["NAME_PATTERN", "McpSettings"]

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9](?:[_-]?[A-Za-z0-9])*")
"""What a server may be called: its tools are `NAME__tool`, so two underscores in a row would be ambiguous."""

Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class McpSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server of tools that speaks MCP: a program that is started (`command`), or an address (`url`).

    Its tools are called NAME__tool; their calls ask a person unless policies or `trust` say otherwise. Times are in
    seconds.
    """

    #: The program to start; it speaks over its standard input and output.
    command: Annotated[str, Meta(min_length=1, examples=["uvx"])] | None = None
    #: Its arguments.
    args: tuple[str, ...] = ()
    #: Variables of its environment; of the server's own it gets no more than HOME, PATH and the like.
    env: dict[str, str] = {}
    #: The folder that it is started in; relative to this file. When missing, the server's own.
    cwd: Annotated[str, Meta(min_length=1)] | None = None
    #: The address of a server that runs elsewhere (streamable HTTP).
    url: Annotated[str, Meta(examples=["https://tools.example.org/mcp"])] | None = None
    #: Headers for it, such as `Authorization`.
    headers: dict[str, str] = {}
    #: Whether there is such a server at all.
    enabled: bool = True
    #: The only agents that may use it. When missing: those that name a tool of it, or take `extra_tools`.
    agents: tuple[str, ...] | None = None
    #: The only tools of it that are offered, by its own names for them; when missing, all.
    tools: tuple[str, ...] | None = None
    #: Whether to believe what it says of its tools: one that says it changes nothing then runs unasked.
    trust: bool = False
    #: Tools that change nothing, by its own names for them, whatever it says.
    read_only: tuple[str, ...] = ()
    #: What one call may take.
    timeout: Seconds = 60.0
    #: What starting it, or connecting to it, may take before it is tried again.
    start_timeout: Seconds = 30.0

    def __post_init__(self) -> None:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("url: it does not begin with http:// or https:// and a host")
            if self.args or self.env or self.cwd is not None:
                raise ValueError("url: args, env and cwd are for a program that is started; leave them out")
        elif self.headers:
            raise ValueError("headers: they are for a url")

    def __repr__(self) -> str:
        # Arguments, variables and headers hold secrets.
        return f"McpSettings(command={self.command!r}, url={'...' if self.url else None})"
