"""Events and problems as schemas: what streams carry, and what every refusal looks like."""

from __future__ import annotations

from typing import Any, Final

from protocol.envelope import Envelope
from protocol.errors import ErrorCode
from protocol.events import EVENTS, EventType
from protocol.parts import CursorText, Timestamp
from server.rest.openapi.schemas import JsonSchema, Schemas

__all__ = ["EVENT", "PROBLEM", "add_events", "add_problem", "event_table"]

#: The names of the two components.
EVENT: Final = "Event"
PROBLEM: Final = "Problem"


def add_events(schemas: Schemas) -> JsonSchema:
    """Add every event type, in its envelope, and what is any of them; the reference to the latter."""
    rows = list(EVENTS.values())
    references = [schemas.add(_name(row), _enveloped(row, schemas)) for row in rows]
    mapping = {row.name: reference["$ref"] for row, reference in zip(rows, references, strict=True)}
    return schemas.add(
        EVENT,
        {
            "description": "One event. There will be more types: pass over those that you do not know.",
            "oneOf": references,
            "discriminator": {"propertyName": "event_type", "mapping": mapping},
        },
    )


def add_problem(schemas: Schemas) -> JsonSchema:
    """Add what a refusal looks like (RFC 9457)."""
    text = {"type": "string"}
    return schemas.add(
        PROBLEM,
        {
            "description": "Why a request was refused (RFC 9457).",
            "type": "object",
            "required": ["type", "title", "status", "detail", "code"],
            "properties": {
                "type": {**text, "format": "uri"},
                "title": text,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {**text, "description": "The rule that was broken, for people"},
                "code": {"enum": [code.code for code in ErrorCode]},
                "path": {**text, "description": "The field: `$.title` of the body, `?limit` of the query"},
                "retry_after": {"type": "number", "minimum": 0, "description": "When to come back, in seconds"},
                "id": {**text, "description": "The command's id"},
                "request_id": {**text, "description": "What the server's log knows the request by"},
            },
        },
    )


def event_table() -> str:
    """All event types as a table in Markdown."""
    rows = [f"| `{row.name}` | {row.kind} | {row.description.replace('|', chr(92) + '|')} |" for row in EVENTS.values()]
    return "\n".join(["| event | kind | |", "| --- | --- | --- |", *rows])


def _name(row: EventType) -> str:
    return f"{EVENT}.{row.name}"


def _enveloped(row: EventType, schemas: Schemas) -> JsonSchema:
    properties: dict[str, Any] = {
        "event_type": {"const": row.name},
        "session_id": {"type": "string", "format": "uuid"},
        "timestamp": schemas.of(Timestamp),
        "seq": {"type": "integer", "minimum": 1, "description": "Its number in the session"},
        "cursor": schemas.of(CursorText),
        "payload": schemas.of(row.payload),
    }
    assert list(properties) == list(Envelope.__struct_fields__), "the envelope is described as it is"
    if row.kind != "durable":
        del properties["seq"], properties["cursor"]
    return {
        "description": f"{row.description} ({row.kind})",
        "type": "object",
        "required": list(properties),
        "properties": properties,
    }
