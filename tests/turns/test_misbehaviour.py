"""Agents and tools that do what they should not: their own turn fails, and nothing else notices."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from server.agents.interface import AgentContext, AgentYield, FunctionAgent, Reasoning, Text, ToolCallDelta, UsageReport
from server.agents.tools import tool
from server.turns import engine, work
from server.turns.settings import TurnSettings
from storage.pool import Database
from tests.turns.support import PATIENCE, Workshop, forever, registry_of, scripted

Make = Callable[..., Awaitable[Workshop]]


@pytest.fixture
async def make(database: Database) -> AsyncIterator[Make]:
    """Start a workshop on the test's database."""
    async with AsyncExitStack() as stack:

        async def start(*agents: FunctionAgent, **settings: Any) -> Workshop:
            workshop = Workshop(database, registry_of(*agents), TurnSettings(**settings))
            await workshop.service.start()
            stack.push_async_callback(workshop.service.stop)
            return workshop

        yield start


async def leaves(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Ends the process, or tries to."""
    yield "half"
    sys.exit(3)


async def cancels_itself(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Awaits a task that it has cancelled, as clients of models do when they give up."""
    yield "half"
    request = asyncio.create_task(forever())
    request.cancel()
    await request


@pytest.mark.parametrize(("script", "name"), [(leaves, "SystemExit"), (cancels_itself, "CancelledError")])
async def test_an_agent_that_leaves_in_the_middle_has_failed(make: Make, script: Any, name: str) -> None:
    shop = await make(scripted(script))
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed")
    answer, completed = shop.outlet.payloads("message_created")[-1], shop.outlet.payloads("task_completed")[0]
    assert (answer["content"], answer["finish_reason"]) == ("half", "error")
    assert (completed["status"], completed["error"]["message"]) == ("failed", f"the agent failed ({name})")


@pytest.mark.parametrize("script", [leaves, cancels_itself])
async def test_a_tool_that_leaves_in_the_middle_has_failed(make: Make, script: Any) -> None:
    @tool
    async def risky() -> str:
        """Leave."""
        async for _ in script(None):
            continue
        return "never"

    async def calls(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        if context.history[-1].role == "tool":
            yield "went on"
        else:
            yield ToolCallDelta(0, None, "risky", "{}")

    shop = await make(scripted(calls, tools=[risky]))
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.payloads("tool_result")[0]["error"].startswith("risky failed (")
    assert shop.outlet.payloads("task_completed")[0]["status"] == "completed"


@pytest.mark.parametrize("output", [UsageReport(1, 1), Text(""), Reasoning("more")])
async def test_an_agent_that_never_waits_leaves_the_loop_to_others(make: Make, output: AgentYield) -> None:
    async def floods(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        while True:
            yield output

    shop = await make(scripted(floods))
    session = await shop.session()
    await shop.say(session, "go")
    # That this line is reached, and the next is heard, is what is to be shown.
    await shop.stop(session)
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.payloads("task_completed")[0]["status"] == "cancelled"


@pytest.mark.parametrize(
    "output",
    [
        UsageReport("many", 1),  # type: ignore[arg-type]
        UsageReport(10**30, 1),
        UsageReport(-1, 1),
        ToolCallDelta("first", None, "read", "{}"),  # type: ignore[arg-type]
        ToolCallDelta(0, None, "n" * 100_000, "{}"),
    ],
)
async def test_output_that_cannot_be_kept_fails_the_turn_at_once(make: Make, output: AgentYield) -> None:
    async def mumbles(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield output

    shop = await make(scripted(mumbles))
    await shop.say(await shop.session(), "go")
    await shop.outlet.until_type("task_completed")
    assert shop.outlet.payloads("task_completed")[0]["error"]["code"] == "invalid_output"


async def test_a_deleted_session_ends_a_turn_that_says_nothing(make: Make) -> None:
    reached, ended = asyncio.Event(), asyncio.Event()

    async def thinks(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        try:
            reached.set()
            await forever()
        finally:
            ended.set()
        yield "never"

    shop = await make(scripted(thinks), lease_seconds=0.3)
    session = await shop.session()
    await shop.say(session, "go")
    await reached.wait()
    await shop.sessions.delete(session, shop.engine.now())
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
        await shop.engine.idle()
    assert shop.engine.running == 0


async def test_a_database_that_hangs_does_not_hold_up_the_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_arguments: object) -> None:
        await forever()

    async def speaks(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield "something to keep"
        await forever()

    monkeypatch.setattr(engine, "_LAST_WORDS", 0.01)
    shop = await make(scripted(speaks), checkpoint_interval=60)
    await shop.say(await shop.session(), "go")
    await shop.outlet.until(lambda: bool(shop.outlet.deltas))
    monkeypatch.setattr(shop.engine.turns, "checkpoint", hangs)
    monkeypatch.setattr(shop.engine._workers, "forget", hangs)
    async with asyncio.timeout(PATIENCE):
        await shop.service.stop()


async def test_an_agent_that_ignores_its_cancellation_is_left_to_itself(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "CANCEL_PATIENCE", 0.05)
    release, ended = asyncio.Event(), asyncio.Event()

    async def deaf(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield "heard"
        while not release.is_set():
            with suppress(asyncio.CancelledError):
                await release.wait()
        ended.set()
        yield " and not heard"

    shop = await make(scripted(deaf))
    session = await shop.session()
    await shop.say(session, "go")
    await shop.outlet.until(lambda: bool(shop.outlet.deltas))
    await shop.stop(session)
    await shop.outlet.until_type("task_completed")
    answer = shop.outlet.payloads("message_created")[-1]
    assert (answer["content"], answer["finish_reason"]) == ("heard", "cancelled")
    # The session is free again, whatever the agent does with its time.
    release.set()
    await ended.wait()
    await shop.say(session, "again")
    await shop.outlet.until_type("task_completed", 2)
    assert [delta.text for delta in shop.outlet.deltas][:2] == ["heard", "heard"]
