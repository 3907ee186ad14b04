"""Tools that the server runs: agents read the files of one folder, and nothing else. `tools.toml` shows who gets them.

PROJECT=~/my-project parley serve --config examples/tools.toml
"""

import json
import os
from collections.abc import AsyncGenerator
from itertools import islice
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from parley import AgentContext, ToolCallDelta, ToolError, agent, tool

ROOT = Path(os.environ.get("PROJECT", ".")).expanduser().resolve()


def visible(path: Path) -> bool:
    """Whether this is a plain file below the folder, also where links lead, and none of the hidden ones."""
    try:
        real = path.resolve()
        parts = (*path.relative_to(ROOT).parts, *real.relative_to(ROOT).parts)
        return real.is_file() and not any(part.startswith(".") for part in parts)  # nor by way of ".."
    except (OSError, RuntimeError, ValueError):  # outside of it, links in a circle, no path at all
        return False


# The annotations are what a model is told and what its arguments are checked against; docstrings are for it, too.
@tool(read_only=True)
def find_files(
    pattern: Annotated[str, Meta(min_length=1, max_length=200, description="Such as **/*.py or docs/*.")],
) -> list[str]:
    """Find the project's files whose paths match a pattern; at most 200 of them."""
    try:
        if ".." in Path(pattern).parts:
            raise ValueError("it leads out of the project")
        found = (path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if visible(path))
        return sorted(islice(found, 200))
    except (ValueError, NotImplementedError) as error:
        raise ToolError(f"{pattern!r} is no pattern: {error}") from None  # a model reads this, and tries again


@tool(read_only=True)
def show_file(
    path: Annotated[str, Meta(min_length=1, max_length=500, description="As find_files names it.")],
    first: Annotated[int, Meta(ge=1, le=1_000_000, description="Number of the first line.")] = 1,
    count: Annotated[int, Meta(ge=1, le=500, description="How many lines.")] = 100,
) -> str:
    """Show lines of a file of the project."""
    if not visible(ROOT / path):
        raise ToolError(f"there is no file {path!r} in the project; find_files tells which there are")
    with (ROOT / path).open(encoding="utf-8", errors="replace") as file:
        lines = iter(lambda: file.readline(1000), "")  # a "line" may be as long as the file
        return "".join(islice(lines, first - 1, first - 1 + count)).replace("\0", "\ufffd")


@agent(type="finder", name="Finder", tools=[find_files, show_file])
async def finder(context: AgentContext) -> AsyncGenerator[str | ToolCallDelta, None]:
    """Finds the files of the project that you name, and shows the first one. It needs no model."""
    *_, last = context.history
    if last.role == "user":
        yield ToolCallDelta(0, name="find_files", arguments=json.dumps({"pattern": f"**/{last.content.strip()}"}))
    elif last.name == "find_files" and last.content.startswith('["'):
        yield ToolCallDelta(0, name="show_file", arguments=json.dumps({"path": json.loads(last.content)[0]}))
    else:
        yield last.content if last.name == "show_file" else "I found nothing of that name."
