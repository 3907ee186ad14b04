"""POST: one command or several, their answers, and what is refused before anything is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from protocol.errors import ErrorCode, ParleyError
from server.channel.settings import ChannelSettings
from tests.channel.test_websocket import Stub
from tests.support.server import MakeServer, RunningServer


def message(id_: str, content: str = "hello") -> dict[str, Any]:
    return {"type": "user_message", "id": id_, "content": content}


async def post(server: RunningServer, session: str, body: Any, **options: Any) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    options.setdefault("headers", {"Content-Type": "application/json"})
    async with server.client.post(f"/sessions/{session}/commands", data=data, **options) as response:
        return response.status, msgspec.json.decode(await response.read())


async def test_one_command_is_answered_by_its_ack(server: RunningServer) -> None:
    session = await server.create_session()
    status, ack = await post(server, session, message("one"))
    assert status == 200
    assert (ack["id"], ack["status"], ack["seq"] > 0) == ("one", "accepted", True)
    assert await post(server, session, message("one")) == (200, ack)


async def test_a_refusal_has_the_status_of_its_code(server: RunningServer) -> None:
    session = await server.create_session()
    assert (await post(server, session, message("one")))[0] == 200
    status, problem = await post(server, session, message("one", "other"))
    assert (status, problem["status"], problem["code"], problem["id"]) == (409, 409, "conflict", "one")
    status, problem = await post(server, session, {"type": "user_message", "id": "two"})
    assert (status, problem["code"]) == (422, "invalid")
    status, problem = await post(server, session, b"{")
    assert (status, problem["code"]) == (400, "malformed")


async def test_regression_26_several_commands_are_handled_in_order_up_to_the_first_refusal(
    server: RunningServer,
) -> None:
    session = await server.create_session()
    body = [message("a"), {"type": "ping"}, message("b", 7), message("c"), {"type": "ping"}]  # type: ignore[arg-type]
    status, answer = await post(server, session, body)
    assert status == 207
    assert [result["status"] for result in answer["results"]] == [200, 200, 422, 424, 424]
    assert answer["results"][0]["ack"]["id"] == "a"
    assert answer["results"][2]["error"]["path"] == "$[2].content"
    assert answer["results"][3]["error"]["code"] == "not_tried"
    status, answer = await post(server, session, [message("c"), message("d")])
    assert status == 200
    assert [result["ack"]["id"] for result in answer["results"]] == ["c", "d"]
    first, second = (result["ack"].get("seq") for result in answer["results"])
    assert second is None or first < second


async def test_an_empty_array_is_a_mistake(server: RunningServer) -> None:
    session = await server.create_session()
    status, problem = await post(server, session, [])
    assert (status, problem["code"]) == (422, "invalid")


@pytest.mark.feature("T07")
async def test_messagepack_is_taken_and_means_the_same(server: RunningServer) -> None:
    session = await server.create_session()
    headers = {"Content-Type": "application/msgpack"}
    status, ack = await post(server, session, msgspec.msgpack.encode(message("m")), headers=headers)
    assert status == 200
    assert await post(server, session, message("m")) == (200, ack)
    several = msgspec.msgpack.encode([message("n"), {"type": "ping"}])
    status, answer = await post(server, session, several, headers=headers)
    assert (status, len(answer["results"])) == (200, 2)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_other_types_are_refused(server: RunningServer, content_type: str) -> None:
    session = await server.create_session()
    status, _ = await post(server, session, message("x"), headers={"Content-Type": content_type})
    assert status == 415


async def test_a_body_that_is_not_what_its_headers_say_is_malformed(server: RunningServer) -> None:
    session = await server.create_session()
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    data = b'{"type":"ping","id":"a"}'
    async with server.client.post(f"/sessions/{session}/commands", data=data, headers=headers) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (400, "malformed")


@pytest.mark.feature("T06")
async def test_a_body_over_the_limit_is_refused_declared_or_not(make_server: MakeServer) -> None:
    server = await make_server(channel=ChannelSettings(max_command_bytes=1_000))
    session = await server.create_session()
    status, problem = await post(server, session, message("x", "x" * 2_000))
    assert (status, problem["code"]) == (413, "too_large")

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"type":"user_message","id":"y","content":"'
        for _ in range(100):
            yield b"x" * 100
        yield b'"}'

    headers = {"Content-Type": "application/json"}
    async with server.client.post(f"/sessions/{session}/commands", data=pieces(), headers=headers) as response:
        assert response.status == 413


@pytest.mark.feature("T06")
async def test_too_many_commands_at_once_are_refused(make_server: MakeServer) -> None:
    server = await make_server(channel=ChannelSettings(max_commands=2))
    session = await server.create_session()
    status, problem = await post(server, session, [{"type": "ping"}] * 3)
    assert (status, problem["code"]) == (413, "too_large")


async def test_regression_26_a_session_that_is_not_there_is_said_so(server: RunningServer) -> None:
    status, problem = await post(server, "nobody", message("x"))
    assert (status, problem["code"]) == (404, "not_found")


async def test_a_lost_database_is_503_with_a_time_to_come_back(server: RunningServer) -> None:
    session = await server.create_session()
    server.services.commands = Stub(ParleyError(ErrorCode.UNAVAILABLE, "the database is away", retry_after=1.0))
    async with server.client.post(f"/sessions/{session}/commands", json=message("x")) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"


async def test_a_client_id_is_checked(server: RunningServer) -> None:
    session = await server.create_session()
    status, problem = await post(server, session, message("x"), params={"client_id": "not allowed!"})
    assert (status, problem["code"]) == (422, "invalid")


@pytest.mark.parametrize(
    "command",
    [
        message("two"),
        {"type": "cancel", "id": "two"},
        {"type": "switch_agent", "id": "two", "agent_type": "ask"},
        {"type": "queue_update", "id": "two", "remove": "01234567-89ab-7def-8123-456789abcdef"},
        {"type": "ping", "id": "two"},
    ],
    ids=lambda command: command["type"],
)
async def test_a_session_that_another_process_deleted_is_gone_for_every_command(
    server: RunningServer, command: dict[str, Any]
) -> None:
    session = await server.create_session()
    assert (await post(server, session, message("one")))[0] == 200
    services = server.services
    await services.sessions.delete(await services.sessions.resolve("local", session), services.clock.now())
    for body in (command, [command]):
        status, answer = await post(server, session, body)
        problem = answer["results"][0]["error"] if status == 207 else answer
        assert (problem["status"], problem["code"]) == (410, "session_gone")
