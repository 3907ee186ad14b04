"""The AsyncAPI 3 document: what is said on a session's channel, made from the tables of events and of commands."""

from __future__ import annotations

from typing import Any, Final

from protocol.commands import COMMANDS
from protocol.events import EVENTS
from protocol.ids import ID_PATTERN
from server.rest.openapi.events import EVENT, add_events
from server.rest.openapi.schemas import Schemas
from server.version import VERSION

__all__ = ["asyncapi"]

_ABOUT: Final = """\
A session's channel: events down, commands up. The same events come as an event stream or as lines of JSON, and the same
commands are taken by POST; `/openapi.json` describes those addresses and all others.

Durable events are numbered (`seq`) and have a `cursor`: a client that comes back with `after=` its newest cursor misses
nothing. Deltas and transient events may be lost, and are healed by what comes next. Clients pass over events and fields
that they do not know.
"""

_JSON: Final = "application/json"
_MSGPACK: Final = "application/msgpack"


def asyncapi() -> dict[str, Any]:
    """The document, ready to be encoded."""
    schemas = Schemas()
    add_events(schemas)
    # Messages tell their types apart here; and what OpenAPI calls a discriminator is something else in AsyncAPI.
    del schemas.components[EVENT]
    messages = {**_events(), **_commands(schemas)}
    schemas.bind()
    channels = {"session": _websocket(list(messages)), "events": _stream()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parley's channel",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "channels": channels,
        "operations": _operations(),
        "components": {"messages": messages, "schemas": dict(sorted(schemas.components.items()))},
    }


def _events() -> dict[str, Any]:
    return {
        row.name: {
            "name": row.name,
            "title": row.name,
            "summary": row.description,
            "tags": [{"name": row.kind}],
            "contentType": _JSON,
            "payload": {"$ref": f"#/components/schemas/{EVENT}.{row.name}"},
        }
        for row in EVENTS.values()
    }


def _commands(schemas: Schemas) -> dict[str, Any]:
    return {
        f"command.{name}": {
            "name": name,
            "title": name,
            "summary": " ".join((kind.__doc__ or "").split()),
            "tags": [{"name": "command"}],
            "contentType": _JSON,
            "payload": schemas.of(kind),
        }
        for name, kind in COMMANDS.items()
    }


def _websocket(messages: list[str]) -> dict[str, Any]:
    query = {
        "type": "object",
        "properties": {
            "after": {"type": "string", "description": "Begin after this cursor; without it the stream begins now"},
            "client_id": {"type": "string", "pattern": ID_PATTERN},
            "batch": {"enum": ["", "1", "true"], "description": "A message may hold several events, a line each"},
        },
    }
    return {
        "address": "/sessions/{session}/ws",
        "summary": "Both directions over a WebSocket",
        "description": f"Subprotocol `parley.v1.json`: text messages; `parley.v1.msgpack`: binary ones ({_MSGPACK}).",
        "parameters": _session(),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {"ws": {"method": "GET", "query": query}},
    }


def _stream() -> dict[str, Any]:
    return {
        "address": "/sessions/{session}/events",
        "summary": "The events alone, as `text/event-stream` or `application/x-ndjson`",
        "parameters": _session(),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in EVENTS},
    }


def _session() -> dict[str, Any]:
    return {"session": {"description": "The session's UUID, or your own name for it"}}


def _operations() -> dict[str, Any]:
    def operation(action: str, channel: str, summary: str, names: list[str]) -> dict[str, Any]:
        # The words are those of whoever the document describes: the server sends events and receives commands.
        return {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "summary": summary,
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        }

    events, commands = list(EVENTS), [f"command.{name}" for name in COMMANDS]
    return {
        "sendEvents": operation("send", "session", "What happens in the session", events),
        "receiveCommands": operation("receive", "session", "What its clients want", commands),
        "streamEvents": operation("send", "events", "What happens in the session", events),
    }
