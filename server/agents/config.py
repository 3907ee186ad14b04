"""The ``[agents]`` section of the configuration, as types."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["AgentOverride", "AgentsConfig", "OfflineConfig"]

_HOW_TO_CONFIGURE = (
    "To let a model answer, name it in the configuration: `[model]`, `model`, and `base_url` (Ollama, vLLM, llama.cpp) "
    "or `api_key`. "
    'For an agent of your own, write an async generator function under `@agent(type="mine")` in a file of yours, and '
    'name it in the configuration: `[agents]`, `python = ["mine.py:mine"]`, `default = "mine"`.'
)


class AgentOverride(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change about one agent; fields left out stay as they are."""

    #: Whether there is such an agent at all.
    enabled: bool = True
    #: What people see it called.
    name: str | None = None
    #: What it is for, in a sentence: for people who choose an agent, and for agents that hand over.
    description: str | None = None
    #: What its model is told about its work.
    prompt: str | None = None
    #: The names of the tools that it may call; `*` stands for all.
    tools: tuple[str, ...] | None = None
    #: The only files that it may write, such as `*.md`.
    file_patterns: tuple[str, ...] | None = None
    #: Whether it may also call what clients offer under names of their own, and tools of MCP servers that name no
    #: agents.
    extra_tools: bool | None = None
    #: The types of the agents that it may hand over to.
    handoffs: tuple[str, ...] | None = None
    #: The types of the agents that it may give a task to, going on itself with what they answer.
    delegates: tuple[str, ...] | None = None
    #: Another model than that of the `[model]` section.
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class OfflineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent that answers when no model is configured."""

    #: Tokens a second; 0 is as fast as possible.
    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 60.0
    #: What it says about how to configure a model.
    hint: str = _HOW_TO_CONFIGURE


class AgentsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which agents there are."""

    #: The agent of a new session. When missing, it is the orchestrator if a model is configured, else the offline one.
    default: str | None = None
    #: Changes to agents, by their type: `[agents.overrides.coder]`.
    overrides: dict[str, AgentOverride] = {}
    #: Agents and tools of your own, as `path/to/file.py:attribute`; relative paths start at the file's folder.
    python: tuple[str, ...] = ()
    #: Whether to take the agents that installed packages offer, under the entry point `parley.agents`.
    entry_points: bool = True
    #: The agent that answers when no model is configured.
    offline: OfflineConfig = OfflineConfig()
