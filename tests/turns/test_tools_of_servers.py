"""Turns that call tools of MCP servers: asked for like any other, and brought to an end whatever the server does."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from server.agents.mcp.source import McpServers
from server.agents.registry import Registry
from server.turns.policy import Policy
from server.turns.settings import PolicySettings, TurnSettings
from storage.pool import Database
from tests.agents.mcp.test_mcp import PATIENCE, Hurried, child, methods, plain, until
from tests.turns.support import Workshop
from tests.turns.test_waiting import answer, call_ids, calls

MakeWith = Callable[..., Awaitable[Workshop]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "messages"


@pytest.fixture
async def shop(database: Database, log: Path) -> AsyncIterator[MakeWith]:
    """A workshop whose agent makes one call of a tool of a server's."""
    servers = McpServers({"it": plain(log)}, log.parent, Hurried())
    await servers.start()
    await servers.settled(PATIENCE)
    made: list[Workshop] = []

    async def make(name: str, policy: Policy, **arguments: object) -> Workshop:
        agent = calls((name, arguments))
        registry = Registry([agent], [], default="scripted", sources=[servers])
        made.append(Workshop(database, registry, TurnSettings(), policy))
        await made[-1].service.start()
        return made[-1]

    yield make
    for workshop in made:
        await workshop.service.stop()
    await servers.stop()


ALLOWING = Policy([PolicySettings(tool="it__slow", effect="allow"), PolicySettings(tool="it__die", effect="allow")])


@pytest.mark.feature("A02", "S30")
async def test_a_call_asks_first(shop: MakeWith, log: Path) -> None:
    workshop = await shop("it__echo", Policy(), text="hello")
    session = await workshop.session()
    await workshop.say(session, "go")
    await workshop.parked()
    (required,) = workshop.outlet.payloads("approval_required")
    assert (required["name"], required["rule"]) == ("it__echo", "default.unknown")
    assert required["parameters"]["properties"] == {"text": {"type": "string"}}
    assert "tools/call" not in methods(log)
    (call_id,) = call_ids(workshop)
    await workshop.decide(session, call_id, "approve")
    await workshop.outlet.until_type("task_completed")
    assert answer(workshop) == "hello"
    assert methods(log).count("tools/call") == 1


async def test_arguments_that_do_not_fit_are_refused_before_anybody_is_asked(shop: MakeWith, log: Path) -> None:
    workshop = await shop("it__echo", Policy(), text=7)
    await workshop.say(await workshop.session(), "go")
    await workshop.outlet.until_type("task_completed")
    assert "text: expected string, got 7" in answer(workshop)
    assert "approval_required" not in workshop.outlet.types
    assert "tools/call" not in methods(log)


async def test_stopping_the_turn_stops_the_call_there(shop: MakeWith, log: Path) -> None:
    workshop = await shop("it__slow", ALLOWING)
    session = await workshop.session()
    await workshop.say(session, "go")
    await until(lambda: "tools/call" in methods(log))
    await workshop.stop(session)
    await workshop.outlet.until_type("task_completed")
    assert workshop.outlet.payloads("task_completed")[0]["status"] == "cancelled"
    await until(lambda: "notifications/cancelled" in methods(log))


async def test_a_turn_goes_on_when_the_server_is_killed(shop: MakeWith, log: Path) -> None:
    workshop = await shop("it__slow", ALLOWING)
    await workshop.say(await workshop.session(), "go")
    await until(lambda: "tools/call" in methods(log))
    os.kill(child(log), signal.SIGKILL)
    await workshop.outlet.until_type("task_completed")
    assert "may or may not have taken effect" in answer(workshop)
    (result,) = workshop.outlet.payloads("tool_result")
    assert result["error"] == answer(workshop)
    assert workshop.outlet.payloads("task_completed")[0]["status"] == "completed"
