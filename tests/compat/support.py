"""Requests as those clients make them that these routes are for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientResponse

from protocol.framing import SseMessage, SseParser
from tests.support.server import RunningServer


async def ask(server: RunningServer, method: str, path: str, **options: Any) -> tuple[int, Any]:
    """One request; its status, and its body if that is JSON."""
    async with server.client.request(method, path, **options) as response:
        text = await response.text()
        return response.status, json.loads(text) if "json" in response.content_type else text


async def chunks(server: RunningServer, session: str, message: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Everything that the flat stream says."""
    async with server.client.post(
        "/agent/message/stream", json={"session_id": session, "message": message}, **options
    ) as stream:
        assert stream.status == 200, await stream.text()
        assert stream.content_type == "text/event-stream"
        parser = SseParser()
        messages = [one async for data in stream.content.iter_any() for one in parser.feed(data)]
    assert {one.event for one in messages} <= {"message"}
    return [json.loads(one.data) for one in messages]


@asynccontextmanager
async def event_stream(server: RunningServer, path: str, **options: Any) -> AsyncIterator[AsyncIterator[SseMessage]]:
    """An event stream that is open, message by message."""
    async with server.client.get(path, **options) as stream:
        assert stream.status == 200, await stream.text()
        assert stream.content_type == "text/event-stream"
        yield _messages(stream)


async def _messages(stream: ClientResponse) -> AsyncIterator[SseMessage]:
    parser = SseParser()
    async for data in stream.content.iter_any():
        for message in parser.feed(data):
            yield message
