"""One kind of client a transport, all with the same methods, over real sockets."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
from aiohttp import WSMsgType

from protocol.envelope import Envelope, decode_event
from protocol.framing import NdjsonParser, SseParser
from tests.support.server import RunningServer

TRANSPORTS = ["ws-json", "ws-json-batch", "ws-msgpack", "sse", "ndjson"]

#: Nothing in these tests takes so long, on a busy machine neither; it is what a hang costs. Seconds.
PATIENCE = 40.0


async def until(condition: Callable[[], bool]) -> None:
    """Look again and again; for what comes over a socket and tells nobody. The test fails when it does not come."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody sets an event
            await asyncio.sleep(0)


class Client(ABC):
    """A client on a session. `events` is all that came so far; `next` and `until` read on."""

    def __init__(self, server: RunningServer, session: str, query: dict[str, str]) -> None:
        self.events: list[Envelope] = []
        self.query = query
        self._server = server
        self._session = session
        self._inbox: deque[Envelope] = deque()

    async def next(self) -> Envelope:
        """The next event; EOFError when the stream has ended."""
        async with asyncio.timeout(PATIENCE):
            while not self._inbox:
                self._inbox.extend(await self.receive())
        event = self._inbox.popleft()
        self.events.append(event)
        return event

    async def until(self, event_type: str, check: Callable[[Any], bool] = lambda payload: True) -> Envelope:
        """Read on to the next event of this type, and for which `check` of its payload holds."""
        while True:
            event = await self.next()
            if event.event_type == event_type and check(self.payload(event)):
                return event

    async def end(self) -> None:
        """Read to the end of the stream."""
        try:
            while True:
                await self.next()
        except EOFError:
            return

    def payload(self, event: Envelope) -> Any:
        """An event's payload as plain values."""
        return msgspec.json.decode(event.payload)

    @property
    def types(self) -> list[str]:
        return [event.event_type for event in self.events]

    @property
    def durable(self) -> list[Envelope]:
        return [event for event in self.events if event.seq is not None]

    @abstractmethod
    async def receive(self) -> list[Envelope]:
        """Wait for more events; EOFError at the end."""

    @abstractmethod
    async def send(self, **command: Any) -> tuple[int, Any]:
        """Send a command: 200 and the ack, or another status and the error (`code`, `path`, ...)."""

    async def say(self, content: str) -> Any:
        """Send a message that is accepted; the ack."""
        status, ack = await self.send(type="user_message", content=content)
        assert status == 200, ack
        return ack


class WebSocketClient(Client):
    """Over WebSocket, in one of its three framings."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, framing: str, *rest: Any) -> None:
        super().__init__(*rest)
        self.socket = socket
        self.framing = framing
        self.messages = 0

    async def receive(self) -> list[Envelope]:
        message = await self.socket.receive()
        if message.type is WSMsgType.TEXT:
            assert self.framing != "ws-msgpack"
            self.messages += 1
            return [decode_event(line) for line in message.data.split("\n")]
        if message.type is WSMsgType.BINARY:
            assert self.framing == "ws-msgpack"
            self.messages += 1
            return [decode_event(message.data, "msgpack")]
        raise EOFError

    def payload(self, event: Envelope) -> Any:
        return (msgspec.msgpack if self.framing == "ws-msgpack" else msgspec.json).decode(event.payload)

    async def send(self, **command: Any) -> tuple[int, Any]:
        command.setdefault("id", uuid4().hex)
        await self.send_raw(command)
        while True:
            event = await self.next()
            if event.event_type in {"ack", "command_error"} and self.payload(event).get("id") == command["id"]:
                return 200 if event.event_type == "ack" else 400, self.payload(event)

    async def send_raw(self, value: Any) -> None:
        if self.framing == "ws-msgpack":
            await self.socket.send_bytes(msgspec.msgpack.encode(value))
        else:
            await self.socket.send_str(msgspec.json.encode(value).decode())


class HttpClient(Client):
    """Over SSE or NDJSON, with commands over POST."""

    def __init__(self, response: aiohttp.ClientResponse, framing: str, *rest: Any) -> None:
        super().__init__(*rest)
        self.response = response
        self.sse = SseParser()
        self._ndjson = NdjsonParser()
        self._framing = framing

    async def receive(self) -> list[Envelope]:
        data = await self.response.content.readany()
        if not data:
            raise EOFError
        if self._framing == "ndjson":
            return [decode_event(line) for line in self._ndjson.feed(data)]
        return [decode_event(message.data) for message in self.sse.feed(data)]

    async def send(self, **command: Any) -> tuple[int, Any]:
        command.setdefault("id", uuid4().hex)
        path = f"/sessions/{self._session}/commands"
        async with self._server.client.post(path, json=command, params=self.query) as response:
            return response.status, msgspec.json.decode(await response.read())


@asynccontextmanager
async def connect(
    server: RunningServer, session: str, transport: str, *, client_id: str | None = None, after: object = None
) -> AsyncIterator[Client]:
    """Open a stream; `aiohttp.ClientResponseError` (or its WebSocket kin) when it is refused."""
    identity = {} if client_id is None else {"client_id": client_id}
    query = identity if after is None else {**identity, "after": str(after)}
    async with AsyncExitStack() as stack:
        if transport.startswith("ws-"):
            protocol = "parley.v1.msgpack" if transport == "ws-msgpack" else "parley.v1.json"
            if transport == "ws-json-batch":
                query = {**query, "batch": "1"}
            path = f"/sessions/{session}/ws"
            socket = await stack.enter_async_context(
                server.client.ws_connect(path, protocols=[protocol], params=query, max_msg_size=0)
            )
            assert socket.protocol == protocol
            yield WebSocketClient(socket, transport, server, session, identity)
        else:
            accept = "text/event-stream" if transport == "sse" else "application/x-ndjson"
            path = f"/sessions/{session}/events"
            response = await stack.enter_async_context(
                server.client.get(path, headers={"Accept": accept}, params=query, raise_for_status=True)
            )
            assert response.headers["Content-Type"].startswith(accept)
            stack.callback(response.close)
            yield HttpClient(response, transport, server, session, identity)
