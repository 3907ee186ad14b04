"""The examples in the client's own documentation do what they say."""

from __future__ import annotations

import asyncio
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import protocol.client
from protocol.client import Client, Server, SyncClient, connect, connect_sync
from tests.support.server import RunningServer

ADDRESS = "http://127.0.0.1:8080"
FOLDER = Path(protocol.client.__file__).parent


def examples(documented: object) -> list[str]:
    """The indented blocks of a docstring."""
    text = documented.__doc__ or ""
    # As far as its closing quotes; an example stands further in.
    base = text.rpartition("\n")[2] + "    "
    found = re.findall(rf"(?:^{base}.*\n(?:\n(?={base}))?)+", text, re.MULTILINE)
    return [textwrap.dedent(block) for block in found]


PAGE = [block for block in examples(protocol.client) if "import" in block]


async def run(code: str, server: RunningServer, **names: Any) -> None:
    """Run code that may await, in a thread of its own where it does not."""
    source = code.replace(ADDRESS, server.url)
    if re.search(r"\b(async|await)\b", source.partition("from parley import")[2] or source):
        exec("async def example():\n" + textwrap.indent(source, "    "), names)
        await names["example"]()
    else:
        await asyncio.to_thread(exec, source, names)


@pytest.mark.feature("E02")
@pytest.mark.parametrize("code", PAGE, ids=[str(number) for number in range(len(PAGE))])
async def test_the_page_is_true(
    server: RunningServer, code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    await server.create_session(session_id="my-session", title="Mine")
    await run(code, server)
    out = capsys.readouterr().out
    if "calculate" in code:
        assert "[calculate: {'expression': '6*7'}]" in out
        assert "42" in out
    elif "count_lines" in code:
        assert re.search(r"`count_lines` returned: \d\d+", out)
    elif "Server" in code:
        assert "Mine 0\n" in out
    else:
        assert "1 2 3" in out


async def test_so_are_the_examples_of_single_methods(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    async with connect(server.url) as session:
        for code in examples(Client.ask):
            await run(code, server, session=session)
        (changes,) = examples(Client.changes)
        watching = asyncio.create_task(run(changes, server, session=session))
        await session.ask("hello")
    await watching
    (listing,) = examples(Server)
    await run(listing, server, Server=Server)
    (asking,) = examples(connect_sync)
    await run(asking, server, connect_sync=connect_sync)

    def stream() -> None:
        (code,) = examples(SyncClient.stream)
        with connect_sync(server.url) as session:
            exec(code, {"session": session})

    await asyncio.to_thread(stream)
    out = capsys.readouterr().out
    assert "open ws" in out
    assert "closed None" in out
    assert out.count("1 2 3 4 5 6 7") == 2


def test_the_page_names_what_there_is() -> None:
    page = inspect.getdoc(protocol.client) or ""
    assert len(PAGE) == page.count("    from parley import") == 6
    names = set(re.findall(r"`(\w+\.py)`", (FOLDER / "README.md").read_text(encoding="utf-8")))
    assert {path.name for path in FOLDER.glob("*.py")} == names
