"""Every route is called with what the OpenAPI document allows, and with what it does not; the document has to be right.

A small dose here, always the same; `make fuzz` takes a large one, each time another. What is left out, and what is no
failure, stands with its reason in `fuzz/`.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from server.config import AuthSettings, TokenSettings
from tests.support.server import MakeServer, RunningServer

#: How many cases a route gets beside the systematic ones; set by `make fuzz`.
DOSE = int(os.environ.get("PARLEY_FUZZ", "0"))

_ROOT = Path(__file__).parents[2]
_FOLDER = Path(__file__).with_name("fuzz")
_TOKEN = "a-token-for-whoever-calls-every-route"
_SMALL = ("--phases", "fuzzing", "--max-examples", "2", "--generation-deterministic")
_LARGE = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", str(DOSE))
_SELECTED = re.compile(r"Selected: (\d+)/(\d+)")


async def _furnish(server: RunningServer) -> None:
    """What `fuzz/schemathesis.toml` says is there."""
    made: list[tuple[str, dict[str, Any]]] = [
        ("/projects", {"project_id": "kept", "name": "Kept"}),
        ("/sessions", {"session_id": "kept", "title": "Kept"}),
        ("/sessions", {"session_id": "kept-in-project", "project_id": "kept"}),
        ("/sessions/kept/commands", {"type": "user_message", "id": "one", "content": "hello"}),
    ]
    for path, body in made:
        async with server.client.post(path, json=body, headers={"Authorization": f"Bearer {_TOKEN}"}) as response:
            assert response.status < 300, await response.text()


@pytest.mark.feature("E06")
@pytest.mark.timeout(14400 if DOSE else 300)
async def test_every_route_does_what_the_document_says(make_server: MakeServer, tmp_path: Path) -> None:
    server = await make_server(auth=AuthSettings(tokens=(TokenSettings(user="tester", token=_TOKEN),)))
    await _furnish(server)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"),
        *("--config-file", str(_FOLDER / "schemathesis.toml"), "run", f"{server.url}/openapi.json"),
        # Streams that never end have tests of their own.
        *("--exclude-by", "/x-endless == true", "--header", f"Authorization: Bearer {_TOKEN}"),
        *("--checks", "all", "--no-color", *(_LARGE if DOSE else _SMALL)),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_ROOT), "SCHEMATHESIS_HOOKS": "tests.rest.fuzz.hooks"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        report = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, report
    if not DOSE:
        selected = _SELECTED.search(report)
        assert selected is not None, report
        # All but the streams without an end.
        assert int(selected[1]) == int(selected[2]) - 5
