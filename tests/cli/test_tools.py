"""The tools of `parley chat --folder`: what they do in a folder, and that they do nothing outside of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from protocol.client import CallContext
from protocol.client.tools import Outcome
from server.agents.client_tools import CLIENT_TOOLS, ExecuteCommand
from server.cli.tools import Workspace, files, running, searching, tools_of
from server.cli.tools.workspace import Place

PATIENCE = 30.0


class Somebody:
    """Who sits at the terminal."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str | None]] = []

    async def present(self, result: str, command: str | None) -> None:
        self.shown.append((result, command))

    async def ask(self, question: str, options: list[str]) -> str:
        return f"{question}? {'/'.join(options)}"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with what nobody may touch."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    return outside


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """A workspace with traps in it."""
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]")
    (root / "src" / "a.py").write_text("one\ntwo\nthree\n")
    (root / "out").symlink_to(outside / "secret")
    (root / "up").symlink_to(outside)
    (root / "relative").symlink_to("../outside")
    (root / "dangling").symlink_to(outside / "new")
    (root / "in").symlink_to("src/a.py")
    (root / "folder").symlink_to(root / "src")
    (root / "circle").symlink_to("circle")
    (root / "dev").symlink_to("/dev/zero")
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def workspace(root: Path) -> Iterator[Workspace]:
    workspace = Workspace(root)
    yield workspace
    workspace.close()
    workspace.close()


async def call(workspace: Workspace, name: str, **arguments: Any) -> Outcome:
    tools = {tool.description.name: tool for tool in tools_of(workspace, Somebody())}
    context = CallContext("c", name, UUID(int=1), lambda _, __: None)
    async with asyncio.timeout(PATIENCE):
        return await tools[name].call(arguments, context)


async def done(workspace: Workspace, name: str, **arguments: Any) -> Any:
    outcome = await call(workspace, name, **arguments)
    assert outcome.error is None
    return outcome.value


async def failure(workspace: Workspace, name: str, **arguments: Any) -> str:
    outcome = await call(workspace, name, **arguments)
    assert outcome.error is not None, outcome.value
    return outcome.error


def contents(folder: Path) -> dict[str, str]:
    return {one.name: one.read_text() for one in folder.iterdir()}


def test_they_are_the_tools_that_agents_know(workspace: Workspace) -> None:
    tools = {tool.description.name: tool.description for tool in tools_of(workspace, Somebody())}
    assert tools.keys() == CLIENT_TOOLS.keys()
    for name, about in tools.items():
        assert about.parameters == CLIENT_TOOLS[name].parameters


async def test_what_does_not_fit_is_said_by_name(workspace: Workspace) -> None:
    assert "`$.start_line`" in await failure(workspace, "read_file", path="a", start_line=0)
    assert "there is no parameter mode" in await failure(workspace, "read_file", path="a", mode=1)
    assert "missing required field `path`" in await failure(workspace, "delete_file")
    assert "`$.timeout`" in await failure(workspace, "execute_command", command="true", timeout=301)


# --- paths


HOSTILE = [
    *(
        "../outside/secret",
        "src/../../outside/secret",
        "out",
        "up/secret",
        "relative/secret",
        "relative",
        "folder/../../outside/secret",
    ),
    *("/etc/passwd", "dev", "pipe", "circle", "src", ".", "..", "/", "", "a\0b", "no/such", "x" * 300, "\ud800"),
    *("src/a.py/b", "in/../../outside/secret", "./././../outside/secret", "up/../outside/secret"),
]


@pytest.mark.parametrize("path", HOSTILE, ids=ascii)
async def test_nothing_outside_is_read_and_nothing_that_is_no_file(workspace: Workspace, path: str) -> None:
    assert "secret" not in (await failure(workspace, "read_file", path=path)).replace(path, "")


@pytest.mark.parametrize(
    "path", [*HOSTILE, "dangling", ".git/config", ".git/hooks/new", ".GIT/config", "src/../.git/config"], ids=ascii
)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("write_file", {"content": "gone", "create_dirs": True, "backup": True}),
        ("create_directory", {}),
        ("delete_file", {}),
        ("move_file", {"destination": "moved"}),
        ("move_from", {}),
        ("list_files", {}),
        ("execute_command", {"command": "pwd"}),
    ],
)
async def test_nothing_outside_is_changed(
    workspace: Workspace, root: Path, outside: Path, path: str, name: str, arguments: dict[str, Any]
) -> None:
    given = dict(arguments)
    if name == "move_from":
        name, given = "move_file", {"source": "src/a.py", "destination": path}
    else:
        given["source" if name == "move_file" else "cwd" if name == "execute_command" else "path"] = path
    before = sorted(os.listdir(root.parent))
    await call(workspace, name, **given)
    assert contents(outside) == {"secret": "secret"}
    assert contents(root / ".git") == {"config": "[core]"}
    assert sorted(os.listdir(root.parent)) == before


async def test_links_inside_lead_where_they_lead_and_whole_paths_are_paths(workspace: Workspace, root: Path) -> None:
    for path in ("in", "folder/a.py", str(root / "src" / "a.py"), "src//./a.py", "src/../in", "folder/../src/a.py"):
        assert await done(workspace, "read_file", path=path) == "one\ntwo\nthree\n"
    await done(workspace, "write_file", path="in", content="through the link")
    assert (root / "in").is_symlink()
    assert (root / "src" / "a.py").read_text() == "through the link"


async def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(
    workspace: Workspace, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the check of a path and its use somebody renames; both are of the same open folder."""
    status = Place.status

    def swapped(place: Place) -> os.stat_result | None:
        found = status(place)
        (root / "src").rename(root / "elsewhere")
        (root / "src").symlink_to(outside)
        return found

    monkeypatch.setattr(Place, "status", swapped)
    await done(workspace, "write_file", path="src/secret", content="gone")
    assert (outside / "secret").read_text() == "secret"
    assert (root / "elsewhere" / "secret").read_text() == "gone"


async def test_sockets_are_no_files(workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name in ("read_file", "write_file"):
            given = {"content": "x"} if name == "write_file" else {}
            assert "a device, a pipe or a socket" in await failure(workspace, name, path="socket", **given)


# --- reading and writing


async def test_lines_of_a_file(workspace: Workspace, root: Path) -> None:
    async def lines(start: int | None = None, end: int | None = None) -> Any:
        given = {"start_line": start, "end_line": end}
        return await done(workspace, "read_file", path="src/a.py", **{k: v for k, v in given.items() if v})

    assert [await lines(2), await lines(2, 2), await lines(None, 1), await lines(3, 9)] == [
        "two\nthree\n",
        "two\n",
        "one\n",
        "three\n",
    ]
    assert await failure(workspace, "read_file", path="src/a.py", start_line=4) == "src/a.py has 3 lines"
    assert "before start_line" in await failure(workspace, "read_file", path="src/a.py", start_line=3, end_line=2)
    (root / "windows").write_bytes(b"a\r\nb")
    assert await done(workspace, "read_file", path="windows") == "a\r\nb"
    assert await failure(workspace, "read_file", path="windows", start_line=3) == "windows has 2 lines"
    assert await done(workspace, "read_file", path="windows", start_line=2) == "b"


async def test_what_is_no_text_or_too_much_of_it(workspace: Workspace, root: Path) -> None:
    (root / "latin").write_bytes("é".encode("latin-1"))
    (root / "binary").write_bytes(b"a\0b")
    (root / "large").write_text("x" * 60 + "\n" + ("y" * 99 + "\n") * 5000)
    assert await done(workspace, "read_file", path="latin", encoding="latin-1") == "é"
    assert "no text in utf-8" in await failure(workspace, "read_file", path="latin")
    assert "NUL" in await failure(workspace, "read_file", path="binary")
    for encoding in ("no-such", "base64", "zip", "\0"):
        assert "is not known" in await failure(workspace, "read_file", path="latin", encoding=encoding)
        assert "is not known" in await failure(workspace, "write_file", path="new", content="x", encoding=encoding)
    assert "read it in pieces" in await failure(workspace, "read_file", path="large")
    assert "ask for fewer" in await failure(workspace, "read_file", path="large", start_line=2)
    assert await done(workspace, "read_file", path="large", end_line=1) == "x" * 60 + "\n"
    assert not (root / "new").exists()


async def test_writing(workspace: Workspace, root: Path) -> None:
    script = root / "run.sh"
    script.write_text("old")
    script.chmod(0o750)
    assert await done(workspace, "write_file", path="run.sh", content="new\n", backup=True) == (
        "replaced run.sh: 1 lines, 4 bytes"
    )
    assert (script.read_text(), (root / "run.sh.bak").read_text()) == ("new\n", "old")
    assert stat.S_IMODE(script.stat().st_mode) == 0o750
    assert "no such file or folder" in await failure(workspace, "write_file", path="a/b/c", content="é")
    assert await done(workspace, "write_file", path="a/b/c", content="é", create_dirs=True, encoding="latin-1") == (
        "wrote a/b/c: 1 lines, 1 bytes"
    )
    assert (root / "a" / "b" / "c").read_bytes() == b"\xe9"
    assert "cannot be written in ascii" in await failure(
        workspace, "write_file", path="d", content="é", encoding="ascii"
    )
    assert not [name for name in os.listdir(root) if name.startswith(".parley-")]


async def test_a_full_disk_leaves_the_old_file_and_no_other(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("server.cli.tools.files.os.fsync", full)
    assert "no space left" in await failure(workspace, "write_file", path="src/a.py", content="new")
    assert (root / "src" / "a.py").read_text() == "one\ntwo\nthree\n"
    assert os.listdir(root / "src") == ["a.py"]


async def test_folders_deletion_and_moves(workspace: Workspace, root: Path, outside: Path) -> None:
    assert await done(workspace, "create_directory", path="x/y") == "created x/y"
    assert await done(workspace, "create_directory", path="x/y") == "x/y is there already"
    assert "no such" in await failure(workspace, "create_directory", path="q/r", recursive=False)
    assert "is there already: a file" in await failure(workspace, "create_directory", path="src/a.py")
    assert await done(workspace, "move_file", source="src/a.py", destination="x/b.py") == "moved src/a.py to x/b.py"
    (root / "c").write_text("c")
    assert "set overwrite" in await failure(workspace, "move_file", source="c", destination="x/b.py")
    assert "name the file in it" in await failure(workspace, "move_file", source="c", destination="x")
    assert "no such file" in await failure(workspace, "move_file", source="d", destination="e")
    assert "only files are moved" in await failure(workspace, "move_file", source="x", destination="z")
    await done(workspace, "move_file", source="c", destination="x/b.py", overwrite=True)
    assert (root / "x" / "b.py").read_text() == "c"
    assert "only files are deleted" in await failure(workspace, "delete_file", path="x")
    await done(workspace, "delete_file", path="x/b.py")
    # Of a link, the link: what it leads to stays.
    await done(workspace, "delete_file", path="out")
    assert not (root / "out").is_symlink()
    assert (outside / "secret").exists()


async def test_listing(workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "src" / "deep").mkdir()
    (root / "src" / "deep" / "b.py").write_text("")
    assert (await done(workspace, "list_files", path="src"))["entries"] == ["src/a.py", "src/deep/"]
    everything = (await done(workspace, "list_files", recursive=True))["entries"]
    assert "src/deep/b.py" in everything
    assert not [path for path in everything if path.startswith((".git", "up/", "folder/"))]
    found = (await done(workspace, "list_files", recursive=True, pattern="*.py"))["entries"]
    assert found == ["src/a.py", "src/deep/b.py"]
    assert ".git/" in (await done(workspace, "list_files", include_hidden=True))["entries"]
    monkeypatch.setattr(files, "_MOST_LISTED", 3)
    few = await done(workspace, "list_files", recursive=True)
    assert (len(few["entries"]), few["truncated"]) == (3, True)
    assert "folder on the way is none" in await failure(workspace, "list_files", path="src/a.py")


# --- searching


async def test_searching(workspace: Workspace, root: Path) -> None:
    (root / "src" / "b.txt").write_text("Two more\n" + "x" * 1000 + "two\n")
    (root / "src" / "binary").write_bytes(b"two\0")
    (root / ".hidden").write_text("two")

    async def found(query: str, **options: Any) -> list[tuple[str, int]]:
        answer = await done(workspace, "search_in_code", query=query, **options)
        return [(match["path"], match["line"]) for match in answer["matches"]]

    assert await found("two") == [("src/a.py", 2), ("src/b.txt", 1), ("src/b.txt", 2)]
    assert await found("two", case_sensitive=True) == [("src/a.py", 2), ("src/b.txt", 2)]
    assert await found("^t.o$", regex=True) == [("src/a.py", 2)]
    assert await found("two", file_pattern="*.txt", path="src") == [("src/b.txt", 1), ("src/b.txt", 2)]
    assert await found("two", path="in") == [("src/a.py", 2)]
    assert await found("(", path="src") == []
    few = await done(workspace, "search_in_code", query="t", max_results=1)
    assert (len(few["matches"]), few["truncated"]) == (1, True)
    assert "no regular expression" in await failure(workspace, "search_in_code", query="(", regex=True)
    assert "out of the workspace" in await failure(workspace, "search_in_code", query="secret", path="up")


async def test_a_pattern_that_takes_for_ever_is_stopped(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "trap").write_text("a" * 60 + "b")
    monkeypatch.setattr(running, "_SEARCH", 1.0)
    words = await failure(workspace, "search_in_code", query="(a+)+$", regex=True, path="trap")
    assert "took longer" in words


def test_the_searching_program_says_what_is_wrong(root: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    asked: searching.Asked = {
        "query": "two",
        "prefix": "",
        "name": None,
        "file_pattern": None,
        "case_sensitive": True,
        "regex": False,
        "max_results": 9,
    }
    folder = os.open(root, os.O_RDONLY)
    try:
        assert searching.search(folder, asked)["matches"] == [{"path": "src/a.py", "line": 2, "text": "two"}]
    finally:
        os.close(folder)


# --- commands


async def test_a_command_and_what_it_says(workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_TOKEN", "secret")
    monkeypatch.setenv("SHELL", "/bin/sh")
    answer = await done(workspace, "execute_command", command="echo $HOME; echo oops >&2; exit 3", shell=True)
    assert (answer["exit_code"], answer["stderr"]) == (3, "oops\n")
    # Without a shell nothing is interpreted.
    assert (await done(workspace, "execute_command", command="echo '$HOME' ;"))["stdout"] == "$HOME ;\n"
    assert (await done(workspace, "execute_command", command="pwd", cwd="folder"))["stdout"] == f"{root}/src\n"
    assert "PARLEY" not in (await done(workspace, "execute_command", command="env"))["stdout"]
    # Nobody is there to type.
    assert (await done(workspace, "execute_command", command="cat"))["stdout"] == ""
    assert "cannot be run: there is no such" in await failure(workspace, "execute_command", command="no-such-program")
    assert "No closing quotation" in await failure(workspace, "execute_command", command="echo '")
    assert "empty" in await failure(workspace, "execute_command", command=" ")
    assert "none" in await failure(workspace, "execute_command", command="pwd", cwd="src/a.py")


async def test_an_output_without_end_is_cut(workspace: Workspace) -> None:
    code = "import sys; sys.stdout.write('a' * 30_000 + 'b' * 300_000 + 'c' * 30_000)"
    answer = await done(workspace, "execute_command", command=f'{sys.executable} -c "{code}"')
    text = answer["stdout"]
    assert text.startswith("aaa")
    assert text.endswith("ccc")
    assert "bytes are left out" in text
    assert len(text) < 61_000


LEAVES = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
child = subprocess.Popen([sys.executable, "-c", stubborn])
print(os.getpid(), child.pid, flush=True)
"""


async def gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:  # noqa: ASYNC110, ASYNC240 - processes send no events
            await asyncio.sleep(0)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


@needs_proc
async def test_a_command_that_takes_too_long_is_ended_with_its_children(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_GRACE", 0.1)
    (root / "leaves.py").write_text(LEAVES + "signal.pause()\n")
    answer = await done(workspace, "execute_command", command=f"{sys.executable} leaves.py", timeout=2)
    assert "stopped after 2 s" in answer["timed_out"]
    assert answer["exit_code"] == -signal.SIGKILL
    for pid in map(int, answer["stdout"].split()):
        await gone(pid)


@needs_proc
async def test_what_a_command_leaves_behind_holds_nobody_up(workspace: Workspace, root: Path) -> None:
    (root / "leaves.py").write_text(LEAVES)
    answer = await done(workspace, "execute_command", command=f"{sys.executable} leaves.py")
    assert answer["exit_code"] == 0
    await gone(int(answer["stdout"].split()[1]))


@needs_proc
async def test_a_command_that_is_not_wanted_any_more_is_ended(
    workspace: Workspace, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_GRACE", 0.1)
    (root / "leaves.py").write_text(LEAVES + "signal.pause()\n")
    told: asyncio.Queue[str] = asyncio.Queue()
    asked = ExecuteCommand(command=f"{sys.executable} leaves.py")
    task = asyncio.create_task(running.execute_command(workspace, asked, told.put_nowait))
    async with asyncio.timeout(PATIENCE):
        pids = [int(pid) for pid in (await told.get()).split()]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for pid in pids:
        await gone(pid)


# --- the user


async def test_the_user_is_shown_and_asked(workspace: Workspace) -> None:
    user = Somebody()
    tools = {tool.description.name: tool for tool in tools_of(workspace, user)}
    context = CallContext("c", "x", UUID(int=1), lambda _, __: None)
    shown = await tools["attempt_completion"].call({"result": "Done.", "command": "make"}, context)
    asked = await tools["ask_followup_question"].call({"question": "Which", "options": ["a", "b"]}, context)
    assert (shown.value, user.shown) == ("The user was shown it.", [("Done.", "make")])
    assert asked.value == "Which? a/b"
