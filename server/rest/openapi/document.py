"""The OpenAPI 3.1 document, made from the descriptions of the routes and the types that they name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from protocol.errors import ErrorCode
from server.rest.openapi.events import add_events, add_problem, event_table
from server.rest.openapi.parameters import HEADERS, PATH_PARAMETERS, RESPONSE_HEADERS
from server.rest.openapi.routes import JSON, PROBLEM, Answer, Events, Operation, Problem
from server.rest.openapi.schemas import JsonSchema, Schemas, without_null
from server.version import VERSION

__all__ = ["openapi"]

_NAME: Final = re.compile(r"\{(\w+)")
_PATTERN: Final = re.compile(r"\{(\w+):[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")

_EVENT_STREAM: Final = "text/event-stream"

_ABOUT: Final = """\
Sessions with AI agents: one durable, ordered event log each, over WebSocket and event streams alike.

Everything that is said here is made from the code that does it. The channel itself (the WebSocket, its commands and
events) is described by the AsyncAPI document at `/asyncapi.json`.

Every refusal is a problem (RFC 9457) with a `code`; each operation lists those that it may answer with.
"""

#: What the door may refuse anybody with.
_DOOR: Final = (ErrorCode.MALFORMED, ErrorCode.HOST_REFUSED, ErrorCode.ORIGIN_REFUSED, ErrorCode.INTERNAL)


def openapi(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document of these operations, ready to be encoded. Raises ValueError where they contradict each other."""
    return _Document().made(operations)


class _Document:
    def __init__(self) -> None:
        self._schemas = Schemas()
        self._event = add_events(self._schemas)
        self._problem = add_problem(self._schemas)

    def made(self, operations: Sequence[Operation]) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for operation in operations:
            methods = paths.setdefault(_PATTERN.sub(r"{\1}", operation.path), {})
            if operation.method.lower() in methods:
                raise ValueError(f"{operation.method} {operation.path} is described twice")
            methods[operation.method.lower()] = self._operation(operation)
        self._schemas.bind()
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Parley",
                "version": VERSION,
                "description": _ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"bearer": []}],
            "tags": list(_tags(operations)),
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.components.items())),
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        }

    def _operation(self, operation: Operation) -> dict[str, Any]:
        streams = any(isinstance(kind, Events) for answer in operation.answers for kind in answer.content.values())
        description = "\n\n".join([text for text in (operation.description, event_table() if streams else "") if text])
        made: dict[str, Any] = {
            "operationId": operation.name,
            "tags": [operation.tag],
            "summary": operation.summary,
            **({"description": description} if description else {}),
            **({"parameters": parameters} if (parameters := list(self._parameters(operation))) else {}),
        }
        if operation.body is not None:
            schema = self._schemas.of(operation.body)
            made["requestBody"] = {
                "required": operation.body_required,
                "content": {media: {"schema": schema} for media in operation.body_media},
            }
        made["responses"] = self._responses(operation)
        if operation.public:
            made["security"] = []
        if operation.streams:
            # Its answer has no end of its own: tools that wait for one should know.
            made["x-endless"] = True
        return made

    def _parameters(self, operation: Operation) -> Iterator[dict[str, Any]]:
        for name in _NAME.findall(operation.path):
            if name not in PATH_PARAMETERS:
                raise ValueError(f"{operation.path}: nothing is said about {{{name}}} in openapi/parameters.py")
            yield _parameter(name, "path", self._schemas.of(PATH_PARAMETERS[name]), required=True)
        if operation.query is not None:
            fields = self._schemas.fields(operation.query)
            for name, schema in fields["properties"].items():
                yield _parameter(name, "query", _in_query(without_null(schema)), required=name in fields["required"])
        for name in operation.headers:
            yield _parameter(name, "header", self._schemas.of(HEADERS[name]), required=False)

    def _responses(self, operation: Operation) -> dict[str, Any]:
        responses = {str(answer.status): self._response(answer) for answer in operation.answers}
        codes = sorted(set(_codes(operation)), key=lambda code: (code.status, code.code))
        for status, group in groupby(codes, key=lambda code: code.status):
            if str(status) not in responses:
                responses[str(status)] = self._refusal(status, list(group))
        return responses

    def _response(self, answer: Answer) -> dict[str, Any]:
        content = {media: self._medium(media, kind) for media, kind in answer.content.items()}
        return {
            "description": answer.about,
            **({"headers": self._headers(answer.headers)} if answer.headers else {}),
            **({"content": content} if content else {}),
        }

    def _medium(self, media: str, kind: Any) -> dict[str, Any]:
        match kind:
            case None:
                return {"schema": {} if media == JSON else {"type": "string"}}
            case Problem():
                return {"schema": self._problem}
            case Events():
                item = self._event
            case _:
                item = self._schemas.of(kind)
        # Before OpenAPI 3.2 there is no other place for the schema of a stream's items.
        return {"schema": _message(item) if media == _EVENT_STREAM else item}

    def _refusal(self, status: int, codes: Sequence[ErrorCode]) -> dict[str, Any]:
        headers = ["Retry-After"] if status in {429, 503} else []
        return {
            "description": "; ".join(f"`{code.code}`: {code.title}" for code in codes),
            **({"headers": self._headers(headers)} if headers else {}),
            "content": {PROBLEM: {"schema": self._problem}},
        }

    def _headers(self, names: Iterable[str]) -> Mapping[str, Any]:
        return {name: {"required": True, "schema": self._schemas.of(RESPONSE_HEADERS[name])} for name in names}


def _in_query(schema: JsonSchema) -> JsonSchema:
    """A switch is on, too, when it is there without a value."""
    if schema.get("type") != "boolean":
        return schema
    switch = {"anyOf": [{"type": "boolean"}, {"const": ""}]}
    return {**{key: value for key, value in schema.items() if key != "type"}, **switch}


def _message(data: JsonSchema) -> JsonSchema:
    """A message of an event stream (WHATWG HTML, section 9.2), its data as JSON."""
    return {
        "description": "One message",
        "type": "object",
        "required": ["data"],
        "properties": {
            "id": {"type": "string"},
            "event": {"type": "string"},
            "data": {"type": "string", "contentMediaType": JSON, "contentSchema": data},
        },
    }


def _parameter(name: str, place: str, schema: JsonSchema, *, required: bool) -> dict[str, Any]:
    rest = {key: value for key, value in schema.items() if key != "description"}
    described = {"description": schema["description"]} if "description" in schema else {}
    return {"name": name, "in": place, "required": required, **described, "schema": rest}


def _codes(operation: Operation) -> Iterator[ErrorCode]:
    """Every code that the route may refuse a request with."""
    yield from operation.errors
    yield from _DOOR
    if not operation.public:
        yield from (ErrorCode.UNAUTHORIZED, ErrorCode.UNAVAILABLE)
    if "{session}" in operation.path:
        yield from (ErrorCode.NOT_FOUND, ErrorCode.SESSION_GONE)
    elif "{" in operation.path:
        yield ErrorCode.NOT_FOUND
    if operation.query is not None or operation.headers:
        yield ErrorCode.INVALID
    if operation.body is not None:
        yield from (ErrorCode.INVALID, ErrorCode.TOO_LARGE, ErrorCode.STALE)


def _tags(operations: Iterable[Operation]) -> Iterator[dict[str, str]]:
    about: dict[str, str] = {}
    for operation in operations:
        about[operation.tag] = about.get(operation.tag) or operation.tag_about
    for name, text in about.items():
        yield {"name": name, "description": text} if text else {"name": name}
