"""An editor's part of a session: it runs the agent's file tools in one folder, and its user reviews each change.

python examples/ide_client.py http://127.0.0.1:8080 ~/my-project "Add a README"      (PARLEY_TOKEN holds your token)

It may be stopped and started again in the middle of anything: with its journal no call is ever run twice.
"""

import asyncio
import difflib
import os
import sys
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from parley import CallContext, Client, ParleyError, ToolError, client_tool, connect, events

ROOT = Path(".")
RelativePath = Annotated[str, Meta(min_length=1, max_length=1000, description="Path in the workspace.")]


def inside(path: str) -> Path:
    """The file, if it is one of the workspace's, wherever links lead."""
    try:
        real = (ROOT / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise ToolError(f"{path!r} is no path: {error}") from None
    if not real.is_relative_to(ROOT) or ".git" in real.parts:
        raise ToolError(f"{path} is not a file of the workspace")
    return real


# The annotations are what a model is told and what its arguments are checked against; docstrings are for it, too.
@client_tool(read_only=True)
def list_files() -> list[str]:
    """List the workspace's files."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path.as_posix() for path in sorted(found) if not any(part.startswith(".") for part in path.parts)][:1000]


@client_tool(read_only=True)
def read_file(path: RelativePath) -> str:
    """Read a text file."""
    return inside(path).read_text(encoding="utf-8")  # what goes wrong is told to the agent


@client_tool(idempotent=True)
def write_file(path: RelativePath, content: str, context: CallContext) -> str:
    """Write a text file whole; missing folders are made."""
    file = inside(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    context.progress(f"writing {len(content)} characters")
    file.write_text(content, encoding="utf-8")
    return f"wrote {path}"


def review(call: events.ApprovalRequired) -> None:
    """Show what a call would do."""
    print(f"\n--- {call.agent_type} wants to call {call.name} ({call.rule or 'asked'})")
    match call.arguments:
        case {"path": str(path), "content": str(content)}:
            file = inside(path)
            before = file.read_text(encoding="utf-8") if file.is_file() else ""
            print(*difflib.unified_diff(before.splitlines(), content.splitlines(), path, path, lineterm=""), sep="\n")
        case arguments:
            print(arguments)


async def decide(session: Client, call: events.ApprovalRequired) -> None:
    """Let the user decide. Others in the session may be quicker, in a browser for instance; the first one counts."""
    try:
        review(call)
        answer = await asyncio.to_thread(input, "apply it? [y]es, [a]lways here, or why not: ")
        if answer in {"y", "a"}:
            await session.approve(call.call_id, remember="session" if answer == "a" else None)
        else:
            await session.reject(call.call_id, answer or None)
    except ToolError as error:  # it would be refused, and nobody needs to be asked
        await session.reject(call.call_id, error.message)
    except EOFError:
        await session.reject(call.call_id, "nobody is there to approve it")
    except ParleyError as error:
        print(f"--- {error.message}")


async def work(url: str, text: str) -> str:
    """One turn; the answer."""
    token = os.environ.get("PARLEY_TOKEN")
    journal = Path(os.environ.get("IDE_JOURNAL", ROOT / ".ide-journal"))
    tools = [list_files, read_file, write_file]
    async with connect(url, token=token, tools=tools, client_id="ide", journal=journal) as session:
        growing = session.ask(text)
        async for chunk in growing:
            print(chunk.text, end="", flush=True)
            match chunk.event.payload:
                case events.ApprovalRequired() as call:
                    await decide(session, call)
                case events.ToolResultEvent(name=name, error=error):
                    print(f"--- {name}: {error or 'done'}")
                case _:
                    pass  # there are more events, and there will be new ones
        return growing.text


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        ROOT = Path(sys.argv[2]).expanduser().resolve(strict=True)
        asyncio.run(work(sys.argv[1], sys.argv[3]))
        print()
    except (ParleyError, OSError, RuntimeError) as trouble:
        sys.exit(f"ide_client: {trouble}")
