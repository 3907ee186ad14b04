"""What the tests of the Python client share: servers that say what the test wants, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from protocol.client import Client, Received, Timings

#: Each way in which a client can be connected, as arguments of `connect`.
WAYS: Final[dict[str, dict[str, Any]]] = {
    "ws": {"transport": "ws"},
    "ws-single": {"transport": "ws", "batch": False},
    "ws-msgpack": {"transport": "ws", "encoding": "msgpack"},
    "sse": {"transport": "sse"},
    "ndjson": {"transport": "ndjson"},
}

#: No long pauses: what is lost comes back at once.
QUICK: Final = Timings(shortest_pause=0.01, longest_pause=0.05, grace=0.5)

ENVELOPE: Final = {"session_id": str(UUID(int=1)), "timestamp": "2026-01-02T03:04:05.678Z"}
TURN: Final = str(UUID(int=2))
QUESTION: Final = str(UUID(int=3))
ANSWER: Final = str(UUID(int=4))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def until(client: Client, event_type: str, count: int = 1) -> list[Received]:
    """Events up to the count-th of a type."""
    seen: list[Received] = []
    async for event in client:
        seen.append(event)
        count -= event.event_type == event_type
        if not count:
            break
    return seen


def numbers(events: list[Received]) -> list[int]:
    """The sequence numbers of the durable ones."""
    return [event.envelope.seq for event in events if event.envelope.seq is not None]


def complete(events: list[Received]) -> bool:
    """Whether each durable event from the first on is there once and in order."""
    return numbers(events) == list(range(1, len(numbers(events)) + 1))


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server all of whose answers are the handler's; its address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


class Script:
    """A server that says given frames on each stream, and then nothing or the end; it acknowledges every command."""

    def __init__(self, *streams: list[Any], then_end: bool = False) -> None:
        #: Of each connection: path, and `after`.
        self.asked: list[tuple[str, str]] = []
        #: The commands that came.
        self.commands: list[dict[str, Any]] = []
        #: Set once a command came.
        self.commanded = asyncio.Event()
        #: What each connection is told; the last one again and again.
        self.streams = list(streams)
        self._then_end = then_end

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        leaf = request.path.rpartition("/")[2]
        if leaf not in {"ws", "events", "commands"}:
            return web.json_response({"id": ENVELOPE["session_id"]})
        if leaf == "commands":
            command = await request.json()
            self.commands.append(command)
            self.commanded.set()
            return web.json_response({"id": command["id"], "status": "accepted", "message_id": QUESTION, "seq": 1})
        self.asked.append((leaf, request.query.get("after", "")))
        frames = self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]
        if leaf == "ws":
            return await self._websocket(request, frames)
        return await self._lines(request, frames)

    async def _websocket(self, request: web.Request, frames: list[Any]) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False, protocols=("parley.v1.json", "parley.v1.msgpack"))
        await socket.prepare(request)
        for frame in frames:
            match frame:
                case int():
                    await socket.close(code=frame)
                    return socket
                case bytes():
                    await socket.send_bytes(frame)
                case str():
                    await socket.send_str(frame)
                case _:
                    await socket.send_str(encoded(frame).decode())
        if not self._then_end:
            async for _ in socket:
                pass
        return socket

    async def _lines(self, request: web.Request, frames: list[Any]) -> web.StreamResponse:
        sse = "event-stream" in request.headers["Accept"]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream" if sse else "application/x-ndjson"})
        await response.prepare(request)
        for frame in frames:
            if isinstance(frame, asyncio.Event):
                await frame.wait()
                continue
            line = frame if isinstance(frame, bytes) else encoded(frame)
            await response.write(b"data: " + line + b"\n\n" if sse else line + b"\n")
        if not self._then_end:
            await asyncio.Event().wait()
        return response


def encoded(frame: dict[str, Any]) -> bytes:
    """A frame with its envelope."""
    return msgspec.json.encode(ENVELOPE | frame)


def connected(cursor: str = "e.0", heartbeat_ms: int = 15_000, **payload: Any) -> dict[str, Any]:
    """The first frame."""
    session, moment = ENVELOPE["session_id"], ENVELOPE["timestamp"]
    about = {
        "session_id": session,
        "current_agent": "a",
        "is_active": True,
        "message_count": 0,
        "created_at": moment,
        "last_activity": moment,
    }
    said = {
        "client_id": "c",
        "cursor": cursor,
        "session": about,
        "limits": {"max_command_bytes": 1 << 20, "max_nesting": 64},
        "heartbeat_interval_ms": heartbeat_ms,
        "agent": {"type": "a", "agent_id": session, "name": "A"},
        "clients": [],
        "server_version": "1",
    }
    return {"event_type": "connected", "payload": said | payload}


def sync(through: str = "e.0") -> dict[str, Any]:
    """The end of the replay."""
    return {"event_type": "sync", "payload": {"from": "e.0", "through": through}}


def durable(seq: int, event_type: str = "from_the_future", epoch: str = "e", **payload: Any) -> dict[str, Any]:
    """A durable event."""
    return {"event_type": event_type, "payload": payload, "seq": seq, "cursor": f"{epoch}.{seq}"}


def asked(seq: int, message_id: str = QUESTION, turn_id: str = TURN) -> list[dict[str, Any]]:
    """A question, and the beginning of its turn."""
    moment = ENVELOPE["timestamp"]
    agent = {"agent_type": "a", "agent_id": ENVELOPE["session_id"], "agent_name": "A"}
    return [
        durable(seq, "message_created", message_id=message_id, role="user", content="?", timestamp=moment),
        durable(seq + 1, "task_started", turn_id=turn_id, message_id=message_id, **agent),
    ]


def delta(offset: int, text: str, attempt: int = 1, part: str = "content", message_id: str = ANSWER) -> dict[str, Any]:
    """A piece of the answer."""
    payload = {"message_id": message_id, "attempt": attempt, "part": part, "offset": offset, "text": text}
    return {"event_type": "message_delta", "payload": payload}


def said(seq: int, content: str, turn_id: str = TURN, message_id: str = ANSWER) -> dict[str, Any]:
    """The answer's message."""
    moment = ENVELOPE["timestamp"]
    payload = {"message_id": message_id, "role": "assistant", "content": content, "timestamp": moment}
    return durable(seq, "message_created", turn_id=turn_id, finish_reason="stop", **payload)


def over(seq: int, status: str = "completed", turn_id: str = TURN, **more: Any) -> dict[str, Any]:
    """The end of the turn."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return durable(seq, "task_completed", turn_id=turn_id, status=status, usage=usage, steps=1, duration_ms=1, **more)
