"""What the chaos suite is run with, and what it says at the end."""

from __future__ import annotations

import faulthandler
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.chapters import Tally

_LINES: Final = pytest.StashKey[list[str]]()

Report = Callable[[str, str, float, Tally], None]


@pytest.fixture(scope="session")
def seed() -> str:
    """`PARLEY_CHAOS_SEED`, or a new one: the same seed makes the same choices."""
    return os.environ.get("PARLEY_CHAOS_SEED") or str(random.SystemRandom().randrange(10**9))


@pytest.fixture
def same_seed() -> str:
    """`PARLEY_CHAOS_SEED`, or always the same one: where a failure is to be its commit's and not chance's."""
    return os.environ.get("PARLEY_CHAOS_SEED", "1")


@pytest.fixture
def rounds() -> int:
    """`PARLEY_CHAOS_ROUNDS`: how often each kind of thing is killed."""
    return int(os.environ.get("PARLEY_CHAOS_ROUNDS", "50"))


@pytest.fixture
def long() -> None:
    """For tests of minutes, which bound each of their waits: the last resort against hanging tests is not for them."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A place for a data directory. Not pytest's: its mode keeps the user away under which root runs PostgreSQL."""
    home = Path(tempfile.mkdtemp(prefix="parley-chaos-"))
    home.chmod(0o755)
    yield home / "data"
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def report(pytestconfig: pytest.Config) -> Report:
    """Have a line about a run printed at the end."""

    def add(kind: str, seed: str, seconds: float, tally: Tally) -> None:
        pytestconfig.stash.setdefault(_LINES, []).append(_summary(kind, seed, seconds, tally))

    return add


@pytest.fixture
def report_line(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Have a line printed at the end."""
    return pytestconfig.stash.setdefault(_LINES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was killed, and what was checked."""
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("chaos")
    for line in lines:
        terminalreporter.write_line(line)


def _summary(kind: str, seed: str, seconds: float, tally: Tally) -> str:
    def numbers(*names: str) -> str:
        return ", ".join(f"{tally[name]} {name}" for name in names)

    kills = ", ".join(f"{count} {name}" for name, count in sorted(tally.items()) if name.startswith("kills of"))
    refused = ", ".join(f"{count} {name}" for name, count in sorted(tally.items()) if name.startswith("refused"))
    sent = numbers("commands", "acks lost", "effects of lost acks", "repeats")
    attempts = ", ".join(f"{tally[name]} by {name}" for name in sorted(tally) if name.startswith("attempt "))
    return "\n".join(
        (
            f"{kind}: {kills}, {numbers('stops in order')}, seed {seed}, {seconds:.0f} s",
            f"  turns     {numbers('completed', 'interrupted', 'cancelled', 'failed')}",
            f"  answers   {attempts}; {numbers('tool_result')}",
            f"  commands  {sent}; {refused or 'none refused'}",
            f"  clients   {numbers('sessions', 'reconnects')}",
            f"  checked   {numbers('durable', 'delta', 'transient')} frames, {numbers('texts')} against their messages",
        )
    )
