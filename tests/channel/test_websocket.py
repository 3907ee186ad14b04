"""What is the WebSocket's own: its handshake, its limits, its closing."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType

from protocol.commands import Command
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack, Disconnect
from server.channel.commands import Commands
from server.channel.settings import ChannelSettings
from server.channel.websocket import close_reason
from server.turns.service import Origin
from storage.sessions import Session
from tests.channel.clients import PATIENCE, Client, WebSocketClient, connect
from tests.channel.fakes import ws_messages
from tests.support.clock import ManualClock
from tests.support.server import MakeServer, RunningServer


class Stub(Commands):
    """Commands that end as the test wants."""

    def __init__(self, outcome: Exception | None) -> None:
        self.outcome = outcome
        self.handled: list[str | None] = []

    async def _dispatch(self, session: Session, command: Command, origin: Origin) -> Ack:
        self.handled.append(command.id)
        if self.outcome is None:
            await asyncio.get_running_loop().create_future()
        assert self.outcome is not None
        raise self.outcome


def socket_of(client: Client) -> aiohttp.ClientWebSocketResponse:
    assert isinstance(client, WebSocketClient)
    return client.socket


@pytest.mark.feature("T07")
async def test_regression_37_nothing_is_compressed_even_when_the_client_offers_it(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.ws_connect(f"/sessions/{session}/ws", compress=15) as socket:
        assert socket.compress == 0
        assert "Sec-WebSocket-Extensions" not in socket._response.headers


@pytest.mark.feature("T07")
async def test_a_batch_holds_what_one_turn_of_the_loop_made(server: RunningServer) -> None:
    session = await server.create_session()
    async with connect(server, session, "ws-json-batch", after=0) as client:
        await client.say("hello")
        await client.until("task_completed")
        assert isinstance(client, WebSocketClient)
        assert client.messages < len(client.events)


async def test_without_a_subprotocol_it_speaks_json(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.ws_connect(f"/sessions/{session}/ws") as socket:
        assert socket.protocol is None
        assert json.loads(await socket.receive_str())["event_type"] == "connected"


async def test_regression_40_a_token_among_the_offered_subprotocols_is_neither_echoed_nor_logged(
    server: RunningServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    session = await server.create_session()
    caplog.set_level(logging.DEBUG)
    secret = "parley.bearer.not-to-be-seen-0123456789"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await server.client.ws_connect(f"/sessions/{session}/ws", protocols=[secret])
    assert caught.value.status == 400
    async with server.client.ws_connect(f"/sessions/{session}/ws", protocols=[secret, "parley.v1.msgpack"]) as socket:
        assert socket.protocol == "parley.v1.msgpack"
    output = capfd.readouterr()
    assert "not-to-be-seen" not in caplog.text + output.out + output.err


async def test_a_plain_request_is_told_to_upgrade(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.get(f"/sessions/{session}/ws") as response:
        assert response.status == 426
        assert (await response.json(content_type=None))["code"] == "malformed"


async def test_pings_are_answered_with_their_payload(server: RunningServer) -> None:
    session = await server.create_session()
    async with server.client.ws_connect(f"/sessions/{session}/ws", autoping=False) as socket:
        await socket.ping(b"are you there?")
        while True:
            message = await socket.receive(timeout=PATIENCE)
            if message.type is WSMsgType.PONG:
                assert message.data == b"are you there?"
                return


@pytest.mark.feature("T03")
async def test_a_client_that_answers_nothing_is_closed_as_stale(make_server: MakeServer) -> None:
    server = await make_server(channel=ChannelSettings(heartbeat_interval=0.1, sweep_interval=0.05, close_timeout=0.5))
    session = await server.create_session()
    async with server.client.ws_connect(f"/sessions/{session}/ws", autoping=False) as socket:
        while True:
            message = await socket.receive(timeout=PATIENCE)
            if message.type not in {WSMsgType.TEXT, WSMsgType.PING}:
                break
        assert socket.close_code == ErrorCode.STALE.close
    assert server.services.hub.stats().closed == {"stale": 1}


async def test_a_message_of_the_wrong_kind_is_refused(server: RunningServer) -> None:
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        await socket_of(client).send_bytes(b'{"type":"ping","id":"x"}')
        error = client.payload(await client.until("command_error"))
        assert error["code"] == "malformed"
        assert (await client.send(type="ping"))[0] == 200
    async with connect(server, session, "ws-msgpack") as client:
        await socket_of(client).send_str('{"type":"ping","id":"x"}')
        error = client.payload(await client.until("command_error"))
        assert error["code"] == "malformed"


@pytest.mark.feature("T06")
async def test_a_command_that_is_too_large_is_refused_and_a_much_larger_one_cut(make_server: MakeServer) -> None:
    server = await make_server(channel=ChannelSettings(max_command_bytes=1_000, close_timeout=0.5))
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        status, error = await client.send(type="user_message", content="x" * 100)
        assert status == 200
        await client.socket.send_str('{"type":"ping","id":"' + "x" * 1_000 + '"}')  # type: ignore[attr-defined]
        error = client.payload(await client.until("command_error"))
        assert error["code"] == "too_large"
        assert (await client.send(type="ping"))[0] == 200
        await client.socket.send_str("x" * 100_000)  # type: ignore[attr-defined]
        await client.end()
        assert socket_of(client).close_code == 1009


@pytest.mark.feature("T06")
async def test_only_a_burst_of_malformed_commands_closes(make_server: MakeServer) -> None:
    server = await make_server(channel=ChannelSettings(malformed_burst=5, close_timeout=0.5))
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        for _ in range(4):
            await socket_of(client).send_str("{")
            await client.until("command_error")
        assert (await client.send(type="ping"))[0] == 200
        await socket_of(client).send_str("{")
        farewell = client.payload(await client.until("disconnect"))
        assert (farewell["code"], farewell["reconnect"]) == ("protocol_error", False)
        assert client.types[-2] == "command_error", "the last one is answered too"
        await client.end()
        assert socket_of(client).close_code == ErrorCode.PROTOCOL_ERROR.close
    assert server.services.hub.stats().malformed_commands == 5


async def test_a_command_that_takes_too_long_is_given_back_and_the_peer_is_not_taken_for_dead(
    make_server: MakeServer,
) -> None:
    clock = ManualClock()

    class Slow(Stub):
        async def _dispatch(self, session: Session, command: Command, origin: Origin) -> Ack:
            await clock.advance(100.0)
            return await super()._dispatch(session, command, origin)

    server = await make_server(channel=ChannelSettings(command_timeout=0.5), clock=clock)
    server.services.commands = Slow(None)
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        _, error = await client.send(type="user_message", content="hello", id="slow")
        assert (error["code"], error["id"]) == ("unavailable", "slow")
        assert error["retry_after_ms"] > 0
        assert "heartbeat" in client.types
        # Its time begins anew.
        await clock.advance(20.0)
        await client.until("heartbeat")
    stats = server.services.hub.stats()
    assert (stats.command_timeouts, stats.closed) == (1, {})


@pytest.mark.parametrize("outcome", ["returned", "refused", "too late"])
async def test_a_command_is_answered_once_however_its_answer_comes(make_server: MakeServer, outcome: str) -> None:
    """Told with its events and then returned; told, and refused all the same; refused for its time, and told later."""
    tellers: list[Callable[[Ack], None]] = []

    class Telling(Commands):
        def __init__(self) -> None:
            """No turns are asked for anything."""

        async def _dispatch(self, session: Session, command: Command, origin: Origin) -> Ack:
            ack = Ack(id=command.id, status="accepted")
            assert origin.tell is not None
            tellers.append(origin.tell)
            if command.id == "last":
                return ack
            if outcome == "too late":
                await asyncio.get_running_loop().create_future()
            origin.tell(ack)
            if outcome == "refused":
                raise ParleyError(ErrorCode.UNAVAILABLE, "something else went wrong")
            return ack

    server = await make_server(channel=ChannelSettings(command_timeout=0.5))
    server.services.commands = Telling()
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        status, _ = await client.send(type="user_message", content="hello", id="first")
        assert status == (400 if outcome == "too late" else 200)
        tellers[0](Ack(id="first", status="accepted"))
        await client.send(type="user_message", content="hello", id="last")
        answers = [event for event in client.events if event.event_type in {"ack", "command_error"}]
        assert [client.payload(event)["id"] for event in answers] == ["first", "last"]


async def test_a_lost_database_is_said_to_be_away(server: RunningServer) -> None:
    server.services.commands = Stub(ParleyError(ErrorCode.UNAVAILABLE, "the database is away", retry_after=1.0))
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        _, error = await client.send(type="user_message", content="hello")
        assert (error["code"], error["retry_after_ms"]) == ("unavailable", 1_000)


async def test_an_unexpected_failure_is_told_generically_and_ends_nothing(server: RunningServer) -> None:
    session = await server.create_session()
    async with connect(server, session, "ws-json") as client:
        server.services.commands = Stub(KeyError("a secret of the house"))
        _, error = await client.send(type="user_message", content="hello")
        assert error["code"] == "internal"
        assert "secret" not in error["message"]
        status, _ = await server.command(session, type="user_message", content="hello")
        assert status == 500


async def test_commands_are_handled_one_at_a_time_and_in_order(server: RunningServer) -> None:
    session = await server.create_session()
    async with connect(server, session, "ws-json", after=0) as client:
        for number in range(20):
            await socket_of(client).send_str(
                json.dumps({"type": "user_message", "id": f"m{number}", "content": f"{number}"})
            )
        acks = [client.payload(await client.until("ack"))["id"] for _ in range(20)]
        assert acks == [f"m{number}" for number in range(20)]


@pytest.mark.feature("T04")
@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_close_reason_fits_its_frame(code: ErrorCode) -> None:
    reason = close_reason(code, Disconnect.of(code, None, 1e9))
    assert len(reason) <= 123
    assert json.loads(reason) == {"code": code.code, "retry_after_ms": 10**12}


class RawSocket:
    """A WebSocket client that reads only when it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Read until so many durable events have come."""
        data, found = b"", list[dict[str, Any]]()
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                part = await self.reader.read(1 << 20)
                assert part, "the connection ended"
                data += part
                found = [event for event in self._whole(data) if "seq" in event]
        return found

    @staticmethod
    def _whole(data: bytes) -> list[dict[str, Any]]:
        return [msgspec.json.decode(payload) for opcode, payload in _frames(data) if opcode == 1]


async def raw_websocket(server: RunningServer, session: str) -> RawSocket:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
    key = base64.b64encode(bytes(16)).decode()
    writer.write(
        f"GET /sessions/{session}/ws?after=0 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    line = b""
    while line != b"\r\n":
        line = await _line(reader)
    return RawSocket(reader, writer)


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += await reader.readexactly(1)
    return line


@pytest.mark.feature("T05")
async def test_a_reader_that_stops_and_goes_on_loses_nothing_and_blocks_nobody(make_server: MakeServer) -> None:
    server = await make_server(channel=ChannelSettings(ring_bytes=10_000))
    session = await server.create_session()
    stopped = await raw_websocket(server, session)
    async with connect(server, session, "sse", after=0) as quick:
        await quick.until("sync")
        sent = 0
        while not server.services.hub.stats().catching_up:
            sent += 1
            await quick.say(f"{sent}:" + "x" * 200_000)
            await quick.until("message_created", lambda payload: payload["role"] == "user")
        await quick.say("the last one")
        await quick.until("message_created", lambda payload: payload["content"] == "the last one")
        last = quick.durable[-1].seq
        assert last is not None
        events = await stopped.events(last)
        assert [event["seq"] for event in events[:last]] == list(range(1, last + 1))
    stopped.writer.close()
    await stopped.writer.wait_closed()


@pytest.mark.feature("T05")
async def test_a_reader_that_stops_for_good_is_cut_with_a_code(make_server: MakeServer) -> None:
    settings = ChannelSettings(write_timeout=0.3, sweep_interval=0.05, close_timeout=0.2)
    server = await make_server(channel=settings)
    session = await server.create_session()
    stopped = await raw_websocket(server, session)
    async with connect(server, session, "sse", after=0) as quick:
        while not server.services.hub.stats().closed:
            await quick.say("x" * 200_000)
            await quick.until("message_created", lambda payload: payload["role"] == "user")
    assert server.services.hub.stats().closed == {"slow_consumer": 1}
    async with asyncio.timeout(PATIENCE):
        await server.services.hub._admission.emptied()
    stopped.writer.close()


def _frames(data: bytes) -> list[tuple[int, bytes]]:
    """The frames, or none while the last of them is not whole."""
    try:
        return ws_messages(data)
    except (AssertionError, IndexError):
        return []
