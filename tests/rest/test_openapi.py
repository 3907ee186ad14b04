from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import hdrs
from aiohttp.web import AbstractResource
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31

from protocol.commands import COMMANDS
from protocol.events import EVENTS
from server.app import build, create_app
from server.config import Config
from server.rest.openapi.asyncapi import asyncapi
from server.rest.openapi.routes import OPERATIONS, Routes
from server.rest.openapi.serve import openapi_of
from tests.support.server import FAST_AGENTS, RunningServer


@pytest.fixture
async def document() -> dict[str, Any]:
    app = create_app(await build(Config(agents=FAST_AGENTS)))
    return dict(json.loads(json.dumps(openapi_of(app))))


@pytest.mark.feature("E06", "S28")
async def test_no_route_without_a_description_and_no_description_without_a_route() -> None:
    app = create_app(await build(Config(agents=FAST_AGENTS)))
    routed = sorted(
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != hdrs.METH_HEAD
    )
    assert routed == sorted((one.method, one.path) for one in app[OPERATIONS])
    paths = openapi_of(app)["paths"]
    assert sum(len(methods) for methods in paths.values()) == len(routed)


@pytest.mark.feature("E06")
async def test_regression_21_no_route_is_shadowed_by_one_before_it() -> None:
    app = create_app(await build(Config(agents=FAST_AGENTS)))
    for operation in app[OPERATIONS]:
        if "{" not in operation.path:
            first = next(resource for resource in app.router.resources() if answers(resource, operation.path))
            assert first.canonical == operation.path


@pytest.mark.feature("E06")
async def test_every_reference_leads_somewhere_and_every_schema_is_one(document: dict[str, Any]) -> None:
    for whole in (document, asyncapi()):
        for reference in references(whole):
            found: Any = whole
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]
        for schema in whole["components"]["schemas"].values():
            Draft202012Validator.check_schema(schema)


@pytest.mark.feature("E06")
async def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    assert list(Draft202012Validator(OPENAPI_31).iter_errors(document)) == []


async def test_operations_have_ids_of_their_own_and_say_what_they_do(document: dict[str, Any]) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all(one["summary"] and one["responses"] for one in operations)
    headings = {tag["name"] for tag in document["tags"]}
    assert {tag for one in operations for tag in one["tags"]} == headings
    assert all(tag.get("description") for tag in document["tags"])


@pytest.mark.feature("S09", "E06")
async def test_event_types_stand_where_their_stream_is_described(document: dict[str, Any]) -> None:
    stream = document["paths"]["/sessions/{session}/events"]["get"]
    for name in EVENTS:
        assert f"| `{name}` |" in stream["description"]
    content = stream["responses"]["200"]["content"]
    assert set(content) == {"text/event-stream", "application/x-ndjson"}
    event = {"$ref": "#/components/schemas/Event"}
    assert content["application/x-ndjson"]["schema"] == event
    assert content["text/event-stream"]["schema"]["properties"]["data"]["contentSchema"] == event
    assert set(document["components"]["schemas"]["Event"]["discriminator"]["mapping"]) == set(EVENTS)


@pytest.mark.feature("S09", "E06")
def test_the_channel_is_described_event_by_event_and_command_by_command() -> None:
    document = asyncapi()
    assert document["asyncapi"] == "3.0.0"
    assert set(document["components"]["messages"]) == {*EVENTS, *(f"command.{name}" for name in COMMANDS)}
    assert "discriminator" not in json.dumps(document)
    operations = document["operations"]
    assert (operations["sendEvents"]["action"], operations["receiveCommands"]["action"]) == ("send", "receive")
    assert len(operations["receiveCommands"]["messages"]) == len(COMMANDS)


@pytest.mark.feature("E06")
async def test_the_documents_are_served_to_everybody(server: RunningServer) -> None:
    for path, key in (("/openapi.json", "openapi"), ("/asyncapi.json", "asyncapi")):
        async with server.client.get(path) as response:
            assert (response.status, response.content_type) == (200, "application/json")
            assert key in await response.json()
    async with server.client.get("/docs") as response:
        text = await response.text()
        assert (response.status, response.content_type) == (200, "text/html")
    assert "message_created" in text
    assert "<script" not in text
    assert "http" + "://" not in text


def test_a_handler_that_does_not_say_what_it_does_is_no_route() -> None:
    async def silent(request: Any) -> Any: ...

    with pytest.raises(ValueError, match="docstring"):
        Routes("Any").get("/any")(silent)


def answers(resource: AbstractResource, path: str) -> bool:
    """Whether a resource of the router takes a path."""
    info = resource.get_info()
    pattern = info.get("pattern")
    return info.get("path") == path or (pattern is not None and pattern.fullmatch(path) is not None)


def references(value: Any) -> set[str]:
    """Every `$ref` in a document."""
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*map(references, value.values()))
