"""`ide_client.py`: an agent's file tools in a user's folder, each change reviewed; with the real server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from server.agents.interface import AgentContext, AgentYield, ToolCallDelta, agent
from tests.cli.support import environment
from tests.support.server import MakeServer, RunningServer

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "ide_client.py"

#: What the agent does, one call a step.
PLAN = [
    ("list_files", {}),
    ("read_file", {"path": "notes.txt"}),
    ("read_file", {"path": "../secret.txt"}),
    ("write_file", {"path": "notes.txt", "content": "one\nthree\n"}),
    ("write_file", {"path": "new/b.txt", "content": "b"}),
    ("write_file", {"path": "../secret.txt", "content": "x"}),
]


@agent("builder", tools=["list_files", "read_file", "write_file"])
async def builder(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Does what it has planned, and tells what came of it."""
    results = [message.content for message in context.history if message.role == "tool"]
    if len(results) < len(PLAN):
        name, arguments = PLAN[len(results)]
        yield ToolCallDelta(0, call_id="c", name=name, arguments=json.dumps(arguments))
    else:
        yield json.dumps(results)


@pytest.fixture
async def server(make_server: MakeServer) -> RunningServer:
    return await make_server(builder)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    (project / "notes.txt").write_text("one\ntwo\n")
    (project / ".hidden").write_text("")
    (tmp_path / "secret.txt").write_text("secret")
    return project


async def work(server: RunningServer, project: Path, answers: str) -> tuple[list[str], str]:
    """What came of each call, and all that was shown."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), server.url, str(project), "build it"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(PYTHONPATH=str(ROOT)),
    )
    try:
        out, errors = await process.communicate(answers.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, errors) == (0, b""), errors.decode()
    shown = out.decode()
    return json.loads(shown[shown.rindex('["') :]), shown


@pytest.mark.feature("A02", "A03", "E02")
async def test_each_change_is_shown_and_made_when_it_is_approved(server: RunningServer, project: Path) -> None:
    results, shown = await work(server, project, "y\nnot that file\n")
    assert results[:3] == ['["notes.txt"]', "one\ntwo\n", "../secret.txt is not a file of the workspace"]
    assert results[3] == "wrote notes.txt"
    assert "not that file" in results[4]
    # What the tool would refuse is not even asked about.
    assert "not a file of the workspace" in results[5]
    assert (project / "notes.txt").read_text() == "one\nthree\n"
    assert not (project / "new").exists()
    assert (project.parent / "secret.txt").read_text() == "secret"
    for line in ("--- builder wants to call write_file", "-two", "+three", "--- write_file: done"):
        assert line in shown


@pytest.mark.feature("A03")
async def test_a_tool_may_be_allowed_once_for_all_and_nobody_approves_nothing(
    server: RunningServer, project: Path
) -> None:
    results, shown = await work(server, project, "a\n")
    assert results[3:5] == ["wrote notes.txt", "wrote new/b.txt"]
    assert shown.count("wants to call") == 1
    assert (project / "new" / "b.txt").read_text() == "b"
    # Allowed or not: it is outside.
    assert (project.parent / "secret.txt").read_text() == "secret"
    (project / "notes.txt").write_text("one\ntwo\n")
    results, _ = await work(server, project, "")
    assert ["nobody is there" in result for result in results[3:5]] == [True, True]
    assert (project / "notes.txt").read_text() == "one\ntwo\n"


async def test_it_says_what_it_wants_and_what_went_wrong(project: Path, unused_tcp_port: int) -> None:
    async def errors(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(PROGRAM), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment(PYTHONPATH=str(ROOT)),
        )
        _, said = await process.communicate()
        assert process.returncode == 1
        return said.decode()

    assert "reviews each change" in await errors()
    url = f"http://127.0.0.1:{unused_tcp_port}"
    assert "ide_client: [Errno 2]" in await errors(url, str(project / "none"), "hello")
    assert "does not answer" in await errors(url, str(project), "hello")
