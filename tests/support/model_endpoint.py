"""A model endpoint on a real socket: it answers with what the test has laid out, and remembers what it was asked.

    endpoint.reply(events(text("Hel"), text("lo"), finish("stop")))      a streamed answer
    endpoint.reply(error(429, "slow down"), headers={"Retry-After": "7"})  a refusal
    endpoint.reply(events(text("Hel")), then="hang")                      silence after the first token

Answers are given in the order in which they were laid out; one that nobody laid out is a 500 that says so. A request
that some endpoint or other would refuse is a 400 that says why, and takes no answer: it is as strict as all of them
together (see `complaints`).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import msgspec
from aiohttp import web
from msgspec import Struct

Then = Literal["end", "hang", "cut", "chatter"]

_ID = re.compile(r"[A-Za-z0-9]{9}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Asked(Struct):
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class _Reply(Struct):
    pieces: list[bytes]
    status: int
    headers: dict[str, str]
    then: Then


class ModelEndpoint:
    """What `model_endpoint()` gives; `url` is a `base_url`."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        #: The names of the models that it has.
        self.models: list[str] = []
        #: Set when a client goes away while it is being answered.
        self.left = asyncio.Event()
        #: Set when all pieces of an answer that then hangs were written.
        self.hanging = asyncio.Event()
        self.connections: set[object] = set()
        self._replies: deque[_Reply] = deque()

    def reply(
        self,
        *pieces: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        then: Then = "end",
    ) -> None:
        """Lay out an answer: each piece is written by itself, and `then` comes its end, silence, a cut, or comments.

        `hang` before any piece does not even send the head.
        """
        given = {"Content-Type": "text/event-stream" if status == 200 else "application/json", **(headers or {})}
        self._replies.append(_Reply(list(pieces), status, given, then))

    def refuse(self, status: int, message: str = "", **headers: str) -> None:
        """Lay out an error as OpenAI words it."""
        body = msgspec.json.encode({"error": {"message": message, "type": "test", "code": None}})
        self.reply(body, status=status, headers={key.replace("_", "-"): value for key, value in headers.items()})

    async def list_models(self, request: web.Request) -> web.StreamResponse:
        """Answer `GET /models`: as laid out, or else with the names in `models`."""
        self.asked.append(
            Asked(request.path, dict(request.headers), msgspec.json.decode(await request.read() or b"{}"))
        )
        if self._replies:
            return await self._answer(request, self._replies.popleft())
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.connections.add(request.transport)
        self.asked.append(Asked(request.path, dict(request.headers), msgspec.json.decode(await request.read())))
        if found := complaints(self.asked[-1].body):
            return web.json_response({"error": {"message": "; ".join(found)}}, status=400)
        if not self._replies:
            return web.json_response({"error": {"message": "no answer is laid out"}}, status=500)
        reply = self._replies.popleft()
        try:
            return await self._answer(request, reply)
        except (asyncio.CancelledError, ConnectionResetError):
            self.left.set()
            raise

    async def _answer(self, request: web.Request, reply: _Reply) -> web.StreamResponse:
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        if reply.pieces:
            await response.prepare(request)
        for piece in reply.pieces:
            await response.write(piece)
            # The client's end of the socket is in the same loop: give it the piece by itself.
            await asyncio.sleep(0)
        if reply.then == "hang":
            self.hanging.set()
            await asyncio.get_running_loop().create_future()
        while reply.then == "chatter":
            await response.write(b": still here\n\n")
            await asyncio.sleep(0)
        if reply.then == "cut":
            assert request.transport is not None
            request.transport.close()
            return response
        if not reply.pieces:
            await response.prepare(request)
        await response.write_eof()
        return response


def complaints(body: dict[str, Any]) -> list[str]:
    """What some endpoint would refuse in this request: OpenAI, Anthropic, Mistral, and the templates of open models."""
    messages = body["messages"][1:] if body["messages"][0]["role"] == "system" else body["messages"]
    tools = [tool["function"]["name"] for tool in body.get("tools", [{"function": {"name": "none"}}])]
    found = [f"strange name {name!r}" for name in tools if not _NAME.fullmatch(name)]
    if not messages or messages[0]["role"] != "user":
        found.append("the first message must be the user's")
    if not tools or len(set(tools)) < len(tools):
        found.append("tools must be named, each once")
    open_calls: list[str] = []
    before = ""
    for number, message in enumerate(messages):
        role, calls = message["role"], message.get("tool_calls", [])
        if role == "tool":
            if message["tool_call_id"] not in open_calls:
                found.append(f"message {number} is the result of no open call")
            else:
                open_calls.remove(message["tool_call_id"])
        elif open_calls:
            found.append(f"message {number} comes before the results of {open_calls}")
        elif role == before == "user" or role not in ("user", "assistant"):
            found.append(f"message {number}: conversation roles must alternate, {role} after {before}")
        if not message["content"] and not calls and role != "tool":
            found.append(f"message {number} is empty")
        open_calls += [made["id"] for made in calls]
        found += [complaint for made in calls for complaint in _about(made)]
        before = role
    return found + ([f"no results of {open_calls}"] if open_calls else [])


def _about(made: dict[str, Any]) -> list[str]:
    """What is wrong with one call that goes back."""
    name, arguments = made["function"]["name"], made["function"]["arguments"]
    found = [] if _ID.fullmatch(made["id"]) else [f"call id {made['id']!r} must be 9 of a-z, A-Z, 0-9"]
    found += [] if _NAME.fullmatch(name) else [f"strange name {name!r}"]
    try:
        value = msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        value = None
    return found if isinstance(value, dict) else [*found, f"arguments of {name} are no object"]


@asynccontextmanager
async def model_endpoint(bound: socket.socket | None = None) -> AsyncIterator[ModelEndpoint]:
    """Serve one on a free port of this machine, or on a socket that has one already."""
    endpoint = ModelEndpoint()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/v1/chat/completions", endpoint.handle)
    app.router.add_get("/v1/models", endpoint.list_models)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        listening = bound or socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        endpoint.url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        yield endpoint
    finally:
        await runner.cleanup()


# --- what answers are made of


def event(value: Any) -> bytes:
    """One event with a JSON value."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def chunk(finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of a completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}


def text(content: str) -> dict[str, Any]:
    """A piece of text."""
    return chunk(content=content)


def call(index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None) -> Any:  # noqa: A002
    """A piece of a tool call; what is None is left out."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    fields = {"index": index, "id": id, "function": function}
    return {key: value for key, value in fields.items() if value is not None}


def calls(*pieces: Any) -> dict[str, Any]:
    """A chunk with pieces of tool calls."""
    return chunk(tool_calls=list(pieces))


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """The chunk that tells the tokens."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def stream(*chunks: dict[str, Any], done: bool = True) -> list[bytes]:
    """The events of an answer, one a piece."""
    return [event(one) for one in chunks] + ([b"data: [DONE]\n\n"] if done else [])


def answer(*words: str, prompt: int = 3, completion: int = 2) -> list[bytes]:
    """A whole answer in text, as OpenAI streams it."""
    return stream(chunk(role="assistant", content=""), *map(text, words), chunk("stop"), usage(prompt, completion))


def joined(pieces: Iterable[bytes]) -> bytes:
    """All at once."""
    return b"".join(pieces)
