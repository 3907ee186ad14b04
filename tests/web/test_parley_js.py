"""Runs the tests of parley.js that need no browser, in Node."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.feature("E02")
async def test_parley_js_in_node() -> None:
    node = shutil.which("node")
    if node is None:
        if os.environ.get("CI", "").lower() not in {"", "0", "false"}:
            pytest.fail("CI runs the tests of parley.js: install Node 20 or later")
        pytest.skip("no node: install Node 20 or later to test parley.js")
    process = await asyncio.create_subprocess_exec(
        node,
        "--test",
        "--test-reporter=spec",
        *sorted(str(path) for path in HERE.glob("*.test.js")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode(errors="replace")
