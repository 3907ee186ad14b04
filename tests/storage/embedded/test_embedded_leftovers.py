"""What a former run, or somebody else, has left in the data directory: judged by what it is, never by a number."""

# ruff: noqa: ASYNC220, ASYNC222 - a test serves nobody else meanwhile

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from storage.embedded import EmbeddedError
from storage.embedded.account import server_account
from storage.embedded.binaries import locate
from storage.embedded.leftovers import recorded_pid
from storage.embedded.places import Places
from tests.storage.embedded.processes import embedded, orphan, owner, running, until

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="watches processes as Linux does")

WITHOUT_PTRACE = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")


def claim(data_dir: Path, pid: int) -> None:
    """Leave the pid file of a server that was killed, naming this process."""
    account = server_account(data_dir / "pgdata")
    file = data_dir / "pgdata/postmaster.pid"
    file.write_text(f"{pid}\n{data_dir}/pgdata\n1700000000\n5432\n{data_dir}/run\n\n  1234567    654321\nready   \n")
    os.chown(file, account.uid, account.gid)
    file.chmod(0o600)


@contextlib.contextmanager
def bystander(data_dir: Path, *, working_in: Path = Path("/")) -> Iterator[int]:
    """A living process of the server's user that has nothing to do with it."""
    account = server_account(data_dir / "pgdata")
    user = account.uid if account.borrowed else None
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, cwd=working_in, user=user)
    assert process.stdin is not None
    try:
        yield process.pid
        assert process.poll() is None, "it was killed"
    finally:
        process.stdin.close()
        process.wait()


async def test_a_second_owner_is_refused_and_told_who_the_first_is(data_dir: Path) -> None:
    async with running(server := embedded(data_dir)):
        for other in (embedded(data_dir), embedded(data_dir / "../data")):
            with pytest.raises(EmbeddedError, match=rf"{data_dir} is in use by process {os.getpid()} "):
                await other.start()
            assert other.state == "failed"
        async with owner(data_dir) as stranger:
            assert f"is in use by process {os.getpid()} " in (await stranger.answer()).error
        connection = await asyncpg.connect(server.dsn())
        await connection.close()
    async with owner(data_dir) as stranger:
        await stranger.answer()
        with pytest.raises(EmbeddedError, match=f"is in use by process {stranger.process.pid} "):
            await embedded(data_dir).start()
        assert await stranger.finish() == 0


async def test_a_pid_file_that_names_a_living_bystander(data_dir: Path) -> None:
    with bystander(data_dir) as pid:
        claim(data_dir, pid)
        async with running(embedded(data_dir)):
            pass


async def test_a_pid_file_that_names_a_zombie(data_dir: Path) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    claim(data_dir, process.pid)
    async with running(embedded(data_dir)):
        pass
    process.wait()


async def test_a_pid_file_that_names_another_data_directorys_server(data_dir: Path, own_data_dir: Path) -> None:
    async with running(other := embedded(own_data_dir)) as pid:
        claim(data_dir, pid)
        async with running(embedded(data_dir)):
            pass
        connection = await asyncpg.connect(other.dsn())
        await connection.close()


@pytest.mark.parametrize("garbage", ["", "\n\n\n", "not a number\n", "-1\n", "99999999999999999999\n"])
async def test_a_pid_file_of_garbage(data_dir: Path, garbage: str) -> None:
    claim(data_dir, os.getpid())
    (data_dir / "pgdata/postmaster.pid").write_text(garbage)
    async with running(embedded(data_dir)):
        pass


async def test_a_shell_in_the_directory_is_no_server(data_dir: Path) -> None:
    with bystander(data_dir, working_in=data_dir / "pgdata") as pid:
        claim(data_dir, pid)
        async with running(embedded(data_dir)):
            pass


async def test_a_server_that_somebody_else_started_is_left_alone_and_named(own_data_dir: Path) -> None:
    account = server_account(own_data_dir / "pgdata")
    postgres = locate(None, account, Places(own_data_dir)).postgres
    directory = os.open(own_data_dir / "pgdata", os.O_RDONLY)
    settings = ("listen_addresses=", "port=54999", f"unix_socket_directories={tempfile.gettempdir()}")
    process = subprocess.Popen(
        [postgres, "-D", f"/proc/self/fd/{directory}", *(part for setting in settings for part in ("-c", setting))],
        user=account.uid if account.borrowed else None,
        stderr=subprocess.DEVNULL,
        pass_fds=[directory],
    )
    os.close(directory)
    try:
        # Made first, written then.
        await until(lambda: recorded_pid(Places(own_data_dir)) == process.pid)
        with pytest.raises(EmbeddedError, match=rf"somebody else started .* \(process {process.pid}\)"):
            await embedded(own_data_dir).start()
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    async with running(embedded(own_data_dir)):
        pass


@pytest.mark.parametrize("lock_lost", [False, True])
async def test_a_backend_that_outlived_its_server_is_ended_first(data_dir: Path, lock_lost: bool) -> None:
    async with owner(data_dir) as former, orphan(await former.answer()) as watched:
        if lock_lost:
            (data_dir / "server.lock").unlink()
        async with running(embedded(data_dir)):
            await watched.gone()


async def test_one_that_cannot_even_be_told_is_killed(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.embedded.leftovers._PATIENCE", 0.2)
    async with owner(data_dir) as former, orphan(await former.answer()) as watched:
        watched.kill(signal.SIGSTOP)
        async with running(embedded(data_dir)):
            await watched.gone()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
async def test_roots_eyes_are_the_servers_users_where_capabilities_are_missing(data_dir: Path) -> None:
    async with (
        owner(data_dir) as former,
        orphan(await former.answer()) as watched,
        owner(data_dir, prefix=WITHOUT_PTRACE) as new,
    ):
        assert (await new.answer()).postmaster
        await watched.gone()
        assert await new.finish() == 0
