"""Agents and tools are loaded in a process of their own, and what is wrong with each is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.check.support import context, looked, said

AGENT = """
from parley import agent, tool

print("hello from the file")

@tool
def count(to: int) -> int:
    "Count."
    return to

@agent(type="mine", tools=[count])
async def mine(context):
    "Mine."
    yield "x"
"""


def configured(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "parley.toml"
    file.write_text(f"[agents]\nentry_points = false\n{text}")
    return file


def price(model: str) -> str:
    return f"[prices.{model}]\nprompt = 1\ncompletion = 1\n"


async def test_all_agents_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(AGENT)
    file = configured(
        tmp_path, 'default = "mine"\npython = ["mine.py:mine"]\n[agents.overrides.mine]\ntools = ["count"]'
    )
    (finding,) = await looked("agents", context(file, os.environ))
    assert finding.level == "ok"
    assert finding.what.startswith("agents: orchestrator, coder, ")
    assert finding.what.endswith("mine; new sessions begin with mine")
    # Nothing was left behind, not even compiled files.
    assert sorted(os.listdir(tmp_path)) == ["mine.py", "parley.toml"]


async def test_every_file_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(AGENT)
    (tmp_path / "syntax.py").write_text("x = = 1")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit(3)")
    python = ["good.py:mine", "good.py:other", "syntax.py:x", "leaves.py:x", "missing.py:x", "nonsense"]
    findings = said(await looked("agents", context(configured(tmp_path, f"python = {python}"), os.environ)))
    parts = [
        "defines no 'other'",
        "syntax.py:1: SyntaxError",
        "SystemExit: 3",
        "there is no such file",
        "is not of the form",
    ]
    assert len(findings) == len(parts)
    for finding, part in zip(findings, parts, strict=True):
        assert finding.startswith("error: ")
        assert part in finding


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('default = "nobody"', "error: the default agent 'nobody' does not exist; there are: "),
        ('[agents.overrides.nobody]\nname = "x"', "error: no agent 'nobody' to override"),
        (
            '[agents.overrides.ask]\ntools = ["raed_file", "list_files", "*"]',
            "warning: agents.overrides.ask.tools: there is no tool raed_file -> did you mean read_file?",
        ),
        (
            '[agents.overrides.ask]\ntools = ["deploy"]',
            "warning: agents.overrides.ask.tools: there is no tool deploy -> it is there only while a client brings it",
        ),
        (
            '[agents.overrides.ask]\nhandoffs = ["cooder", "debug"]',
            "warning: agents.overrides.ask.handoffs: there is no agent cooder -> did you mean coder?",
        ),
        (
            '[agents.overrides.ask]\ndelegates = ["cooder"]',
            "warning: agents.overrides.ask.delegates: there is no agent cooder -> did you mean coder?",
        ),
        (
            '[[policies]]\ntool = "write_fiel"\neffect = "deny"',
            "warning: policies[0].tool: there is no tool write_fiel -> did you mean write_file?",
        ),
        (
            '[[policies]]\ntool = "*"\neffect = "ask"\nagent = "cooder"',
            "warning: policies[0].agent: there is no agent cooder -> did you mean coder?",
        ),
        (
            '[[policies]]\ntool = "write_file"\neffect = "deny"\narguments = { pth = "x" }',
            "warning: policies[0].arguments: write_file has no argument pth, so no call matches -> did you mean path?",
        ),
        (
            '[mcp.it]\ncommand = "x"\nagents = ["cooder"]\n[[policies]]\ntool = "it__read"\neffect = "allow"',
            "warning: mcp.it.agents: there is no agent cooder -> did you mean coder?",
        ),
        (
            f'overrides.ask.model = "mini-1"\n{price("mini-1")}{price("mini-2")}',
            "note: prices.mini-2: no agent runs on a model of this name -> did you mean mini-1?",
        ),
        (
            f'overrides.ask.model = "m1"\noverrides.coder.model = "m2"\n{price("m1")}',
            "note: the model m2 has no price, so what it costs is not counted",
        ),
    ],
)
async def test_names_that_lead_nowhere(text: str, told: str, tmp_path: Path) -> None:
    findings = said(await looked("agents", context(configured(tmp_path, text), os.environ)))
    assert len(findings) == 1
    assert findings[0].startswith(told)


async def test_a_file_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("while True: pass")
    file = configured(tmp_path, 'python = ["endless.py:x"]')
    (finding,) = said(await looked("agents", context(file, os.environ, patience=0.5)))
    assert finding.startswith("error: loading did not end within 0.5 s")


async def test_a_file_that_takes_the_process_down(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text("import os; os._exit(7)")
    (finding,) = said(await looked("agents", context(configured(tmp_path, 'python = ["crash.py:x"]'), os.environ)))
    assert finding.startswith("error: loading ended the process (exit code 7)")


async def test_nothing_in_the_working_directory_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("server", "msgspec", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert said(await looked("agents", context(configured(tmp_path, ""), os.environ))) == []
