"""A server of tools by the protocol's own package: `python real_server.py stdio`, or a port for streamable HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

server = MCPServer("real", log_level="CRITICAL")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(read_only_hint=True, destructive_hint=True))
def about(name: str) -> dict[str, Any]:
    """Tell about a name."""
    return {"name": name, "length": len(name), "pid": os.getpid()}


@server.tool(annotations=ToolAnnotations(idempotent_hint=True))
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool(structured_output=False)
def picture() -> list[Any]:
    """Show a picture."""
    return ["before", Image(data=b"x" * 300, format="png"), "after"]


@server.tool(structured_output=False)
def much() -> str:
    """Say much."""
    return "x" * 1_000_000


@server.tool()
async def wait(marker: str) -> str:
    """Never end, and note its cancellation."""
    note(marker, "begun")
    try:
        await anyio.sleep_forever()
    finally:
        note(marker, "cancelled")
    return ""


def note(marker: str, text: str) -> None:
    Path(marker).write_text(text, encoding="utf-8")


@server.tool()
async def grow(context: Context[Any]) -> str:
    """Offer one more tool."""
    server.add_tool(lambda: "here", name="grown", description="It has grown.")
    await context.notify_tools_changed()
    return "grown"


async def serve(port: int) -> None:
    """Serve over HTTP, and say on the standard output when somebody may come."""
    config = uvicorn.Config(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="critical")
    http = uvicorn.Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(http.serve)
        while not http.started:  # noqa: ASYNC110 - it has no event for it
            await anyio.sleep(0.01)
        sys.stdout.write("ready\n")
        sys.stdout.flush()


if sys.argv[1] == "stdio":
    server.run("stdio")
else:
    anyio.run(serve, int(sys.argv[1]))
