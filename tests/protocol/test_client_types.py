"""What type checkers make of the Python client: `make check` reads this file, and it runs as well."""

from __future__ import annotations

from typing import assert_type
from uuid import UUID

import pytest

import parley
from parley import (
    AgentFailed,
    CallContext,
    Client,
    ClientTool,
    Server,
    SyncClient,
    client_tool,
    connect,
    connect_sync,
    create_session,
    events,
)
from protocol import client as client_package
from protocol.client import (
    AgentInfo,
    Answer,
    ApprovalPage,
    Branch,
    Chunk,
    CreatedSession,
    GrowingAnswer,
    HistoryMessage,
    HistoryPage,
    Match,
    Policies,
    Received,
    SessionInfo,
    SessionPage,
    State,
    Status,
    TurnPage,
    UsageReport,
)
from tests.support.server import RunningServer


@pytest.mark.feature("E02")
async def test_everything_has_its_type(server: RunningServer) -> None:
    assert_type(await create_session(server.url, "mine"), CreatedSession)
    async with connect(server.url, "mine") as session:
        assert_type(session, Client)
        assert_type(await session.say("echo hello"), events.Ack)
        async for event in session:
            assert_type(event, Received)
            match event.payload:
                case events.MessageCreated(role="assistant", content=content):
                    assert_type(content, str)
                    break
                case events.TaskStarted() as started:
                    assert_type(started.turn_id, UUID)
                case _:
                    pass
        growing = session.ask("echo hello")
        assert assert_type(growing, GrowingAnswer) is growing
        async for chunk in growing:
            assert_type(chunk, Chunk)
            assert_type(chunk.text, str)
        assert_type(await growing, Answer)
        # As a statement: what it gives need not be awaited again.
        await session.ask("echo hello")
        assert_type(session.state, State)
        async for status in session.changes():
            assert_type(status, Status)
            break
        assert_type(await session.ping(), float)
        assert_type(await session.history(), HistoryPage)
        async for message in session.messages():
            assert_type(message, HistoryMessage)


async def test_so_has_all_that_is_asked_once(server: RunningServer) -> None:
    async with Server(server.url, lambda: None) as api:
        assert_type(api, Server)
        assert_type(await api.create_session("mine"), CreatedSession)
        assert_type(await api.sessions(), SessionPage)
        assert_type((await api.sessions()).sessions, list[SessionInfo])
        assert_type(await api.session("mine"), SessionInfo)
        assert_type(await api.agents(), list[AgentInfo])
        assert_type((await api.sessions("mine")).sessions[0].match, Match | None)
        assert_type(await api.approvals(), ApprovalPage)
        assert_type(await api.policies("mine"), Policies)
        assert_type(await api.turns("mine"), TurnPage)
        assert_type(await api.usage(), UsageReport)
        assert_type(await api.fork("mine"), Branch)


@client_tool(read_only=True)
def double(n: int, context: CallContext) -> int:
    """Double a number."""
    assert_type(context.call_id, str)
    return 2 * n


async def test_tools_and_what_waits_have_theirs(server: RunningServer) -> None:
    assert_type(double, ClientTool)
    async with connect(server.url, tools=[double]) as session:
        assert_type(session.approvals, list[events.ApprovalRequired])
        assert_type(session.clients, list[events.ClientInfo])
        assert_type(session.running, list[str])


def test_and_all_without_a_loop() -> None:
    client = connect_sync("http://127.0.0.1:1")
    assert_type(client, SyncClient)
    try:
        with client as session:
            assert_type(session.ask("hello"), Answer)
            for chunk in session.stream("hello"):
                assert_type(chunk, Chunk)
            for event in session:
                assert_type(event, Received)
    except AgentFailed as failed:
        assert_type(failed.answer, Answer)
    except ConnectionError:
        assert_type(client.state, State)


def test_the_public_names_are_there_and_documented() -> None:
    for name in client_package.__all__:
        found = getattr(client_package, name)
        assert name in {"Grouping", "Offered", "Remembered", "State", "Token", "Transport"} or found.__doc__, name
    for name in ("AgentFailed", "Client", "Server", "SyncClient", "connect", "connect_sync", "create_session"):
        assert getattr(parley, name) is getattr(client_package, name)
