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

from server.agents.config import AgentsConfig
from server.agents.interface import Agent, AgentDefinition
from server.agents.loading import AgentLoadError, FileLoader, load_entry_points
from server.agents.offline import OfflineAgent
from server.agents.registry import Registry
from server.check.findings import Finding, error, ok
from server.check.named import Names, named

__all__ = ["Task", "find"]


class Task(Struct, frozen=True):
    """What to load: the section, the folder its paths start at, whether there is a model, and who else is named."""

    agents: AgentsConfig
    base: str
    model: bool
    names: Names = Names()


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
    yield from named(task.agents, task.names, registry)


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
