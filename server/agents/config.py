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

    enabled: bool = True
    name: str | None = None
    description: str | None = None
    prompt: str | None = None
    tools: tuple[str, ...] | None = None
    file_patterns: tuple[str, ...] | None = None
    handoffs: tuple[str, ...] | None = None
    #: Another model than that of the `[model]` section.
    model: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class OfflineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The agent that answers when no model is configured.

    ``speed`` is in tokens a second; 0 is as fast as possible. ``hint`` is what it says about how to configure a model.
    """

    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 60.0
    hint: str = _HOW_TO_CONFIGURE


class AgentsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which agents there are.

    ``default`` is the agent of a new session; when missing, it is the orchestrator if a model is configured and the
    offline agent if not. ``overrides`` are by agent type. ``python`` lists agents and tools of your own as
    ``path/to/file.py:attribute``, relative to the configuration file; ``entry_points`` also takes those that installed
    packages offer under ``parley.agents``.
    """

    default: str | None = None
    overrides: dict[str, AgentOverride] = {}
    python: tuple[str, ...] = ()
    entry_points: bool = True
    offline: OfflineConfig = OfflineConfig()
