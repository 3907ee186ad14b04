"""Reading agent definitions: a Markdown file each, TOML front matter between ``+++`` lines, then the prompt."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import msgspec
from msgspec import Struct

from server.agents.interface import AgentDefinition

__all__ = ["parse_definition", "shipped_definitions"]

_FENCE = "+++\n"
# The order in which people see them.
_SHIPPED = ("orchestrator", "coder", "architect", "debug", "ask", "universal")


class _FrontMatter(Struct, kw_only=True, forbid_unknown_fields=True):
    type: str
    name: str
    description: str
    tools: tuple[str, ...]
    file_patterns: tuple[str, ...] | None = None
    extra_tools: bool = False
    handoffs: tuple[str, ...] = ()
    delegates: tuple[str, ...] = ()
    rerun: bool = True


def parse_definition(text: str, source: str) -> AgentDefinition:
    """The agent that the text of a definition file describes; ``ValueError`` names ``source`` and the field."""
    text = text.replace("\r\n", "\n")
    head, fence, prompt = text.removeprefix(_FENCE).partition("\n" + _FENCE)
    if not text.startswith(_FENCE) or not fence:
        raise ValueError(f"{source}: a definition starts with TOML between two lines of +++")
    try:
        front = msgspec.convert(tomllib.loads(head), _FrontMatter)
        return AgentDefinition(
            type=front.type,
            name=front.name,
            description=front.description,
            prompt=prompt.strip(),
            allowed_tools=front.tools,
            file_patterns=front.file_patterns,
            extra_tools=front.extra_tools,
            handoffs=front.handoffs,
            delegates=front.delegates,
            rerun=front.rerun,
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def shipped_definitions() -> tuple[AgentDefinition, ...]:
    """The agents that come with the server."""
    folder = files("server.agents") / "definitions"
    return tuple(
        parse_definition((folder / f"{name}.md").read_text(encoding="utf-8"), f"{name}.md") for name in _SHIPPED
    )
