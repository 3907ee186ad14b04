"""A server ends when it is told to, whatever the code of others that runs in it makes of that."""

from __future__ import annotations

import signal
from pathlib import Path
from textwrap import dedent

import pytest

from protocol.client import connect
from tests.cli.support import start

STUBBORN = """
import asyncio, time
from server.agents.interface import ToolCallDelta, agent
from server.agents.tools import tool

@tool
def hangs() -> str:
    '''Keep a thread for longer than any test waits.'''
    time.sleep(600)
    return ""

@agent("stubborn", description="Does not end when it is told to", tools=[hangs])
async def stubborn(context):
    if context.history[-1].content == "call":
        yield ToolCallDelta(0, None, "hangs", "{}")
        return
    yield "here I stay"
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            continue
"""


@pytest.mark.parametrize(("text", "event_type"), [("stay", "message_delta"), ("call", "tool_call")])
async def test_a_server_ends_although_an_agent_or_a_tool_does_not(
    tmp_path: Path, database_url: str, text: str, event_type: str
) -> None:
    (tmp_path / "agents.py").write_text(STUBBORN)
    config = tmp_path / "parley.toml"
    config.write_text(
        dedent(f"""\
            [server]
            port = 0
            [database]
            url = "{database_url}"
            [agents]
            python = ["agents.py:stubborn"]
            default = "stubborn"
            entry_points = false
            """)
    )
    async with start("serve", "--config", str(config)) as server:
        address = (await server.line("listens on")).split()[-1]
        async with connect(address) as client:
            await client.say(text)
            async for event in client:
                if event.event_type == event_type:
                    break
        server.process.send_signal(signal.SIGTERM)
        code, _, errors = await server.end()
    assert code == 0, errors
