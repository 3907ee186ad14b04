"""The process that loads a configuration's agents: a task on its input, findings on its output.

`server.check.agents` runs it as a module, and imports it for its `Task` only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from server.agents.client_tools import CLIENT_TOOLS
from server.agents.config import AgentsConfig
from server.agents.interface import ALL_TOOLS, Agent, AgentDefinition
from server.agents.loading import AgentLoadError, FileLoader, load_entry_points
from server.agents.offline import OfflineAgent
from server.agents.registry import HANDOFF_TOOL, Registry
from server.check.findings import Finding, error, ok, warning
from server.config.near import closest

__all__ = ["Task", "find"]


class Task(Struct, frozen=True):
    """What to load: the section, the folder that its paths start at, and whether a model is configured."""

    agents: AgentsConfig
    base: str
    model: bool


def find(task: Task) -> Iterator[Finding]:
    """Load everything as a server would, and look at what came of it."""

    def stand_in(definition: AgentDefinition) -> Agent:
        return OfflineAgent(definition, task.agents.offline)

    try:
        registry = Registry.build(task.agents, base=Path(task.base), model=stand_in if task.model else None)
    except (AgentLoadError, ValueError) as failure:
        yield from _failures(task, failure)
        return
    names = ", ".join(definition.type for definition in registry.definitions)
    yield ok(f"agents: {names}; new sessions begin with {registry.default.type}")
    yield from _overrides(task.agents, registry)


def _failures(task: Task, first: Exception) -> Iterator[Finding]:
    """What is wrong with each file and package, where the server would stop at the first."""
    loader = FileLoader(Path(task.base))
    failures = []
    for reference in task.agents.python:
        try:
            loader.load(reference)
        except AgentLoadError as failure:
            failures.append(str(failure))
    if task.agents.entry_points:
        try:
            load_entry_points()
        except AgentLoadError as failure:
            failures.append(str(failure))
    for text in failures or [str(first)]:
        yield error(text, "mend it, or take it out of [agents]")


def _overrides(config: AgentsConfig, registry: Registry) -> Iterator[Finding]:
    """Names in overrides that lead nowhere: a tool may come with a client, an agent to hand over to may not."""
    tools = {*registry.server_tools, *CLIENT_TOOLS, HANDOFF_TOOL, ALL_TOOLS}
    agents = {definition.type for definition in registry.definitions}
    for name, override in config.overrides.items():
        for tool in sorted({*(override.tools or ())} - tools):
            near = closest(tool, tools)
            advice = f"did you mean {near}?" if near else "it is there only while a client brings it"
            yield warning(f"agents.overrides.{name}.tools: there is no tool {tool}", advice)
        for agent in sorted({*(override.handoffs or ())} - agents):
            near = closest(agent, agents)
            advice = f"did you mean {near}?" if near else f"there are: {', '.join(sorted(agents))}"
            yield warning(f"agents.overrides.{name}.handoffs: there is no agent {agent}", advice)


def _main() -> None:
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    # Whatever the files print goes elsewhere: the output is for findings.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answer = msgspec.json.encode(list(find(task)))
    with os.fdopen(output, "wb") as file:
        file.write(answer)
    # Threads that the files have started are not waited for.
    os._exit(0)


if __name__ == "__main__":
    _main()
