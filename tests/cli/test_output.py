"""Standard output that goes away, is full, or was never there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.cli.support import SCRIPT, environment
from tests.support.server import RunningServer


async def shell(line: str, *arguments: str, **variables: str) -> tuple[int | None, str, str]:
    """Run a line of shell in which `"$@"` is the command: exit code of its last part, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", line, "sh", sys.executable, "-c", SCRIPT, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Python buffers here as it does for users.
        env={name: value for name, value in environment(**variables).items() if name != "PYTHONUNBUFFERED"},
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


@pytest.fixture
async def url(server: RunningServer) -> str:
    session = await server.create_session(session_id="notes")
    for _ in range(3):
        await server.command(session, type="user_message", content="write 2000 words about pipes")
    return server.url


LINES: Sequence[tuple[str, ...]] = [
    ("--version",),
    ("--help",),
    ("tail", "--help"),
    ("completion", "bash"),
    ("sessions",),
    ("sessions", "show", "notes"),
    ("sessions", "history", "notes", "--json"),
    ("chat", "notes", "-m", "write 3000 words about pipes"),
    ("tail", "notes", "--after", "0", "--json", "--exit-when-idle"),
    ("tail", "notes", "--after", "0", "--exit-when-idle"),
]


@pytest.mark.feature("E01")
@pytest.mark.parametrize("arguments", LINES, ids=" ".join)
async def test_a_full_disk_is_said_in_one_sentence(url: str, arguments: tuple[str, ...]) -> None:
    code, out, errors = await shell('"$@" > /dev/full', *arguments, PARLEY_URL=url)
    assert (code, out) == (1, "")
    assert errors.splitlines()[-1] == "parley: standard output cannot be written: No space left on device"
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors


@pytest.mark.feature("E01")
@pytest.mark.parametrize("arguments", LINES, ids=" ".join)
async def test_a_pipe_that_nobody_reads_is_no_failure(url: str, arguments: tuple[str, ...]) -> None:
    line = '( "$@"; echo "code $?" >&2 ) | true'
    code, out, errors = await shell(line, *arguments, PARLEY_URL=url)
    assert (code, out) == (0, "")
    assert errors.splitlines()[-1] == "code 0"
    assert "parley:" not in errors
    assert "Traceback" not in errors


async def test_no_output_at_all_is_a_failure(url: str) -> None:
    code, _, errors = await shell('"$@" >&-', "sessions", PARLEY_URL=url)
    assert (code, errors) == (1, "parley: standard output cannot be written: it is closed\n")


async def test_a_terminal_without_unicode_gets_what_it_can_show(url: str) -> None:
    variables = {"PARLEY_URL": url, "PYTHONIOENCODING": "ascii"}
    code, out, errors = await shell('"$@"', "chat", "notes", "-m", "echo naïve → yes", **variables)
    assert (code, out, errors) == (0, "na?ve ? yes\n", "")
