from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from server.agents import loading
from server.agents.loading import AgentLoadError, FileLoader, load_entry_points


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_users_server_py_shadows_nothing(tmp_path: Path) -> None:
    write(tmp_path / "server.py", "import server.agents\nvalue = server.agents.__name__\n")
    write(tmp_path / "protocol.py", "raise AssertionError('never imported')\n")
    before = list(sys.path)
    ours = sys.modules["server"]
    assert FileLoader(tmp_path).load("server.py:value") == "server.agents"
    assert sys.path == before
    assert sys.modules["server"] is ours
    assert ours.__file__ != str(tmp_path / "server.py")


def test_files_of_the_same_name_live_side_by_side(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name / "helper.py", f"value = {name!r}\n")
        write(tmp_path / name / "agent.py", "from .helper import value\n")
    loader = FileLoader(tmp_path)
    assert [loader.load(f"{name}/agent.py:value") for name in ("one", "two")] == ["one", "two"]
    assert "helper" not in sys.modules


def test_a_file_runs_once_a_loader_and_afresh_for_the_next(tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "text = 'old'\n")
    path = write(tmp_path / "a.py", "from .helper import text\nfirst = [text]\nsecond = first\n")
    loader = FileLoader(tmp_path)
    assert loader.load("a.py:first") is loader.load(f"{path}:second")
    write(tmp_path / "helper.py", "text = 'something new'\n")
    assert FileLoader(tmp_path).load("a.py:first") == ["something new"]


def test_dataclasses_and_annotations_work_in_a_users_file(tmp_path: Path) -> None:
    write(
        tmp_path / "a.py",
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from server.agents.tools import tool\n"
        "@dataclass\nclass P:\n    x: int\n"
        "@tool\ndef f(p: P) -> int:\n    'Doc.'\n    return p.x\n",
    )
    spec = FileLoader(tmp_path).load("a.py:f").spec  # type: ignore[attr-defined]
    assert spec.parameters["$defs"]["P"]["properties"] == {"x": {"type": "integer"}}


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ("x = 1\n\ny = = 2\n", 3, "SyntaxError: invalid syntax"),
        ("x = 1\ny = 1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f():\n    raise KeyError('k')\n\nf()\n", 2, "KeyError: 'k'"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        ("import helper_of_mine\n", 1, "from . import helper_of_mine"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
    ],
)
def test_an_error_in_a_users_file_names_the_file_and_the_line(
    tmp_path: Path, text: str, line: int, complaint: str
) -> None:
    path = write(tmp_path / "broken.py", text)
    before = set(sys.modules)
    with pytest.raises(AgentLoadError) as caught:
        FileLoader(tmp_path).load("broken.py:x")
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert complaint in str(caught.value)
    assert not [name for name in set(sys.modules) - before if name.startswith("parley_user")]


def test_an_error_in_a_file_beside_it_names_that_one(tmp_path: Path) -> None:
    helper = write(tmp_path / "helper.py", "\n\n1 / 0\n")
    write(tmp_path / "a.py", "from . import helper\n")
    with pytest.raises(AgentLoadError, match=r"helper\.py:3: ZeroDivisionError") as caught:
        FileLoader(tmp_path).load("a.py:x")
    assert str(helper) in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("a.py", "not of the form"),
        ("a.py:", "not of the form"),
        ("a.py:x.y", "not of the form"),
        ("a:x", "not of the form"),
        ("missing.py:x", "no such file"),
        ("a.py:missing", "defines no 'missing'"),
    ],
)
def test_a_reference_that_leads_nowhere_says_so(tmp_path: Path, reference: str, complaint: str) -> None:
    write(tmp_path / "a.py", "x = 1\n")
    with pytest.raises(AgentLoadError, match=complaint):
        FileLoader(tmp_path).load(reference)


def test_entry_points_come_by_name_and_name_themselves_when_they_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("b", "server.agents.builtin_tools:calculate", loading.ENTRY_POINT_GROUP),
        EntryPoint("a", "server.agents.builtin_tools:clock", loading.ENTRY_POINT_GROUP),
    ]
    monkeypatch.setattr(loading, "entry_points", lambda group: [point for point in points if point.group == group])
    assert [source.split()[2] for source, _ in load_entry_points()] == ["'a'", "'b'"]
    points.append(EntryPoint("c", "server.agents.builtin_tools:missing", loading.ENTRY_POINT_GROUP))
    with pytest.raises(AgentLoadError, match=r"entry point 'c' .*missing"):
        load_entry_points()
