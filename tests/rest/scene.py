"""What contract tests act with: agents whose calls wait for people, two users, and waiting without luck."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from server.agents.interface import (
    AgentContext,
    AgentError,
    AgentYield,
    FunctionAgent,
    ToolCallDelta,
    UsageReport,
    agent,
)
from server.agents.tools import tool
from server.config import AuthSettings, TokenSettings
from server.turns.settings import PriceSettings
from tests.auth.door import ADA, BOB
from tests.rest.test_sessions import ask
from tests.support.server import MakeServer, RunningServer

AS_ADA: dict[str, Any] = {"headers": {"Authorization": f"Bearer {ADA}"}}
AS_BOB: dict[str, Any] = {"headers": {"Authorization": f"Bearer {BOB}"}}

TWO_USERS = AuthSettings(tokens=(TokenSettings(user="ada", token=ADA), TokenSettings(user="bob", token=BOB)))

#: A thousand tokens are a tenth.
PRICES = {"quill": PriceSettings(prompt=100.0, completion=100.0, currency="EUR")}


@tool(read_only=True)
def look(place: str) -> str:
    """Look somewhere."""
    return f"seen {place}"


@tool
def burn(paper: str) -> str:
    """Burn something; a person is asked before."""
    return f"ashes of {paper}"


@agent(type="clerk", description="Does what it is told.", tools=[look, burn])
async def clerk(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """`look`, `burn`, `burn two`, `fail`; anything else is repeated. Each step uses 60 and 40 tokens."""
    last = context.history[-1]
    yield UsageReport(60, 40, "quill")
    if last.role == "tool":
        yield f"done: {last.content}"
    elif last.content == "look":
        yield ToolCallDelta(0, "a", "look", '{"place": "here"}')
    elif last.content.startswith("burn"):
        yield "Shall I?"
        yield ToolCallDelta(0, "a", "burn", '{"paper": "letter"}')
        if last.content == "burn two":
            yield ToolCallDelta(1, "b", "burn", '{"paper": "book"}')
    elif last.content == "fail":
        raise AgentError("ink_dry", "there is no ink")
    else:
        yield f"you said: {last.content}"


@agent(type="porter", description="Another one.")
async def porter(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
    """Says who it is."""
    yield f"porter heard {context.history[-1].content}"


AGENTS: tuple[FunctionAgent, ...] = (clerk, porter)


async def office(make_server: MakeServer, **sections: Any) -> RunningServer:
    """A server with these agents."""
    sections.setdefault("prices", PRICES)
    return await make_server(*AGENTS, **sections)


async def shared_office(make_server: MakeServer, **sections: Any) -> RunningServer:
    """The same with two users, Ada and Bob."""
    return await office(make_server, auth=TWO_USERS, **sections)


async def until(server: RunningServer, session: str, event_type: str, count: int = 1, **options: Any) -> dict[str, Any]:
    """Wait until the session's log has so many events of a type; the payload of the last of them."""
    headers = {"Accept": "application/x-ndjson", **options.get("headers", {})}
    async with server.client.get(f"/sessions/{session}/events?after=0", headers=headers) as stream:
        async for line in stream.content:
            event = json.loads(line)
            count -= event["event_type"] == event_type
            if not count:
                payload: dict[str, Any] = event["payload"]
                return payload
    raise AssertionError(f"the stream ended before {event_type}")


async def say(server: RunningServer, session: str, content: str, turns: int = 1) -> None:
    """Say something, and wait until so many turns have ended in the session."""
    status, _ = await server.command(session, type="user_message", content=content)
    assert status == 200
    await until(server, session, "task_completed", turns)


async def waiting(server: RunningServer, session: str, content: str = "burn", count: int = 1) -> list[dict[str, Any]]:
    """Say something that waits for a person; what waits then."""
    assert (await server.command(session, type="user_message", content=content))[0] == 200
    await until(server, session, "approval_required", count)
    _, pending = await ask(server, "GET", f"/sessions/{session}/pending-approvals")
    found: list[dict[str, Any]] = pending["pending_approvals"]
    return found


async def events(server: RunningServer, session: str, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """The session's log."""
    headers = {"Accept": "application/x-ndjson", **options.get("headers", {})}
    found: list[tuple[str, dict[str, Any]]] = []
    async with server.client.get(f"/sessions/{session}/events?after=0", headers=headers) as stream:
        async for line in stream.content:
            event = json.loads(line)
            if event["event_type"] == "sync":
                return found
            if "seq" in event:
                found.append((event["event_type"], event["payload"]))
    raise AssertionError("the stream ended before it was in step")
