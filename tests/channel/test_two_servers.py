"""Two servers on one database: a session's clients on either of them see one and the same session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from protocol.delta import MessageText
from protocol.events import MessageCreated, MessageDelta
from server.agents.interface import AgentContext, AgentYield, FunctionAgent, agent
from server.bus.settings import BusSettings
from server.channel.settings import ChannelSettings
from server.turns.settings import TurnSettings
from tests.channel.clients import Client, connect, until
from tests.support.server import MakeServer, RunningServer

#: Nobody polls and no pulse beats while a test lasts: what arrives, the bus has brought.
PATIENT: dict[str, Any] = {
    "channel": ChannelSettings(poll_interval=3_600.0),
    "turns": TurnSettings(lease_seconds=3_600.0, checkpoint_interval=3_600.0),
}


class Slow:
    """An agent that says what it is told to say, when it is told to."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str | None] = asyncio.Queue()
        self.running = 0

    def say(self, *words: str | None) -> None:
        """The next words; None is the end."""
        for word in words:
            self.words.put_nowait(word)

    def agent(self) -> FunctionAgent:
        @agent(type="slow", description="Waits for its words.")
        async def slow(_: AgentContext) -> AsyncGenerator[AgentYield, None]:
            self.running += 1
            try:
                while (word := await self.words.get()) is not None:
                    yield word
            finally:
                self.running -= 1

        return slow


async def pair(make_server: MakeServer, *agents: FunctionAgent, **sections: Any) -> tuple[RunningServer, RunningServer]:
    """Two servers that know of each other."""
    one = await make_server(*agents, **{**PATIENT, **sections})
    two = await make_server(*agents, **{**PATIENT, **sections})
    await until(lambda: one.services.bus.state == two.services.bus.state == "connected")
    return one, two


def text_of(client: Client) -> MessageText:
    """The message that is being written, put together as a client does; no piece may leave a gap."""
    text: MessageText | None = None
    for event in client.events:
        payload = event.decode("msgpack" if getattr(client, "framing", "") == "ws-msgpack" else "json")
        if isinstance(payload, MessageDelta):
            text = text or MessageText(payload.message_id)
            assert text.apply(payload) != "gap"
        elif isinstance(payload, MessageCreated) and text is not None and payload.message_id == text.message_id:
            assert payload.content.startswith(text.text())
            text.close(payload)
    assert text is not None, "nothing was written"
    return text


async def read_text(client: Client, text: str) -> None:
    """Read on until the message being written has this text."""
    while "message_delta" not in client.types or text_of(client).text() != text:
        assert (await client.until("message_delta")).seq is None


async def completed(client: Client, turns: int) -> None:
    """Read on until so many turns are complete."""
    while client.types.count("task_completed") < turns:
        await client.until("task_completed")


@pytest.mark.feature("T10", "S05", "A01", "T02")
@pytest.mark.parametrize("transport", ["ws-json", "ws-msgpack", "sse", "ndjson"])
async def test_subscribers_of_both_see_every_event_and_the_text_while_it_is_written(
    make_server: MakeServer, transport: str
) -> None:
    slow = Slow()
    one, two = await pair(make_server, slow.agent())
    session = await one.create_session()
    async with connect(one, session, "ws-json", after=0) as here, connect(two, session, transport, after=0) as there:
        await here.until("sync")
        await there.until("sync")
        await here.say("tell me")
        for word, so_far in (("It was ", "It was "), ("a dark 🌒 ", "It was a dark 🌒 ")):
            slow.say(word)
            # The answer is far from complete, and not in the log.
            await read_text(there, so_far)
        async with connect(two, session, "sse", after=0) as late:
            await read_text(late, "It was a dark 🌒 ")
            slow.say("and stormy night.", None)
            clients = [here, there, late]
            for client in clients:
                await completed(client, 1)
        for client in clients:
            assert [event.seq for event in client.durable] == list(range(1, len(client.durable) + 1))
            assert text_of(client).text() == "It was a dark 🌒 and stormy night."
            assert [event.event_type for event in client.durable] == [event.event_type for event in here.durable]
        assert there.types.index("task_started") < there.types.index("message_delta")
    for server in (one, two):
        assert server.services.bus.stats().dropped == 0


@pytest.mark.feature("T10")
async def test_what_is_committed_at_either_is_seen_at_both_in_one_order(make_server: MakeServer) -> None:
    one, two = await pair(make_server)
    session = await one.create_session()
    async with connect(one, session, "ws-json", after=0) as here, connect(two, session, "sse", after=0) as there:
        await asyncio.gather(
            *(
                (here if number % 2 else there).send(type="user_message", content=f"message {number}")
                for number in (1, 2)
            ),
        )
        for number in range(3, 13):
            await (here if number % 2 else there).send(type="user_message", content=f"message {number}")
        for client in (here, there):
            await completed(client, 12)
            assert [event.seq for event in client.durable] == list(range(1, len(client.durable) + 1))
        assert [bytes(event.payload) for event in here.durable] == [bytes(event.payload) for event in there.durable]


@pytest.mark.feature("T10", "A04")
async def test_cancelling_at_one_stops_a_turn_at_the_other_at_once(make_server: MakeServer) -> None:
    slow = Slow()
    one, two = await pair(make_server, slow.agent())
    session = await one.create_session()
    async with connect(one, session, "ws-json", after=0) as here, connect(two, session, "ws-json", after=0) as there:
        await here.say("tell me")
        slow.say("It was ")
        await read_text(there, "It was ")
        assert (await there.send(type="cancel"))[0] == 200
        for client in (here, there):
            await completed(client, 1)
            (ended,) = [client.payload(event) for event in client.events if event.event_type == "task_completed"]
            assert ended["status"] == "cancelled"
        assert slow.running == 0


@pytest.mark.feature("T10")
async def test_regression_29_a_cut_connection_loses_nothing_however_often(
    make_server: MakeServer, database_url: str
) -> None:
    slow = Slow()
    one, two = await pair(make_server, slow.agent())
    session = await one.create_session()
    async with connect(one, session, "ws-json", after=0) as here, connect(two, session, "ws-json", after=0) as there:
        await there.until("sync")
        for round_ in range(1, 4):
            await here.say(f"round {round_}")
            slow.say(f"answer {round_} ")
            await there.until("message_delta", lambda payload: f"answer {round_}" in payload["text"])  # noqa: B023
            before = [server.services.bus.stats().reconnects for server in (one, two)]
            await cut(database_url)
            # What is said, and committed, while nobody hears the other.
            slow.say("goes on", None)
            await completed(here, round_)
            await until(
                lambda: all(
                    server.services.bus.stats().reconnects > known
                    for server, known in zip((one, two), before, strict=True)  # noqa: B023
                )
            )
            await completed(there, round_)
        assert [event.seq for event in there.durable] == list(range(1, len(there.durable) + 1))
        assert [bytes(event.payload) for event in here.durable] == [bytes(event.payload) for event in there.durable]


async def cut(database_url: str) -> None:
    """The database ends the connections that listen."""
    connection = await asyncpg.connect(database_url)
    try:
        ended = await connection.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND (query ~ 'LISTEN|pg_notify|worker_id <> ')"
        )
        assert ended >= 2
    finally:
        await connection.close()


@pytest.mark.feature("T10")
async def test_without_a_bus_the_poll_finds_everything(make_server: MakeServer) -> None:
    quick = ChannelSettings(poll_interval=0.05)
    none = BusSettings(kind="none")
    one, two = await make_server(bus=none, channel=quick), await make_server(bus=none, channel=quick)
    session = await one.create_session()
    async with connect(one, session, "ws-json", after=0) as here, connect(two, session, "sse", after=0) as there:
        await here.say("tell me")
        for client in (here, there):
            await completed(client, 1)
        assert [bytes(event.payload) for event in here.durable] == [bytes(event.payload) for event in there.durable]


@pytest.mark.feature("S32", "T10")
async def test_readiness_tells_how_the_bus_is(make_server: MakeServer) -> None:
    async def state(server: RunningServer) -> object:
        async with server.client.get("/ready") as response:
            return (await response.json())["bus"]

    one = await make_server()
    await until(lambda: one.services.bus.state == "alone")
    assert await state(one) == "alone"
    two = await make_server()
    await until(lambda: one.services.bus.state == two.services.bus.state == "connected")
    assert await state(one) == await state(two) == "connected"


@pytest.mark.feature("T10", "A02", "A03")
async def test_what_is_open_is_told_again_and_answered_at_either(make_server: MakeServer) -> None:
    """Asked at one, decided at the other, dispatched, told again to who comes back elsewhere, answered there."""
    one, two = await pair(make_server)
    session = await one.create_session()
    tool = {"name": "write_file", "parameters": {"type": "object"}}
    async with connect(one, session, "ws-json", client_id="editor") as editor:
        await editor.until("sync")
        await editor.send(type="register_tools", tools=[tool])
        await editor.say("write the file hello.txt with hi")
        asked = next((event for event in editor.events if event.event_type == "approval_required"), None)
        asked = asked or await editor.until("approval_required")
        call_id = editor.payload(asked)["call_id"]
        async with connect(two, session, "sse", client_id="phone") as phone:
            await phone.until("sync")
            again = await phone.until("approval_required")
            assert (again.seq, phone.payload(again)) == (None, editor.payload(asked))
            status, ack = await phone.send(type="hitl_decision", call_id=call_id, decision="approve")
            assert status == 200, ack
            dispatched = editor.payload(await editor.until("tool_dispatched"))
            assert dispatched["client_id"] == "editor"
    async with connect(two, session, "ws-json", client_id="editor") as editor:
        await editor.until("sync")
        again = await editor.until("tool_dispatched")
        assert (again.seq, editor.payload(again)) == (None, dispatched)
        status, ack = await editor.send(type="tool_result", call_id=call_id, result="written")
        assert status == 200, ack
        await completed(editor, 1)
        (done,) = [editor.payload(event) for event in editor.events if event.event_type == "task_completed"]
        assert done["status"] == "completed"
