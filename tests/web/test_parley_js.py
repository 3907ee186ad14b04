"""Runs the tests of the page's scripts that need no browser, in Node."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
LIBRARY: Final = sorted(str(path) for path in HERE.glob("*.test.js"))
CONSOLE: Final = sorted(str(path) for path in HERE.glob("console/*.test.js"))

#: The first Node that takes a `.js` file with imports for a module by itself, as browsers do.
OLDEST_NODE: Final = (20, 19)


async def _output(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def _node() -> str:
    """The path of a Node that will do; without one the test is skipped, or fails where CI relies on it."""
    found = shutil.which("node")
    version = (await _output(found, "--version"))[1] if found else "none"
    numbers = re.match(r"v(\d+)\.(\d+)", version)
    if found and numbers and tuple(map(int, numbers.groups())) >= OLDEST_NODE:
        return found
    message = (
        f"the page's scripts are tested with Node {'.'.join(map(str, OLDEST_NODE))} or later; here is {version.strip()}"
    )
    if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
        pytest.fail(message)
    pytest.skip(message)


async def _run(pattern: str = "", *, files: list[str] = LIBRARY) -> None:
    """Run the tests of these files whose name matches, all if there is no pattern; at least one must."""
    selection = [f"--test-name-pattern={pattern}"] if pattern else []
    code, output = await _output(await _node(), "--test", "--test-reporter=tap", *selection, *files)
    passed = re.search(r"^# pass (\d+)$", output, re.MULTILINE)
    assert code == 0, output
    assert passed, output
    assert int(passed[1]) > 0, f"no test is called {pattern!r}"


@pytest.mark.feature("E02", "T01", "T02", "T03", "T04", "T09", "S07", "S36", "A02", "A03", "A04")
async def test_parley_js() -> None:
    await _run()


async def test_regression_05_what_both_transports_say_is_read_by_one_piece_of_code() -> None:
    await _run("regression 05")


async def test_regression_06_a_reconnect_goes_on_from_the_cursor() -> None:
    await _run("regression 06")


async def test_regression_10_a_stream_may_be_cut_in_lines_and_in_characters() -> None:
    await _run("regression 10")


async def test_regression_26_only_an_acknowledgement_acknowledges() -> None:
    await _run("regression 26")


async def test_regression_27_reconnecting_cannot_loop_fast() -> None:
    await _run("regression 27")


async def test_regression_28_the_fallback_begins_also_after_a_successful_upgrade() -> None:
    await _run("regression 28")


async def test_regression_38_a_disconnect_stops_neither_a_turn_nor_a_tool() -> None:
    await _run("regression 38")


async def test_regression_39_a_stream_that_never_opens_hangs_nothing() -> None:
    await _run("regression 39")


@pytest.mark.feature("A01", "E03")
async def test_the_parts_of_the_console_that_need_no_browser() -> None:
    await _run(files=CONSOLE)
