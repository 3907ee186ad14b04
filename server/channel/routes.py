"""The channel's addresses."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from aiohttp import web
from msgspec import Meta, Struct

from protocol.codec import MAX_COMMANDS
from protocol.commands import Command
from protocol.errors import ErrorCode
from protocol.events import Ack
from protocol.ids import ID_PATTERN
from server.channel.negotiation import EVENT_STREAM, NDJSON
from server.channel.sse import events
from server.channel.uplink import CommandResults, commands
from server.channel.websocket import websocket
from server.rest.openapi import JSON, LAST_EVENT_ID, Answer, Events, Routes, refusal

__all__ = ["add_routes"]

ROUTES: Final = Routes("Channel", "What happens in a session, and what its clients want.")


class ClientQuery(Struct, frozen=True):
    """Who is asking, where several clients of a user share a session."""

    client_id: (
        Annotated[
            str, Meta(pattern=ID_PATTERN, description="The client's own name, the same over reconnects and transports")
        ]
        | None
    ) = None


class StreamQuery(ClientQuery, frozen=True):
    """What streams take; read in `streams.py`."""

    after: (
        Annotated[
            str,
            Meta(
                pattern=r"^(?:[A-Za-z0-9_-]{1,64}\.)?[0-9]{1,18}$(?!\n)",
                description="Begin after this cursor; `0` is the log's beginning. Without it the stream begins now",
            ),
        ]
        | None
    ) = None


class WebSocketQuery(StreamQuery, frozen=True):
    """What a WebSocket takes."""

    batch: (
        Annotated[Literal["", "1", "true"], Meta(description="A message may hold several events, a line each")] | None
    ) = None


# Routes of a session are tried in this order, and commands are asked for most often.
ROUTES.post(
    "/sessions/{session}/commands",
    query=ClientQuery,
    body=Command | Annotated[list[Command], Meta(min_length=1, max_length=MAX_COMMANDS)],
    body_media=(JSON, "application/msgpack"),
    answers=(
        Answer(
            about="It took effect, or waits in the queue; all of the array did", content={JSON: (Ack, CommandResults)}
        ),
        Answer(status=207, about="Not all of the array took effect", content={JSON: CommandResults}),
        refusal(415, "Commands come as JSON or MessagePack"),
    ),
    errors=(
        ErrorCode.UNKNOWN_AGENT,
        ErrorCode.CONFLICT,
        ErrorCode.OUT_OF_ORDER,
        ErrorCode.BUSY,
        ErrorCode.NO_ACTIVE_TURN,
        ErrorCode.ALREADY_RESOLVED,
        ErrorCode.NOT_A_DECISION,
        ErrorCode.QUEUE_FULL,
        ErrorCode.LIMIT_REACHED,
        ErrorCode.RATE_LIMITED,
        ErrorCode.FORBIDDEN,
        ErrorCode.NOT_SUPPORTED,
    ),
    readers=True,
)(commands)
ROUTES.get(
    "/sessions/{session}/ws",
    query=WebSocketQuery,
    answers=(
        Answer(status=101, about="The WebSocket is open; the AsyncAPI document says what is spoken"),
        refusal(426, "This address speaks WebSocket"),
    ),
    errors=(ErrorCode.RATE_LIMITED, ErrorCode.SHUTDOWN),
    streams=True,
    tickets=True,
)(websocket)
ROUTES.get(
    "/sessions/{session}/events",
    query=StreamQuery,
    headers=(LAST_EVENT_ID,),
    answers=(
        Answer(
            about="The events, until the client or the server ends it",
            content={EVENT_STREAM: Events(), NDJSON: Events()},
        ),
        Answer(status=204, about="The session is gone: do not come back (to a client that sent `Last-Event-ID`)"),
        refusal(406, "`Accept` wants neither an event stream nor lines of JSON"),
    ),
    errors=(ErrorCode.RATE_LIMITED, ErrorCode.SHUTDOWN),
    streams=True,
    tickets=True,
)(events)


def add_routes(app: web.Application) -> None:
    """Add the two streams and the uplink; the services are looked for in the application at each request."""
    ROUTES.add_to(app)
