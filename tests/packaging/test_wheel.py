"""The wheel: what is in it, and that it works where nothing else of the project is.

It is installed into an environment of its own, with the locked packages of `requirements/run.txt` and no others: they
are lent by the environment of the tests, so that nothing is fetched. The working directory is full of files that are
called like our modules and like others'.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

import parley
from protocol.client import connect
from protocol.events import MessageCreated, TaskCompleted
from server.version import VERSION
from tests.cli.support import Process, environment
from tests.support.database import Cluster

ROOT = Path(__file__).parents[2]
PACKAGES = ("parley-stubs", "protocol", "storage", "server")
#: Modules of ours, of packages that we use, and of the standard library; and two that Python looks for by itself.
HOSTILE = (
    *(*PACKAGES[1:], "parley", "aiohttp", "asyncpg", "msgspec", "structlog", "rich"),
    *("asyncio", "json", "logging", "signal", "ssl", "typing", "sitecustomize", "usercustomize"),
)


_TYPED = """\
from parley import connect

async def ask() -> None:
    async with connect("http://127.0.0.1:8080") as session:
        reveal_type((await session.ask("hello")).text)
        reveal_type(session)
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that also the user can enter as whom PostgreSQL runs; pytest's own keeps others out."""
    with tempfile.TemporaryDirectory(prefix="parley-wheel-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """A wheel of the tree; built from a copy of it, as building leaves things behind."""
    copy = place / "tree"
    for name in (*PACKAGES, "tests/packaging", "examples"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("parley.py", "pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    # The build backend is the locked one, which is installed.
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(place), str(copy))
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(place: Path, wheel: Path) -> Path:
    """Where the commands are of an environment that the wheel is installed in."""
    home = place / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    for distribution in locked():
        for name in {file.parts[0] for file in distribution.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            if not (site / name).exists():
                (site / name).symlink_to(Path(str(distribution.locate_file(name))))
    pip("--python", str(home / "bin" / "python"), "install", "--no-deps", str(wheel))
    return home / "bin"


def pip(*arguments: str) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    command = arguments.index("wheel") if "wheel" in arguments else arguments.index("install")
    given = [*arguments[:command], *quiet, arguments[command], "--no-index", *arguments[command + 1 :]]
    done = subprocess.run([sys.executable, "-m", "pip", *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def locked() -> Iterator[importlib.metadata.Distribution]:
    """What users install along with the wheel; packages for other platforms are not here to be lent."""
    for line in (ROOT / "requirements" / "run.txt").read_text().splitlines():
        if (found := re.match(r"([a-z0-9.-]+)==\S+( ; )?", line)) is None:
            continue
        try:
            yield importlib.metadata.distribution(found[1])
        except importlib.metadata.PackageNotFoundError:
            assert found[2], f"{found[1]} is not installed"


# --- what is in it


def tree() -> set[str]:
    """All files of the packages, but for what Python leaves there and what explains the code."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    found = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    return {"parley.py", *(name for name in found if not name.endswith("/README.md"))}


def test_it_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/README.md")}
    about = {name for name in names if name.startswith(f"parley_server-{VERSION}.dist-info/")}
    assert names - about == tree()
    # Of each kind, lest both sides of this are empty.
    kinds = ("storage/sql/migrations/*.sql", "storage/sql/queries/*.sql", "server/web/*.js", "server/agents/*/*.md")
    assert [kind for kind in (*kinds, "*/py.typed", "server/web/index.html") if not list(ROOT.glob(kind))] == []


def test_it_says_what_it_needs(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(wheel) as archive:
        about = f"parley_server-{VERSION}.dist-info"
        metadata = HeaderParser().parsestr(archive.read(f"{about}/METADATA").decode())
        commands = archive.read(f"{about}/entry_points.txt").decode().split()
        assert archive.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (metadata["Name"], metadata["Version"], metadata["Requires-Python"]) == ("parley-server", VERSION, ">=3.11")
    needed = [one for one in metadata.get_all("Requires-Dist", []) if "extra ==" not in one]
    assert sorted(needed) == sorted(project["dependencies"])
    assert commands == ["[console_scripts]", "parley", "=", "server.cli:main"]


def test_the_public_face_has_its_types() -> None:
    """The stub says what parley.py says: the same names from the same modules."""

    def imported(file: str) -> set[tuple[str | None, str]]:
        nodes = ast.walk(ast.parse((ROOT / file).read_text()))
        return {(node.module, name.name) for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}

    stub = imported("parley-stubs/__init__.pyi")
    assert stub == imported("parley.py") - {("__future__", "annotations"), ("server.version", "VERSION")}
    assert {name for _, name in stub} | {"__version__"} == set(parley.__all__)


# --- that it works


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder of a user's whose files are called like everything that matters. Who imports one leaves a mark."""
    for name in HOSTILE:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / name)!r} + '.imported', 'w').close()\n")
    (tmp_path / "mine.py").write_text(AGENT)
    (tmp_path / "mine.toml").write_text('[agents]\ndefault = "mine"\npython = ["mine.py:mine"]\n')
    return tmp_path


AGENT = """
from collections.abc import AsyncGenerator

from parley import AgentContext, agent


@agent(type="mine")
async def mine(context: AgentContext) -> AsyncGenerator[str, None]:
    yield context.history[-1].content.upper()
"""


def marks(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.imported"))


@asynccontextmanager
async def started(*command: str | Path, cwd: Path) -> AsyncIterator[Process]:
    variables = {name: value for name, value in environment().items() if not name.startswith(("PYTHON", "COVERAGE"))}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env=variables,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def run(*command: str | Path, cwd: Path) -> tuple[int, str, str]:
    async with started(*command, cwd=cwd) as process:
        return await process.end()


async def test_the_environment_is_empty_and_the_folder_is_hostile(scripts: Path, hostile: Path) -> None:
    """The rest of this file would show nothing if it were not so."""
    python = scripts / "python"
    code, out, _ = await run(python, "-P", "-c", "import server.app; print(server.app.__file__)", cwd=hostile)
    assert (code, Path(out.strip()).is_relative_to(scripts.parent)) == (0, True)
    assert (await run(python, "-P", "-c", "import pytest", cwd=hostile))[0] == 1
    assert marks(hostile) == []
    await run(python, "-c", "import storage", cwd=hostile)
    assert "storage" in marks(hostile)


def test_a_type_checker_sees_its_types(scripts: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_TYPED, encoding="utf-8")
    command = (sys.executable, "-m", "mypy", "--strict", "--python-executable", str(scripts / "python"), str(program))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    revealed = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert (done.returncode, revealed) == (0, ["str", "protocol.client.session.Client"]), done.stdout + done.stderr


async def test_it_says_its_version_and_migrates_a_database(scripts: Path, hostile: Path, cluster: Cluster) -> None:
    parley = scripts / "parley"
    code, out, errors = await run(parley, "--version", cwd=hostile)
    assert (code, VERSION in out, errors) == (0, True, "")
    name = await cluster.create("template1")
    try:
        for _ in range(2):
            code, _, errors = await run(parley, "migrate", "--database-url", cluster.dsn(name), cwd=hostile)
            assert code == 0, errors
        connection = await asyncpg.connect(**cluster.connect_args(name))
        try:
            assert await connection.fetchval("SELECT count(*) FROM sessions") == 0
        finally:
            await connection.close()
        # It looks at agents in a process of its own.
        file = str(hostile / "mine.toml")
        code, out, errors = await run(
            parley, "check", "--config", file, "--database-url", cluster.dsn(name), cwd=hostile
        )
        assert (code, "mine" in out) == (0, True), out + errors
    finally:
        await cluster.drop(name)
    assert marks(hostile) == []


@pytest.mark.feature("E01", "A06")
async def test_it_serves_the_console_and_an_agent_from_beside_a_server_py(
    scripts: Path, hostile: Path, place: Path
) -> None:
    # With the PostgreSQL that it brings along, whose processes are started from this folder as well.
    arguments = ("--port", "0", "--data-dir", str(place / "data"), "--config", str(hostile / "mine.toml"))
    async with started(scripts / "parley", "serve", *arguments, cwd=hostile) as process:
        url = (await process.line("listens on")).split()[-1]
        async with aiohttp.ClientSession(url) as http:
            assert await got(http, "/") == (ROOT / "server/web/index.html").read_bytes()
            for path in sorted((ROOT / "server" / "web").rglob("*.*")):
                if path.suffix in {".js", ".css", ".svg"}:
                    assert await got(http, f"/{path.relative_to(ROOT / 'server/web')}") == path.read_bytes()
        assert await answer(url, "hello") == "HELLO"
        process.process.send_signal(signal.SIGTERM)
        code, _, errors = await process.end()
    assert code == 0, errors
    assert marks(hostile) == []


async def got(http: aiohttp.ClientSession, path: str) -> bytes:
    async with http.get(path) as response:
        assert response.status == 200, path
        return await response.read()


async def answer(url: str, text: str) -> str:
    said: list[Any] = []
    async with connect(url) as client, asyncio.timeout(30):
        await client.say(text)
        async for event in client:
            match event.payload:
                case MessageCreated(role="assistant", content=content):
                    said.append(content)
                case TaskCompleted():
                    break
                case _:
                    pass
    return "".join(said)
