"""The published specification says what the types do, and the types stay pure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.commands import COMMANDS
from protocol.errors import ErrorCode
from protocol.events import EVENTS
from protocol.lifecycles import LIFECYCLES
from protocol.tables import TABLES, fill

PROTOCOL = Path(__file__).parents[2] / "protocol"
README = (PROTOCOL / "README.md").read_text("utf-8")
#: All of it but the client, the one part that does I/O (a module, or a folder of them).
PURE = sorted(path for path in PROTOCOL.rglob("*.py") if path.relative_to(PROTOCOL).parts[0].split(".")[0] != "client")
FORBIDDEN = {
    "asyncio",
    "aiohttp",
    "asyncpg",
    "structlog",
    "logging",
    "random",
    "secrets",
    "socket",
    "threading",
    "time",
}


def section(table: str) -> str:
    found = re.search(rf"<!-- table: {table} -->\n(.*?)<!-- end -->", README, re.DOTALL)
    assert found is not None, f"the README has no table {table}"
    return found[1]


def first_column(table: str) -> list[str]:
    _, *names = re.findall(r"^\| `([^`]+)` \|", section(table), re.MULTILINE)
    return names


def test_the_readme_is_up_to_date() -> None:
    assert fill(README) == README, "run `python -m protocol.tables`"


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_published(table: str) -> None:
    assert section(table).count("\n") >= 3


@pytest.mark.feature("S09")
def test_the_tables_name_every_event_once() -> None:
    published = [
        name for kind in ("durable", "delta", "transient", "control") for name in first_column(f"{kind}-events")
    ]
    assert sorted(published) == sorted(EVENTS)


def test_the_tables_name_every_command_and_error_once() -> None:
    assert first_column("commands") == list(COMMANDS)
    assert first_column("errors") == [error.code for error in ErrorCode]
    closes = re.findall(r"\| (4\d\d\d) \| (yes|no) \|", section("errors"))
    assert closes == [(str(error.close), "yes" if error.may_reconnect else "no") for error in ErrorCode if error.close]


@pytest.mark.parametrize("name", [*COMMANDS, *EVENTS])
def test_the_tables_name_every_field(name: str) -> None:
    rows = {line for line in README.splitlines() if line.startswith(f"| `{name}` |")}
    kinds = [kind for kind in (COMMANDS.get(name), EVENTS[name].payload if name in EVENTS else None) if kind]
    for kind in kinds:
        fields = set(kind.__struct_encode_fields__) - {"id", "n"}
        assert any(set(re.findall(r"`(\w+)\??`: ", row)) - {"id"} == fields for row in rows)


def test_the_tables_name_every_state_that_leads_on() -> None:
    published = re.findall(r"^\| (\w+) \| `(\w+)` \|", section("lifecycles"), re.MULTILINE)
    assert published == [
        (name, state) for name, lifecycle in LIFECYCLES.items() for state, row in lifecycle.table.items() if row
    ]


def test_the_readme_names_every_module() -> None:
    modules = {path.name for path in PROTOCOL.glob("*.py") if not path.name.startswith("_")}
    assert modules == set(re.findall(r"`(\w+\.py)`", README.partition("## Addresses")[0]))


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_the_protocol_is_pure(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            imported.add(node.module)
    roots = {name.partition(".")[0] for name in imported}
    assert not roots & FORBIDDEN
    # typing_extensions is for the type checker alone.
    assert roots <= set(sys.stdlib_module_names) | {"msgspec", "protocol", "typing_extensions"}
    assert "protocol.client" not in imported


def test_importing_the_protocol_brings_no_event_loop_and_no_framework() -> None:
    modules = ", ".join(f"protocol.{path.stem}" for path in PURE if path.stem != "__init__")
    code = f"import sys, {modules}; print(*sorted({{'asyncio', 'aiohttp', 'asyncpg', 'structlog'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROTOCOL.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_every_module_says_what_it_exports(path: Path) -> None:
    if path.name in ("__init__.py", "durable.py", "parts.py"):
        return
    tree = ast.parse(path.read_text("utf-8"))
    exported = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    )
    public = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    assert public <= set(exported)
