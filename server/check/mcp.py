"""Do the servers of tools start, answer, and list their tools? Each is asked for its list, and closed again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from server.agents.mcp.server import McpServer
from server.agents.mcp.tool import McpTool
from server.check.findings import Finding, error, note, ok, warning
from server.check.running import Context, Findings
from server.clock import SystemClock
from server.config.near import closest

__all__ = ["find"]

_SHOWN: Final = 8
#: What closing may take, out of the time that the check has: a program that does not end is killed. Seconds.
_CLOSING: Final = 3.0


class _Silent:
    """No log: what is found is told as findings."""

    def debug(self, event: str, **values: object) -> None:
        """Nothing."""

    info = warning = error = debug


async def find(context: Context) -> Findings:
    """Each server that is configured: what it offers, or why it cannot be had."""
    config, clock = context.config, SystemClock()
    servers = [
        McpServer(name, each, config.base, clock, _Silent()) for name, each in config.mcp.items() if each.enabled
    ]
    if not servers:
        yield ok("none is configured")
        return
    patience = max(context.patience - _CLOSING, context.patience / 2)
    for findings in await asyncio.gather(*(_look(server, patience) for server in servers)):
        for finding in findings:
            yield finding


async def _look(server: McpServer, patience: float) -> list[Finding]:
    server.start()
    late = False
    try:
        async with asyncio.timeout(patience):
            await server.tried()
    except TimeoutError:
        late = True
    # Closing takes the tools away.
    findings = list(_found(server, f"within {patience:g} s" if late else ""))
    await server.stop()
    return findings


def _found(server: McpServer, late: str) -> Iterator[Finding]:
    place, settings = f"mcp.{server.name}", server.settings
    if late:
        yield error(f"{place}: it did not answer {late}", "does it need longer to start, or wait for something?")
        return
    if server.problem is not None:
        place_of = "command" if settings.url is None else "url"
        yield error(f"{place}: {server.problem}", f"check {place}.{place_of}, and whether it runs by itself")
        return
    tools = [tool.theirs for tool in server.tools.values() if isinstance(tool, McpTool)]
    some = ", ".join(list(server.tools)[:_SHOWN]) + (", ..." if len(tools) > _SHOWN else "")
    yield ok(f"{place} offers {len(tools)} tools: {some}") if tools else note(f"{place} offers no tools")
    for tool, reason in server.left_out.items():
        yield warning(f"{place}: its tool {tool} is left out: {reason}", "tell whoever makes it")
    for key, names in (("tools", settings.tools or ()), ("read_only", settings.read_only)):
        for name in sorted({*names} - {*tools} - {*server.left_out}):
            near = closest(name, tools)
            advice = f"did you mean {near}?" if near else f"it has: {', '.join(tools) or 'none'}"
            yield warning(f"{place}.{key}: it has no tool {name}", advice)
