"""Who owns a data directory: one process, and for as long as it lives."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.embedded import EmbeddedError
from storage.embedded.locks import own, try_lock
from tests.storage.embedded.processes import PATIENCE


@pytest.fixture
def dead_pid() -> Iterator[int]:
    """The number of a process that has ended, and that nobody is given meanwhile: it is reaped only afterwards."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield process.pid


async def test_a_lock_that_outlives_its_owner_by_a_moment_is_waited_for(
    tmp_path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.embedded.locks._PATIENCE", PATIENCE)
    path = tmp_path / "owner.lock"
    # What a child between fork and exec is to the next owner: the lock is held, and whoever noted himself is dead.
    held = try_lock(path)
    assert held is not None
    os.pwrite(held, f"{dead_pid}\nparley\n".encode(), 0)
    owning = asyncio.create_task(asyncio.to_thread(own, path))
    await asyncio.sleep(0)
    assert not owning.done()
    fcntl.flock(held, fcntl.LOCK_UN)
    async with asyncio.timeout(PATIENCE):
        owned = await owning
    os.close(held)
    assert path.read_text().startswith(f"{os.getpid()}\n")
    os.close(owned)


def test_a_living_owner_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "owner.lock"
    owned = own(path)
    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"):
        own(path)
    os.close(owned)
