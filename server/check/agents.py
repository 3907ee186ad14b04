"""Do all agents and tools load, and is there everything that the configuration names?

They are loaded in a process of their own: what a file does when it is loaded is its author's business, and one that
never ends, prints, or takes the process down must not do so to us.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from server.check.agents_inside import Task
from server.check.findings import Finding, error
from server.check.named import Names, PolicyNames
from server.check.running import Context, Findings
from server.config import Config

__all__ = ["find"]


async def find(context: Context) -> Findings:
    """The agents and tools of this configuration."""
    config = context.config
    task = Task(config.agents, str(config.base), config.model.model is not None, _names(config))
    environment = {**context.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = await asyncio.create_subprocess_exec(
        # Without the working directory on the path, and without leaving compiled files behind.
        *(sys.executable, "-P", "-B", "-m", "server.check.agents_inside"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
    )
    try:
        async with asyncio.timeout(context.patience):
            answer, _ = await process.communicate(msgspec.json.encode(task))
    except TimeoutError:
        yield error(
            f"loading did not end within {context.patience:g} s",
            "something at the top of a file of yours waits or never ends",
        )
        return
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found = msgspec.json.decode(answer, type=list[Finding])
    except msgspec.DecodeError:
        yield error(
            f"loading ended the process (exit code {process.returncode})",
            "a file of yours does so, or a package that it uses",
        )
        return
    for finding in found:
        yield finding


def _names(config: Config) -> Names:
    """What is named elsewhere, as far as it is right."""
    models = [*config.limits.models, *([] if config.model.model is None else [config.model.model])]
    return Names(
        policies=tuple(PolicyNames(each.tool, each.agent, tuple(each.arguments)) for each in config.policies),
        servers={name: each.agents or () for name, each in config.mcp.items()},
        models=tuple(models),
        prices=tuple(config.prices),
    )
