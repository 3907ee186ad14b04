"""A server that a test plays: it follows what its clients say, and says what the test wants, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
from aiohttp import web

from protocol.ids import format_timestamp, parse_timestamp
from tests.protocol.support import ENVELOPE, QUESTION, TURN, connected, durable, encoded, serving, sync

Command = dict[str, Any]

#: Seconds that something may take on a machine that is busy with something else.
PATIENCE = 30.0


class Played:
    """One session. `url` is where it is served, `say` says a frame on every stream, `next` is the next command."""

    def __init__(self) -> None:
        self.url = ""
        #: Every command that came, in order.
        self.commands: list[Command] = []
        #: Clients that are connected, and how often somebody connected.
        self.here: list[str] = []
        self.connections = 0
        #: What is said of a command instead of `ack`: an error's code and status.
        self.refuse: Callable[[Command], tuple[str, int] | None] = lambda _: None
        #: What the replay of the next connections brings.
        self.log: list[Any] = []
        #: Said after each `sync`.
        self.again: list[Any] = []
        self.limits: dict[str, int] = {}
        self._arrived: asyncio.Queue[Command] = asyncio.Queue()
        self._streams: set[asyncio.Queue[Any]] = set()
        self._seq = 0

    # --- what the test does

    def durable(self, event_type: str, **payload: Any) -> dict[str, Any]:
        """The next event of the log, said to everybody."""
        self._seq += 1
        frame = durable(self._seq, event_type, **payload)
        self.log.append(frame)
        self.say(frame)
        return frame

    def dispatch(self, call_id: str, name: str = "double", client_id: str = "me", **arguments: Any) -> dict[str, Any]:
        """Give a call to a client."""
        return self.durable("tool_dispatched", **dispatched(call_id, name, client_id, **arguments))

    def result(self, call_id: str) -> dict[str, Any]:
        """Say that a call has its result."""
        return self.durable("tool_result", call_id=call_id, turn_id=TURN, name="double", executor="client", result=1)

    def say(self, frame: Any) -> None:
        """Say a frame on every stream; None ends them."""
        for stream in self._streams:
            stream.put_nowait(frame)

    async def next(self, kind: str = "tool_result") -> Command:
        """The next command of a type; those of other types before it are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                command = await self._arrived.get()
                if command["type"] == kind:
                    return command

    def of(self, kind: str) -> list[Command]:
        """All commands of a type."""
        return [command for command in self.commands if command["type"] == kind]

    # --- what the server does

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        leaf = request.path.rpartition("/")[2]
        if leaf == "commands":
            command = await request.json()
            answer = self._take(command)
            if answer["event_type"] == "ack":
                return web.json_response(answer["payload"])
            _, status = self.refuse(command) or ("", 400)
            body = {"code": answer["payload"]["code"], "detail": answer["payload"]["message"]}
            return web.json_response(body, status=status, content_type="application/problem+json")
        if leaf not in {"ws", "events"}:
            return web.json_response({"id": ENVELOPE["session_id"]})
        stream: asyncio.Queue[Any] = asyncio.Queue()
        after = request.query.get("after", f"e.{self._seq}")
        begin = int(after.rpartition(".")[2])
        replay = [frame for frame in self.log if frame["seq"] > begin]
        frames = [connected(after if "." in after else f"e.{after}", limits=self._limits()), *replay]
        for frame in [*frames, sync(f"e.{self._seq}"), *self.again]:
            stream.put_nowait(frame)
        self._streams.add(stream)
        self.here.append(request.query["client_id"])
        self.connections += 1
        try:
            if leaf == "ws":
                return await self._websocket(request, stream)
            return await self._lines(request, stream)
        finally:
            self._streams.discard(stream)
            self.here.remove(request.query["client_id"])

    def _limits(self) -> dict[str, int]:
        return {"max_command_bytes": 1 << 20, "max_nesting": 64} | self.limits

    def _take(self, command: Command) -> dict[str, Any]:
        refusal = self.refuse(command)
        self.commands.append(command)
        self._arrived.put_nowait(command)
        if refusal is not None:
            said = {"id": command["id"], "code": refusal[0], "message": f"refused with {refusal[0]}"}
            return {"event_type": "command_error", "payload": said}
        answer = {"id": command.get("id"), "status": "accepted"}
        if command["type"] == "user_message":
            answer["message_id"] = QUESTION
        return {"event_type": "ack", "payload": answer}

    async def _websocket(self, request: web.Request, stream: asyncio.Queue[Any]) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, protocols=("parley.v1.json", "parley.v1.msgpack"))
        await socket.prepare(request)
        packed = socket.ws_protocol == "parley.v1.msgpack"

        async def send(frame: Any) -> None:
            if packed:
                await socket.send_bytes(msgspec.msgpack.encode(ENVELOPE | frame))
            else:
                await socket.send_str(encoded(frame).decode())

        async def hear() -> None:
            async for message in socket:
                decode = msgspec.msgpack.decode if packed else msgspec.json.decode
                stream.put_nowait(self._take(decode(message.data)))
            stream.put_nowait(None)

        hearing = asyncio.create_task(hear())
        try:
            while (frame := await stream.get()) is not None:
                await send(frame)
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        assert request.transport is not None
        # As a connection is lost: without a word.
        request.transport.abort()
        return socket

    async def _lines(self, request: web.Request, stream: asyncio.Queue[Any]) -> web.StreamResponse:
        sse = "event-stream" in request.headers["Accept"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream" if sse else "application/x-ndjson"})
        await response.prepare(request)
        while (frame := await stream.get()) is not None:
            line = encoded(frame)
            await response.write(b"data: " + line + b"\n\n" if sse else line + b"\n")
        return response


def dispatched(
    call_id: str, name: str = "double", client_id: str = "me", *, lease: float | None = None, **arguments: Any
) -> dict[str, Any]:
    """The payload of a dispatch; `lease` is in seconds."""
    now = parse_timestamp(ENVELOPE["timestamp"])
    deadline = None if lease is None else format_timestamp(now + timedelta(seconds=lease))
    return {
        "call_id": call_id,
        "turn_id": TURN,
        "deadline": deadline,
        "client_id": client_id,
        "name": name,
        "arguments": arguments,
    }


@asynccontextmanager
async def playing() -> AsyncIterator[Played]:
    """A played server that listens."""
    played = Played()
    async with serving(played.handle) as url:
        played.url = url
        yield played
