"""Workers: whether a process of this host still lives, and how its leases are struck out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage import workers
from storage.ids import new_id
from storage.workers import ProcessIdentity
from tests.storage.scene import Scene


def _sleeper() -> subprocess.Popen[bytes]:
    """A child that says so once it runs, and then waits for its input to end."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"here\n"
    return child


def test_this_process_is_alive() -> None:
    identity = ProcessIdentity.current()
    assert identity.is_alive(identity.process)
    assert identity == ProcessIdentity.current()
    assert identity.process.startswith(f"{os.getpid()}@")


def test_a_child_is_alive_until_it_ends_and_dead_as_a_zombie() -> None:
    identity = ProcessIdentity.current()
    with _sleeper() as child:
        process = workers._process(child.pid)
        assert identity.is_alive(process)
        child.kill()
        # Ended and not reaped: its id is taken, and kill(pid, 0) succeeds.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        os.kill(child.pid, 0)
        assert not identity.is_alive(process)
    assert not identity.is_alive(process)


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    identity = ProcessIdentity.current()
    pid, _, tick = identity.process.partition("@")
    assert not identity.is_alive(f"{pid}@{int(tick) - 1}")
    assert not identity.is_alive(f"{pid}@dead")


def test_a_process_of_another_user_counts_as_alive_only_if_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    identity = ProcessIdentity.current()
    assert identity.is_alive(identity.process)
    assert not identity.is_alive(f"{os.getpid()}@1")


def test_where_the_system_tells_no_start_the_process_id_must_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_read", lambda path: "")
    identity = ProcessIdentity.current()
    assert identity.process == str(os.getpid())
    assert identity.is_alive(identity.process)


def test_a_name_with_blanks_and_parentheses_misleads_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = " ".join(["S", *(str(number) for number in range(4, 53))])
    monkeypatch.setattr(workers, "_read", lambda path: f"7 (a) Z (b c) {fields}")
    assert workers._process(7) == "7@22"


async def test_the_dead_of_this_host_are_forgotten(scene: Scene, tmp_path: Path) -> None:
    identity = ProcessIdentity.current()
    with _sleeper() as child:
        dead = workers._process(child.pid)
        child.kill()
    mine, gone, foreign = new_id(), new_id(), new_id()
    await scene.workers.renew(mine, identity, 60)
    await scene.workers.renew(gone, ProcessIdentity(identity.host, dead), 60)
    # A process id means nothing on another host, after another boot, or in another container.
    await scene.workers.renew(foreign, ProcessIdentity("elsewhere", dead), 60)
    assert await scene.workers.forget_dead(identity) == 1
    assert await scene.workers.forget_dead(identity) == 0
    assert {row[0] for row in await scene.rows("SELECT worker_id FROM workers")} == {mine, foreign}


async def test_a_lease_is_renewed_by_the_databases_clock_and_forgotten_long_after(scene: Scene) -> None:
    identity = ProcessIdentity.current()
    for _ in range(2):
        await scene.workers.renew(scene.worker, identity, 60)
    await scene.workers.renew(new_id(), identity, -100)
    left = "SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM workers WHERE worker_id = $1"
    assert 50 < await scene.value(left, scene.worker) <= 60
    await scene.workers.forget_expired(3600)
    assert await scene.value("SELECT count(*) FROM workers") == 2
    await scene.workers.forget_expired(60)
    assert await scene.value("SELECT count(*) FROM workers") == 1
