"""A journal of calls: what a client that was stopped, or killed, makes of a call that it is given again."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.client import client_tool, connect
from protocol.client import journal as journals
from protocol.client.journal import Journal
from protocol.client.tools import Outcome
from protocol.commands import ToolResult
from tests.protocol.server import Played, playing
from tests.protocol.support import QUICK


def outcome(value: Any) -> Outcome:
    return Outcome(msgspec.Raw(msgspec.json.encode(value)))


async def noted(path: Path, *calls: tuple[str, Outcome | None]) -> None:
    journal = Journal(path)
    journal.open()
    for call, result in calls:
        await (journal.begin(call) if result is None else journal.finish(call, result))
    await journal.close()


# --- the file


async def test_what_was_noted_is_found_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    await noted(path, ("a", None), ("b", None), ("b", outcome([1, "x"])), ("c", Outcome.failed("no")))
    journal = Journal(path)
    journal.open()
    found = journal.find("b")
    assert isinstance(found, Outcome)
    assert (journal.find("a"), found.value, journal.find("d")) == ("begun", [1, "x"], None)
    assert journal.find("c") == Outcome(error="no")
    await journal.close()
    await journal.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OSError, match="is closed"):
        await journal.begin("e")


async def test_a_line_that_was_broken_off_counts_as_not_written(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    await noted(path, ("a", None))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"call":"b","outc')
    await noted(path, ("c", None))
    assert path.read_bytes() == whole + b'{"call":"c"}\n'


async def test_what_is_no_journal_and_what_is_another_clients(tmp_path: Path) -> None:
    path = tmp_path / "calls"
    path.write_text("dear diary\n")
    with pytest.raises(ValueError, match="is no journal of calls: line 1"):
        Journal(path).open()
    assert path.read_text() == "dear diary\n"
    path.unlink()
    first = Journal(path)
    first.open()
    with pytest.raises(ValueError, match="another client that is running"):
        Journal(path).open()
    await first.close()
    with pytest.raises(FileNotFoundError):
        Journal(tmp_path / "none" / "calls").open()
    with pytest.raises(ValueError, match="needs a client_id"):
        connect("http://127.0.0.1:1", journal=path)


async def test_it_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_MOST_CALLS", 10)
    monkeypatch.setattr(journals, "_SLACK", 2000)
    path = tmp_path / "calls"
    journal = Journal(path)
    journal.open()
    for number in range(500):
        await journal.begin(f"c{number}")
        await journal.finish(f"c{number}", outcome("x" * 20))
        assert path.stat().st_size < 3000
    # Written anew, it is still this client's alone.
    with pytest.raises(ValueError, match="another client"):
        Journal(path).open()
    await journal.close()
    assert os.listdir(tmp_path) == ["calls"]
    again = Journal(path)
    again.open()
    assert isinstance(again.find("c499"), Outcome)
    assert again.find("c400") is None
    await again.close()


async def test_large_results_push_out_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_MOST_BYTES", 1000)
    journal = Journal(tmp_path / "calls")
    journal.open()
    for number in range(5):
        await journal.finish(f"c{number}", outcome("x" * 400))
    assert [journal.find(f"c{number}") is None for number in range(5)] == [True, True, True, False, False]
    await journal.close()


async def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "calls"
    journal = Journal(path)
    journal.open()
    await journal.begin("a")
    write = os.write

    def full(file: int, data: Any) -> int:
        if len(data) > 5:
            return write(file, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("protocol.client.journal.os.write", full)
    with pytest.raises(OSError, match="No space"):
        await journal.begin("b")
    monkeypatch.undo()
    assert journal.find("b") is None
    await journal.finish("a", outcome(1))
    await journal.close()
    assert path.read_text() == '{"call":"a"}\n{"call":"a","outcome":{"result":1}}\n'


# --- a client with one


class Bench:
    """Clients, one after the other, with the same name and the same journal."""

    def __init__(self, played: Played, path: Path) -> None:
        self.played = played
        self.path = path
        self.runs: list[int] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    def client(self, **options: Any) -> Any:
        async def write(n: int) -> int:
            """Change something."""
            self.runs.append(n)
            self.begun.set()
            await self.go.wait()
            return n

        @client_tool(read_only=True)
        def read(n: int) -> int:
            """Look at something."""
            self.runs.append(n)
            return n

        return connect(
            self.played.url, "x", client_id="me", tools=[write, read], journal=self.path, timings=QUICK, **options
        )


@pytest.mark.feature("A02")
async def test_a_client_that_is_started_again_answers_from_its_journal(tmp_path: Path) -> None:
    async with playing() as played:
        bench = Bench(played, tmp_path / "calls")
        bench.go.set()
        results = []
        for _ in range(2):
            async with bench.client():
                played.dispatch("a", "write", n=7)
                results.append(await played.next())
        assert results[0] == results[1]
        assert (
            msgspec.convert({key: value for key, value in results[0].items() if key != "type"}, ToolResult).result == 7
        )
    assert bench.runs == [7]


async def test_a_call_whose_end_nobody_knows_is_run_again_only_if_it_changes_nothing(tmp_path: Path) -> None:
    async with playing() as played:
        bench = Bench(played, tmp_path / "calls")
        async with bench.client():
            played.dispatch("a", "write", n=7)
            await bench.begun.wait()
        async with bench.client():
            played.dispatch("a", "write", n=7)
            result = await played.next()
            assert "whether it took effect is not known" in result["error"]
        session = played.log[0]
        assert session["seq"] == 1
        await noted(bench.path, ("00000000-0000-0000-0000-000000000001/r", None))
        async with bench.client():
            played.dispatch("r", "read", n=8)
            assert (await played.next())["result"] == 8
    assert bench.runs == [7, 8]


async def test_what_cannot_be_noted_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    async with playing() as played:
        bench = Bench(played, tmp_path / "calls")
        async with bench.client():
            monkeypatch.setattr("protocol.client.journal.os.write", full)
            played.dispatch("a", "write", n=7)
            assert "did not run it: [Errno 28] No space left" in (await played.next())["error"]
            monkeypatch.undo()
    assert bench.runs == []


async def test_a_result_that_cannot_be_noted_is_sent_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    async with playing() as played:
        bench = Bench(played, tmp_path / "calls")
        async with bench.client():
            played.dispatch("a", "write", n=7)
            await bench.begun.wait()
            monkeypatch.setattr("protocol.client.journal.os.write", full)
            bench.go.set()
            assert (await played.next())["result"] == 7
            monkeypatch.undo()


KILLED = """
import asyncio, os, sys
from protocol.client import connect

async def write(n: int) -> int:
    \"\"\"Change something.\"\"\"
    print("begun", flush=True)
    await asyncio.Event().wait()
    return n

async def main() -> None:
    async with connect(sys.argv[1], "x", client_id="me", tools=[write], journal=sys.argv[2]) as session:
        await session.serve()

asyncio.run(main())
"""


@pytest.mark.feature("A02")
async def test_a_client_that_was_killed_runs_nothing_twice(tmp_path: Path) -> None:
    async with playing() as played:
        bench = Bench(played, tmp_path / "calls")
        program = (sys.executable, "-c", KILLED, played.url, str(bench.path))
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        process = await asyncio.create_subprocess_exec(*program, stdout=asyncio.subprocess.PIPE, env=environment)
        try:
            assert process.stdout is not None
            await played.next("register_tools")
            played.dispatch("a", "write", n=7)
            assert await process.stdout.readline() == b"begun\n"
        finally:
            process.kill()
            await process.communicate()
        async with bench.client():
            played.say({"event_type": "tool_dispatched", "payload": played.log[0]["payload"]})
            assert "not known" in (await played.next())["error"]
    assert bench.runs == []
