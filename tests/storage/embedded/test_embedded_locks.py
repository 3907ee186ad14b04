"""Who owns a data directory: one process, and for as long as it lives."""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.embedded import EmbeddedError
from storage.embedded.locks import own, try_lock


def _dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


async def test_a_lock_that_outlives_its_owner_by_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "owner.lock"
    # What a child between fork and exec is to the next owner: the lock is held, and whoever noted himself is dead.
    held = try_lock(path)
    assert held is not None
    os.pwrite(held, f"{_dead_pid()}\nparley\n".encode(), 0)
    owning = asyncio.create_task(asyncio.to_thread(own, path))
    await asyncio.sleep(0)
    assert not owning.done()
    fcntl.flock(held, fcntl.LOCK_UN)
    async with asyncio.timeout(10):
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
