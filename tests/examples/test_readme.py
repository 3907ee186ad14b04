"""The first page that people read: its commands run, its code works, and what it calls missing is missing."""

from __future__ import annotations

import asyncio
import importlib
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import parley
from protocol.client import connect
from protocol.durable import MessageCreated, TaskCompleted
from server.cli import _parser
from server.cli.sessions import with_subcommand
from server.config import ENVIRONMENT
from tests.cli.support import parley as command_line
from tests.cli.support import start
from tests.examples.test_examples import run
from tests.support.server import RunningServer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path for path in ROOT.rglob("README.md") if not any(p.startswith(".") for p in path.parts[len(ROOT.parts) :])
)
ADDRESS = "http://127.0.0.1:8080"


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of a language, without the indentation of the list that they stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def commands() -> Iterator[list[str]]:
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            yield shlex.split(line, comments=True)


def code_with(word: str) -> str:
    (found,) = (block for block in blocks("python") if word in block)
    return found


def test_every_command_can_be_given() -> None:
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands():
        while "=" in words[0]:
            name = words.pop(0).partition("=")[0]
            assert name in ENVIRONMENT or name == "OPENAI_API_KEY"
        program, *arguments = words
        match Path(program).name:
            case "make":
                assert arguments[0] in targets
                for flags in arguments[1:]:
                    assert flags.startswith("ARGS=")
                    _parser().parse_args(["serve", *shlex.split(flags.removeprefix("ARGS="))])
            case "parley":
                _parser().parse_args(with_subcommand(arguments))
            case name:
                assert name in {"curl", "kill"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_curl_does_what_is_promised(server: RunningServer) -> None:
    shown = []
    for program, *arguments in commands():
        if program != "curl":
            continue
        here = [argument.replace(ADDRESS, server.url) for argument in arguments]
        process = await asyncio.create_subprocess_exec(program, *here, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        # Streams do not end; `sync` says that everything which had happened was shown.
        seen = ""
        async for line in process.stdout:
            seen += line.decode()
            if "-N" in arguments and '"event_type":"sync"' in seen:
                process.kill()
        await process.communicate()
        shown.append(seen)
    session, accepted, history, sse, ndjson = shown
    assert msgspec.json.decode(session)["alias"] == "tour"
    assert msgspec.json.decode(accepted)["status"] == "accepted"
    assert msgspec.json.decode(history)["messages"][0]["content"] == "count to 20"
    assert "event: message_created\ndata: {" in sse
    assert msgspec.json.decode(ndjson.splitlines()[1])["event_type"] == "message_created"


@pytest.mark.feature("E02")
async def test_the_client_runs(server: RunningServer, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(code_with("import connect\n").replace(ADDRESS, server.url), encoding="utf-8")
    code, out, errors = await run(sys.executable, script)
    assert (code, errors) == (0, "")
    assert out.splitlines()[0].startswith("connected ")
    assert out.splitlines()[-1].startswith("task_completed ")


@pytest.mark.feature("E02")
async def test_the_client_without_a_loop_runs(server: RunningServer, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(code_with("import connect_sync").replace(ADDRESS, server.url), encoding="utf-8")
    code, out, errors = await run(sys.executable, script)
    assert (code, errors) == (0, "")
    assert out.strip() == " ".join(str(number) for number in range(1, 21))


@pytest.mark.feature("E01")
async def test_the_command_line_does_what_is_promised(server: RunningServer, tmp_path: Path) -> None:
    shown = {}
    for program, *arguments in commands():
        # Those that name a session of the reader's, and those that go on for ever, are shown by the tests of each.
        if Path(program).name == "parley" and "SESSION" not in arguments:
            code, out, errors = await command_line(
                *arguments,
                PARLEY_URL=server.url,
                PARLEY_PORT="0",
                PARLEY_DATA_DIR=str(tmp_path / "data"),
            )
            assert code == 0, (arguments, out, errors)
            shown[arguments[0]] = out
    assert shown["chat"].strip() == "1 2 3 4 5"
    assert "count to 5" in shown["sessions"]
    assert "0 errors" in shown["check"]
    assert tomllib.loads(shown["config"])["server"] == {}


@pytest.mark.feature("A06")
async def test_the_agent_answers_and_the_server_greets_as_shown(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "mine.py").write_text(code_with("@agent"), encoding="utf-8")
    config, more, servers = blocks("toml")
    assert "mcp" in tomllib.loads(servers)
    (tmp_path / "mine.toml").write_text(f"{config}\n{more}", encoding="utf-8")
    arguments = ("serve", "--port", "0", "--config", str(tmp_path / "mine.toml"), "--database-url", database_url)
    greeting = blocks("text")[0].splitlines()
    async with start(*arguments) as process:
        lines = [await process.line("") for _ in greeting]
        # The same lines: only address, agent and database are this run's.
        assert [line.split()[0] for line in lines] == [line.split()[0] for line in greeting]
        assert (lines[-1].rstrip(), lines[2].split()) == (greeting[-1], ["agent", "mine", "(mine)"])
        async with connect(lines[0].split()[-1]) as client, asyncio.timeout(30):
            await client.say("what a day")
            async for event in client:
                match event.payload:
                    case MessageCreated(role="assistant", content=content):
                        assert content == "WHAT A DAY "
                    case TaskCompleted(status=status):
                        assert status == "completed"
                        break
                    case _:
                        pass


# --- names and links


def test_the_readme_names_all_of_the_public_face_and_nothing_else() -> None:
    rows = README.partition("| `from parley import` | |\n")[2].partition("\n\n")[0].splitlines()[1:]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(parley.__all__)
    assert [name for name in named if not hasattr(parley, name)] == []


def test_documents_and_examples_import_from_parley_only_what_it_offers() -> None:
    # Python leaves a folder of its own there when an example is imported.
    examples = [path for path in (ROOT / "examples").iterdir() if path.is_file()]
    texts = [path.read_text(encoding="utf-8") for path in [*PAGES, ROOT / "parley.py", *examples]]
    imports = re.findall(r"from parley import ([\w, ]+)", "\n".join(texts))
    assert imports
    assert {name.strip() for line in imports for name in line.split(",")} <= set(parley.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_documents_imports_what_there_is(page: Path) -> None:
    for block in blocks("python", page.read_text(encoding="utf-8")):
        for module, names in re.findall(
            r"^from ((?:parley|protocol|storage|server)\S*) import (.*)$", block, re.MULTILINE
        ):
            missing = [name for name in names.split(", ") if not hasattr(importlib.import_module(module), name)]
            assert missing == []


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    pictures = re.findall(r"(?:src|srcset)=\"([^\"]+)\"", README)
    assert pictures
    assert [link for link in [*links, *pictures] if not (ROOT / link).exists()] == []
    # A page that is not linked here explains what belongs to a page above it: where queries or others' files lie.
    below = {"storage/sql/README.md", "server/web/vendor/README.md"}
    assert {page.relative_to(ROOT).as_posix() for page in PAGES} - {"README.md", *links} <= below
