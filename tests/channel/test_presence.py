"""Who is on a session, with which tools, as everybody on it sees it, at whatever server."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from server.channel.presence import Presence
from server.turns.settings import ToolsSettings
from tests.channel.clients import Client, connect, until
from tests.support.server import MakeServer, RunningServer

TOOL: dict[str, Any] = {
    "name": "read_file",
    "description": "Read a file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
}
#: So much that it is not looked at at once.
LARGE: dict[str, Any] = {"name": "a", "parameters": {"properties": {f"p{n}": {"enum": ["x" * 40]} for n in range(200)}}}


def tool(name: str) -> dict[str, Any]:
    return {**TOOL, "name": name}


async def changed(client: Client, change: str, client_id: str) -> Any:
    """Read on to this change of presence; what it says."""
    event = await client.until(
        "presence_changed", lambda payload: (payload["change"], payload["client"]["client_id"]) == (change, client_id)
    )
    assert event.seq is None
    return client.payload(event)


async def offers(server: RunningServer, session: str) -> list[tuple[str, list[str]]]:
    """Who offers what, as turns are told."""
    found = await server.services.presence.offers(UUID(session))
    return [(offer.client_id, [tool.name for tool in offer.tools]) for offer in found]


async def here(server: RunningServer, session: str) -> set[str]:
    return {one.client_id for one in await server.services.presence.here(UUID(session))}


async def rows(database_url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(database_url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def pair(make_server: MakeServer, **sections: Any) -> tuple[RunningServer, RunningServer]:
    one, two = await make_server(**sections), await make_server(**sections)
    await until(lambda: one.services.bus.state == two.services.bus.state == "connected")
    return one, two


class Noting:
    """Notes what the keeper of calls would be told."""

    def __init__(self, *servers: RunningServer) -> None:
        self.told: list[tuple[Any, ...]] = []
        for server in servers:
            server.services.presence.watching.watcher = self

    async def client_joined(self, session_id: UUID, client_id: str) -> None:
        self.told.append(("joined", client_id))

    async def client_left(self, session_id: UUID, client_id: str) -> None:
        self.told.append(("left", client_id))

    async def tools_registered(self, session_id: UUID, client_id: str, names: Any) -> None:
        self.told.append(("registered", client_id, *names))


@pytest.mark.feature("T09")
@pytest.mark.parametrize("transport", ["ws-json", "sse"])
async def test_everybody_is_told_who_comes_changes_and_goes(server: RunningServer, transport: str) -> None:
    session = await server.create_session()
    async with connect(server, session, transport, client_id="first") as first:
        await first.until("sync")
        async with connect(server, session, "ws-json", client_id="second") as second:
            connected = second.payload(await second.until("connected"))
            assert [one["client_id"] for one in connected["clients"]] == ["first"]
            assert (await changed(first, "joined", "second"))["clients"] == 2
            status, ack = await second.send(type="register_tools", tools=[TOOL])
            assert (status, ack["status"]) == (200, "accepted")
            told = await changed(first, "updated", "second")
            assert told["client"] == {"client_id": "second", "transport": "websocket", "tools": ["read_file"]}
            assert await offers(server, session) == [("second", ["read_file"])]
            async with connect(server, session, "ndjson", client_id="third") as third:
                clients = third.payload(await third.until("connected"))["clients"]
                assert {one["client_id"]: one.get("tools", []) for one in clients} == {
                    "first": [],
                    "second": ["read_file"],
                }
        assert (await changed(first, "left", "second"))["clients"] in {1, 2}
        assert await offers(server, session) == []


@pytest.mark.feature("T09", "T10")
async def test_presence_is_that_of_all_servers(make_server: MakeServer) -> None:
    one, two = await pair(make_server)
    session = await one.create_session()
    async with connect(one, session, "ws-json", client_id="at-one") as at_one:
        await at_one.until("sync")
        await changed(at_one, "joined", "at-one")
        async with connect(two, session, "sse", client_id="at-two") as at_two:
            connected = at_two.payload(await at_two.until("connected"))
            assert [client["client_id"] for client in connected["clients"]] == ["at-one"]
            assert (await changed(at_one, "joined", "at-two"))["clients"] == 2
            await at_two.until("sync")
            await at_one.send(type="register_tools", tools=[TOOL])
            assert (await changed(at_two, "updated", "at-one"))["client"]["tools"] == ["read_file"]
            # A POST goes to any server, whichever has the stream.
            async with one.client.post(
                f"/sessions/{session}/commands",
                params={"client_id": "at-two"},
                json={"type": "register_tools", "id": "r", "tools": [tool("write_file"), tool("list_files")]},
            ) as response:
                assert response.status == 200, await response.text()
            for server in (one, two):
                assert await offers(server, session) == [
                    ("at-two", ["write_file", "list_files"]),
                    ("at-one", ["read_file"]),
                ]
                assert await here(server, session) == {"at-one", "at-two"}
            await at_one.send(type="register_tools", tools=[TOOL])
            assert [client for client, _ in await offers(two, session)] == ["at-one", "at-two"], "the latest first"
        assert (await changed(at_one, "left", "at-two"))["clients"] == 1
        for server in (one, two):
            assert await offers(server, session) == [("at-one", ["read_file"])]


@pytest.mark.feature("T09", "T10")
async def test_several_connections_are_one_client_until_the_last_has_ended(make_server: MakeServer) -> None:
    one, two = await pair(make_server)
    session = await one.create_session()
    async with connect(one, session, "ws-json", client_id="watcher") as watcher:
        await watcher.until("sync")
        async with AsyncExitStack() as stack:
            for server, transport in ((one, "ws-json"), (one, "sse"), (two, "ndjson")):
                client = await stack.enter_async_context(connect(server, session, transport, client_id="many"))
                await client.until("sync")
            assert (await changed(watcher, "joined", "many"))["clients"] == 2
            # What connections begin and end is written behind their backs; a sweep has written all of it.
            await two.services.presence.sweep()
            assert await here(two, session) == {"watcher", "many"}
        assert (await changed(watcher, "left", "many"))["clients"] == 1
        async with connect(two, session, "sse", client_id="end"):
            await changed(watcher, "joined", "end")
        counts = [
            watcher.payload(event)["change"]
            for event in watcher.events
            if event.event_type == "presence_changed" and watcher.payload(event)["client"]["client_id"] == "many"
        ]
        assert counts == ["joined", "left"]


@pytest.mark.feature("T09", "A02")
async def test_who_comes_back_soon_has_its_tools_again_at_whatever_server(make_server: MakeServer) -> None:
    one, two = await pair(make_server)
    session = await one.create_session()
    async with connect(one, session, "ws-json", client_id="watcher") as watcher:
        await watcher.until("sync")
        async with connect(one, session, "ws-json", client_id="editor") as editor:
            await editor.send(type="register_tools", tools=[TOOL])
        await changed(watcher, "left", "editor")
        assert await offers(one, session) == []
        async with connect(two, session, "ws-json", client_id="editor") as editor:
            told = await changed(watcher, "joined", "editor")
            assert told["client"]["tools"] == ["read_file"]
            assert await offers(one, session) == [("editor", ["read_file"])]
            # An empty list takes all back.
            await editor.send(type="register_tools", tools=[])
            assert await offers(one, session) == [("editor", [])]
    # A server that is alone knows it by itself, from what it was told when the client came back.
    await two.stop()
    await until(lambda: one.services.bus.state == "alone")
    async with connect(one, session, "ws-json", client_id="editor") as editor:
        await editor.send(type="register_tools", tools=[TOOL])
    async with connect(one, session, "ws-json", client_id="editor") as editor:
        await changed(editor, "joined", "editor")
        assert await offers(one, session) == [("editor", ["read_file"])]


@pytest.mark.feature("A02")
async def test_after_the_grace_the_tools_are_forgotten(make_server: MakeServer) -> None:
    server = await make_server(tools=ToolsSettings(grace=0.0))
    session = await server.create_session()
    async with connect(server, session, "ws-json", client_id="watcher") as watcher:
        await watcher.until("sync")
        async with connect(server, session, "ws-json", client_id="editor") as editor:
            await editor.send(type="register_tools", tools=[TOOL])
        await changed(watcher, "left", "editor")
        async with connect(server, session, "ws-json", client_id="editor"):
            assert "tools" not in (await changed(watcher, "joined", "editor"))["client"]
        await changed(watcher, "left", "editor")
        await server.services.presence.sweep()


@pytest.mark.feature("A02", "T09")
async def test_who_comes_back_offers_its_tools_anew_whether_or_not_a_call_was_seen_to_wait(
    make_server: MakeServer,
) -> None:
    server = await make_server()
    noting = Noting(server)
    session = await server.create_session()
    async with connect(server, session, "sse", client_id="watcher") as watcher:
        await watcher.until("sync")
        async with connect(server, session, "ws-json", client_id="editor") as editor:
            await editor.send(type="register_tools", tools=[TOOL])
        await changed(watcher, "left", "editor")
        await until(lambda: noting.told == [("registered", "editor", "read_file")])
        async with connect(server, session, "ws-json", client_id="editor"):
            await until(lambda: noting.told == [("registered", "editor", "read_file")] * 2)


@pytest.mark.feature("A02", "T06")
async def test_tools_that_cannot_be_taken_are_refused_by_name(make_server: MakeServer) -> None:
    server = await make_server(tools=ToolsSettings(max_registered=2))
    session = await server.create_session()
    wrong: list[tuple[int, str, str, list[dict[str, Any]]]] = [
        (422, "invalid", "$.tools", [tool("a"), tool("b"), tool("c")]),
        (422, "invalid", "$.tools[1].parameters", [tool("a"), {"name": "b", "parameters": {"type": "array"}}]),
        (422, "invalid", "$.tools[0].parameters", [{"name": "a", "parameters": {"properties": ["path"]}}]),
        (422, "invalid", "$.tools[1].parameters", [LARGE, {"name": "b", "parameters": {"required": "path"}}]),
        (422, "invalid", "$.tools[0].parameters", [{"name": "a", "parameters": {"x": "y" * 70_000}}]),
        (422, "invalid", "$.tools[0].name", [tool("a b")]),
        (422, "invalid", "$", [tool("a"), tool("a")]),
        (413, "too_large", "$.tools", [{"name": "a", "parameters": {"x": "y" * 300_000}}]),
    ]
    async with connect(server, session, "sse", client_id="editor") as editor:
        await editor.until("connected")
        for status, code, path, tools in wrong:
            answer, problem = await editor.send(type="register_tools", tools=tools)
            assert (answer, problem["code"], problem["path"]) == (status, code, path), problem
        assert await offers(server, session) == []
        assert (await editor.send(type="register_tools", tools=[tool("a"), {"name": "b", "parameters": {}}]))[0] == 200
    # Over POST, without a stream.
    for query, status, code in (({"client_id": "nobody"}, 404, "not_found"), ({}, 422, "invalid")):
        async with server.client.post(
            f"/sessions/{session}/commands", params=query, json={"type": "register_tools", "id": "r", "tools": []}
        ) as response:
            problem = await response.json()
            assert (response.status, problem["code"], problem["path"]) == (status, code, "?client_id")


@pytest.mark.feature("T09")
async def test_the_table_comes_back_after_a_crash_emptied_it(make_server: MakeServer, database_url: str) -> None:
    one, two = await pair(make_server)
    session = await one.create_session()
    async with (
        connect(one, session, "ws-json", client_id="editor") as editor,
        connect(two, session, "sse", client_id="watcher") as watcher,
    ):
        await watcher.until("sync")
        await editor.send(type="register_tools", tools=[TOOL])
        await changed(watcher, "updated", "editor")
        await rows(database_url, "TRUNCATE presence")
        assert await offers(two, session) == []
        for server in (one, two):
            await server.services.presence.sweep()
        assert await offers(two, session) == [("editor", ["read_file"])]
        assert await here(one, session) == {"editor", "watcher"}
        # Again; this time it is noticed by somebody who registers.
        await rows(database_url, "TRUNCATE presence")
        assert (await editor.send(type="register_tools", tools=[tool("write_file")]))[0] == 200
        assert await offers(two, session) == [("editor", ["write_file"])]


@pytest.mark.feature("T09", "T10")
async def test_clients_of_a_dead_server_have_left_and_are_reported_once(
    make_server: MakeServer, database_url: str
) -> None:
    one, two = await pair(make_server)
    noting = Noting(one, two)
    session = await one.create_session()
    async with (
        connect(one, session, "ws-json", client_id="survivor") as survivor,
        connect(two, session, "ws-json", client_id="orphan") as orphan,
        connect(two, session, "sse", client_id="survivor"),
    ):
        await changed(survivor, "joined", "orphan")
        await orphan.send(type="register_tools", tools=[TOOL])
        await changed(survivor, "updated", "orphan")
        await until(lambda: ("registered", "orphan", "read_file") in noting.told)
        # Its lease ends, as when it was killed or stopped.
        worker = two.services.turns._engine.worker_id
        await rows(
            database_url, f"UPDATE workers SET lease_until = now() - interval '1 s' WHERE worker_id = '{worker}'"
        )
        assert await offers(one, session) == []
        assert await here(one, session) == {"survivor"}
        await one.services.presence.sweep()
        assert (await changed(survivor, "left", "orphan"))["clients"] == 1
        await one.services.presence.sweep()
        # It was only slow: it renews its lease, sees what became of its clients, and they are back.
        await rows(
            database_url, f"UPDATE workers SET lease_until = now() + interval '1 h' WHERE worker_id = '{worker}'"
        )
        await two.services.presence.sweep()
        told = await changed(survivor, "joined", "orphan")
        assert (told["clients"], told["client"]["tools"]) == (2, ["read_file"])
        assert await offers(one, session) == [("orphan", ["read_file"])]
    changes = [
        survivor.payload(event)["change"]
        for event in survivor.events
        if event.event_type == "presence_changed" and survivor.payload(event)["client"]["client_id"] == "survivor"
    ]
    assert "left" not in changes


@pytest.mark.feature("T09")
async def test_while_alone_nobody_is_looked_up_in_the_database(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until(lambda: server.services.bus.state == "alone")
    await server.services.presence.sweep()

    async def never(*_: Any) -> Any:
        raise AssertionError("this needs no database")

    table = server.services.presence._table
    monkeypatch.setattr(table, "here", never)
    monkeypatch.setattr(table, "offers", never)
    session = await server.create_session()
    async with connect(server, session, "ws-json", client_id="a") as client:
        await client.send(type="register_tools", tools=[TOOL])
        async with connect(server, session, "sse", client_id="b") as other:
            assert len(other.payload(await other.until("connected"))["clients"]) == 1
        assert await offers(server, session) == [("a", ["read_file"])]


async def test_many_who_come_and_go_are_written_together_and_leave_nothing(
    server: RunningServer, database_url: str
) -> None:
    session = await server.create_session()
    presence: Presence = server.services.presence
    async with connect(server, session, "ws-json", client_id="watcher") as watcher:
        await changed(watcher, "joined", "watcher")
        found = await server.services.sessions.resolve("local", session)
        for number in range(200):
            assert presence.join(found, f"c{number}", "local", "sse")
        await until(lambda: not presence._changed)
        assert len(await presence.here(found.session_id)) == 201
        for number in range(200):
            presence.leave(found.session_id, f"c{number}", "local")
            presence.leave(found.session_id, f"c{number}", "local")
        async with connect(server, session, "sse", client_id="last"):
            await changed(watcher, "joined", "last")
        left = await rows(database_url, "SELECT count(*) FROM presence WHERE left_at IS NULL AND client_id LIKE 'c%'")
        assert left == [(0,)]
        shown = sum(event.event_type == "presence_changed" for event in watcher.events)
        assert shown < 200, "in a crowd nobody is told of everybody"


@pytest.mark.feature("R01")
async def test_a_clients_name_is_its_users(server: RunningServer, database_url: str) -> None:
    session = await server.create_session()
    presence = server.services.presence
    async with connect(server, session, "ws-json", client_id="editor") as editor:
        await changed(editor, "joined", "editor")
        found = await server.services.sessions.resolve("local", session)
        with pytest.raises(Exception, match="another user's client") as caught:
            await presence.arriving(found.session_id, "editor", "eve")
        assert caught.value.code.name == "FORBIDDEN"  # type: ignore[attr-defined]
        assert not presence.join(found, "editor", "eve", "sse")
        presence.leave(found.session_id, "editor", "eve")
        assert await here(server, session) == {"editor"}
        with pytest.raises(Exception, match="another user's client"):
            await presence.check(found.session_id, "editor", "eve")
        await presence.check(found.session_id, "editor", "local")
    # At another server, or a moment after it left, only the table knows.
    async with connect(server, session, "sse", client_id="watcher") as watcher:
        await changed(watcher, "joined", "watcher")
        assert presence.join(found, "watcher2", "local", "sse")
        await rows(database_url, "UPDATE presence SET user_id = 'eve'")
        presence.leave(found.session_id, "watcher2", "local")
        presence._change((found.session_id, "watcher"))
        farewell = watcher.payload(await watcher.until("disconnect"))
        assert (farewell["code"], farewell["reconnect"]) == ("forbidden", False)
        await watcher.end()
