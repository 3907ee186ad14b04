"""Servers of tools are started, asked for their tools, and ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from server.config.shown import as_toml
from tests.check.support import context, looked, said

PLAIN = Path(__file__).parents[1] / "agents" / "mcp" / "plain_server.py"


def configured(tmp_path: Path, **more: Any) -> Path:
    settings = {"command": sys.executable, "args": [str(PLAIN), str(tmp_path / "log")], **more}
    lines = [f"{key} = {as_toml(value)}" for key, value in settings.items()]
    file = tmp_path / "parley.toml"
    file.write_text("\n".join(["[mcp.it]", *lines]) + "\n", encoding="utf-8")
    return file


async def test_without_any_there_is_nothing_to_say() -> None:
    (finding,) = await looked("mcp", context())
    assert (finding.level, finding.what) == ("ok", "none is configured")


async def test_what_it_offers_is_told(tmp_path: Path) -> None:
    finding, left_out = await looked("mcp", context(configured(tmp_path)))
    assert finding.level == "ok"
    assert finding.what.startswith("mcp.it offers 5 tools: it__echo, it__die, it__slow, it__grow, it__odd_name_")
    assert left_out.what.startswith("mcp.it: its tool broken schema is left out: its schema is not usable: ")


async def test_names_that_it_does_not_have(tmp_path: Path) -> None:
    file = configured(tmp_path, tools=["echo", "grwo"], read_only=["deploy"])
    assert said(await looked("mcp", context(file))) == [
        "warning: mcp.it.tools: it has no tool grwo -> it has: echo",
        "warning: mcp.it.read_only: it has no tool deploy -> it has: echo",
    ]


async def test_a_program_that_does_not_start(tmp_path: Path) -> None:
    file = configured(tmp_path, command="/no/such/program")
    (finding,) = said(await looked("mcp", context(file)))
    assert finding.startswith("error: mcp.it: No such file or directory: /no/such/program -> check mcp.it.command, ")


async def test_a_program_that_never_answers(tmp_path: Path) -> None:
    file = configured(tmp_path, args=["-c", "import time; time.sleep(600)"])
    (finding,) = said(await looked("mcp", context(file, patience=0.1, grace=30)))
    assert finding.startswith("error: mcp.it: it did not answer within 0.05 s")


async def test_one_that_is_switched_off_is_not_started(tmp_path: Path) -> None:
    await looked("mcp", context(configured(tmp_path, enabled=False)))
    assert not (tmp_path / "log").exists()
