"""The Python client over networks that cut, fall silent and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from protocol.client import Timings, connect
from protocol.client.choice import Memory
from protocol.events import MessageCreated
from server.agents.interface import AgentContext, agent
from server.channel.settings import ChannelSettings
from tests.protocol.support import QUICK, WAYS, complete, until
from tests.support.proxy import proxy
from tests.support.server import MakeServer, RunningServer

ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
each = pytest.mark.parametrize("way", [*WAYS.values(), {}], ids=[*WAYS, "auto"])

#: Bytes from the server after which connections are cut: in the head, at its end, in and between the first events.
CUTS = [0, 1, 40, 150, 300, 500, 700, 900, 1100, 1300, 1500, 1700, 2000, 2500, 3000, 4000]


@pytest.fixture(autouse=True)
def new_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are used again, and what was found out about them is about others."""
    monkeypatch.setattr("protocol.client.choice.SHARED", Memory())


@pytest.mark.feature("T02", "R03")
@each
async def test_cut_anywhere_nothing_is_lost_and_nothing_comes_twice(server: RunningServer, way: Any) -> None:
    session = await server.create_session()
    async with proxy(server.port) as network:
        network.cut_next(*CUTS)
        async with connect(network.url, session, **way, after="0", timings=QUICK) as client:
            asking = asyncio.create_task(client.say("echo " + "hello " * 100))
            events = await until(client, "task_completed")
            # Asked for with the last cursor until all cuts are made.
            while network.opened <= len(CUTS):
                network.cut()
                await client.say("echo more")
                events += await until(client, "task_completed")
            assert (await asking).status == "accepted"
    assert complete(events)
    history = await server.history(session)
    assert [message["content"] for message in history if message["role"] == "assistant"] == [
        event.payload.content
        for event in events
        if isinstance(event.payload, MessageCreated) and event.payload.role == "assistant"
    ]


@pytest.mark.feature("T02")
@ways
async def test_a_lost_acknowledgement_repeats_nothing(server: RunningServer, way: Any) -> None:
    async with (
        proxy(server.port) as network,
        connect(server.url, await server.create_session(), after="0") as witness,
        connect(network.url, witness.session, **way, timings=QUICK) as client,
    ):
        await until(client, "sync")
        for number in range(3):
            network.mute()
            saying = asyncio.create_task(client.say(f"echo {number}"))
            # It has arrived and taken effect, and nobody who asked for it knows.
            await until(witness, "task_completed")
            network.cut()
            network.speak()
            assert (await saying).status == "accepted"
    asked = [message for message in await server.history(witness.session) if message["role"] == "user"]
    assert [message["content"] for message in asked] == ["echo 0", "echo 1", "echo 2"]


@pytest.mark.feature("T03")
@each
async def test_regression_36_a_peer_that_is_gone_is_noticed(make_server: MakeServer, way: Any) -> None:
    server = await make_server(channel=ChannelSettings(heartbeat_interval=0.1))
    session = await server.create_session()
    timings = Timings(shortest_pause=0.01, longest_pause=0.05, grace=0.2, opening=1.0, opening_websocket=1.0)
    async with (
        proxy(server.port) as network,
        connect(network.url, session, **way, after="0", timings=timings) as client,
    ):
        before = await until(client, "sync")
        network.silence()
        async with asyncio.timeout(30):
            async for status in client.changes():
                if status.state == "reconnecting":
                    break
        network.speak()
        await client.say("hello")
        events = await until(client, "task_completed")
    assert complete(before + events)


@each
async def test_leaving_takes_no_time_and_leaves_nothing(server: RunningServer, way: Any) -> None:
    others = asyncio.all_tasks()
    async with proxy(server.port) as network:
        async with connect(network.url, **way) as client:
            await until(client, "sync")
            assert network.open
            network.silence()
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5
        network.speak()
        await network.until(open_now=0)
        mine = {task for task in asyncio.all_tasks() - others if (task.get_name() or "").startswith("parley-client")}
        assert mine == set()


@ways
async def test_leaving_while_it_reconnects(server: RunningServer, way: Any) -> None:
    async with proxy(server.port) as network:
        async with connect(network.url, **way) as client:
            saying = asyncio.create_task(until(client, "never"))
            network.refuse()
            network.cut()
            asking = asyncio.create_task(client.say("hello"))
            async for status in client.changes():
                if status.state == "reconnecting":
                    break
        assert (await saying)[-1].event_type != "never"
        with pytest.raises(ConnectionError, match="the client was closed"):
            await asking


@pytest.mark.feature("T02", "A01")
@each
async def test_a_restart_in_the_middle_of_an_answer(make_server: MakeServer, unused_tcp_port: int, way: Any) -> None:
    attempts, written = 0, asyncio.Event()

    @agent(type="slow")
    async def slow(context: AgentContext) -> AsyncGenerator[str, None]:
        nonlocal attempts
        attempts += 1
        yield "One "
        if attempts == 1:
            yield "half "
            written.set()
            await asyncio.Event().wait()
        yield "two."

    server = await make_server(slow, port=unused_tcp_port)
    async with connect(server.url, **way, after="0", timings=QUICK) as client:
        answer = client.ask("count")
        printed, restarts = "", 0
        async for chunk in answer:
            if chunk.restarted:
                restarts += 1
                printed = ""
            printed += chunk.text
            if printed == "One half ":
                await written.wait()
                await server.stop()
                server = await make_server(slow, port=unused_tcp_port)
        assert (printed, answer.text, answer.done) == ("One two.", "One two.", True)
        assert [message.content for message in answer.messages] == ["One two."]
        assert (restarts, attempts) == (1, 2)
    assert [message["content"] for message in await server.history(client.session)] == ["count", "One two."]


@pytest.mark.feature("T01", "T02")
async def test_the_transport_may_change_in_the_middle_of_an_answer(make_server: MakeServer) -> None:
    may = asyncio.Event()

    @agent(type="slow")
    async def slow(context: AgentContext) -> AsyncGenerator[str, None]:
        yield "One "
        await may.wait()
        yield "two."

    server = await make_server(slow)
    async with proxy(server.port) as network, connect(network.url, timings=QUICK) as client:
        answer = client.ask("count")
        texts, transports = [], []
        async for chunk in answer:
            texts.append(chunk.text)
            transports.append(client.transport)
            if chunk.text == "One ":
                network.forbid(b"Upgrade: websocket")
                network.cut()
                async for status in client.changes():
                    if status.transport == "sse":
                        break
                may.set()
    assert "".join(texts) == answer.text == "One two."
    assert (transports[0], transports[-1]) == ("ws", "sse")
