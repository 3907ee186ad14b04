"""All configured servers of tools, as a source of tools for the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from server.agents.interface import Tool
from server.agents.mcp.server import McpServer
from server.agents.mcp.settings import McpSettings
from server.clock import Clock

__all__ = ["McpServers"]


class McpServers:
    """The servers of a configuration. Nothing of the protocol is loaded where there are none."""

    def __init__(self, settings: Mapping[str, McpSettings], base: Path, clock: Clock) -> None:
        """`base` is the folder where relative paths start."""
        self.servers = tuple(McpServer(name, each, base, clock) for name, each in settings.items() if each.enabled)

    @property
    def tools(self) -> Mapping[str, Tool]:
        """What they offer now; a server that is away offers nothing."""
        return {name: tool for server in self.servers for name, tool in server.tools.items()}

    async def start(self) -> None:
        """Begin to connect to all."""
        for server in self.servers:
            server.start()

    async def settled(self, patience: float) -> None:
        """Wait until each has been tried once, so many seconds at most."""
        if self.servers:
            trying = {asyncio.create_task(server.tried()) for server in self.servers}
            _, late = await asyncio.wait(trying, timeout=patience)
            for task in late:
                task.cancel()

    async def stop(self) -> None:
        """Close all connections, at the same time."""
        await asyncio.gather(*(server.stop() for server in self.servers))
