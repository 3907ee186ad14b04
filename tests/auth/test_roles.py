"""What owners, controllers and observers of a session may do, over every transport, before any effect."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.commands import COMMANDS
from server.channel.settings import ChannelSettings
from tests.auth.people import READING, People, Person
from tests.channel.clients import TRANSPORTS, connect
from tests.support.server import MakeServer

ONE = "018f3e5c-0000-7000-8000-000000000000"

#: A command of each type that is well-formed.
BODIES: dict[str, dict[str, Any]] = {
    "user_message": {"content": "hello"},
    "tool_result": {"call_id": ONE, "result": 1},
    "switch_agent": {"agent_type": "coder"},
    "hitl_decision": {"call_id": ONE, "decision": "approve"},
    "cancel": {},
    "queue_update": {"remove": ONE},
    "register_tools": {"tools": []},
    "tool_progress": {"call_id": ONE},
    "refresh_token": {"token": "nobodys-token-at-all"},
    "ping": {},
}
#: What observers may say.
HARMLESS = {"ping", "refresh_token"}


def test_each_command_is_in_the_matrix() -> None:
    assert set(BODIES) == set(COMMANDS)
    for name, body in BODIES.items():
        msgspec.convert({"type": name, "id": "1", **body}, COMMANDS[name])


@pytest.mark.feature("R01")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_regression_20_an_observer_reads_and_nothing_else(people: People, transport: str) -> None:
    ada, bob, *_ = await people()
    session = await ada.session()
    await ada.share(session, "bob", "observer")
    async with connect(bob.as_server, session, transport, client_id="bobs") as client:
        await client.until("sync")
        for name, body in BODIES.items():
            status, answer = await client.send(type=name, id=f"bob-{name}", **body)
            assert (answer.get("code") == "forbidden") == (name not in HARMLESS), (name, answer)
            assert status in ({200, 400, 401, 403} if name in HARMLESS else {400, 403})
        # He hears what others say, and nothing of what he tried.
        status, _ = await ada.ask(
            "POST", f"/sessions/{session}/commands", json={"type": "user_message", "id": "1", "content": "from ada"}
        )
        assert status == 200
        event = await client.until("message_created")
        assert (client.payload(event)["content"], event.seq) == ("from ada", 1)
    assert len((await bob.ask("GET", f"/sessions/{session}/history"))[1]["messages"]) > 0


@pytest.mark.feature("R01")
@pytest.mark.parametrize("transport", ["ws-json", "sse"])
async def test_a_controller_talks_and_does_not_own(people: People, transport: str) -> None:
    ada, bob, *_ = await people()
    session = await ada.session()
    await ada.share(session, "bob", "controller")
    async with connect(bob.as_server, session, transport) as client:
        await client.say("hello")
        await client.until("task_completed")
        _, history = await bob.ask("GET", f"/sessions/{session}/history")
        assert history["messages"][0]["content"] == "hello"
        for name, body in BODIES.items():
            status, answer = await client.send(type=name, id=f"bob-{name}", **body)
            assert answer.get("code") != "forbidden", (status, answer)
    assert await bob.code("DELETE", f"/sessions/{session}") == (403, "forbidden")
    assert await bob.code("GET", f"/sessions/{session}/members") == (403, "forbidden")
    put = {"json": {"role": "controller"}}
    assert await bob.code("PUT", f"/sessions/{session}/members/eve", **put) == (403, "forbidden")
    assert await bob.code("DELETE", f"/sessions/{session}/members/eve") == (403, "forbidden")
    assert (await ada.ask("GET", f"/sessions/{session}"))[0] == 200


async def test_an_array_of_commands_stops_at_the_first_that_the_role_does_not_allow(people: People) -> None:
    ada, bob, *_ = await people()
    session = await ada.session()
    await ada.share(session, "bob", "observer")
    commands = [{"type": "ping"}, {"type": "user_message", "id": "1", "content": "x"}, {"type": "ping"}]
    status, answer = await bob.ask("POST", f"/sessions/{session}/commands", json=commands)
    assert (status, [each["status"] for each in answer["results"]]) == (207, [200, 403, 424])


@pytest.mark.feature("R01")
async def test_members_are_listed_changed_and_taken_out(people: People) -> None:
    ada, bob, eve, _ = await people()
    session = await ada.session(session_id="notes")
    members = f"/sessions/{session}/members"
    assert (await ada.ask("GET", members)) == (200, {"members": []})
    await ada.share(session, "bob", "observer")
    await ada.share(session, "bob", "controller")
    await ada.share(session, "someone of whom nobody knows yet", "observer")
    _, listed = await ada.ask("GET", "/sessions/notes/members")
    assert [(each["user_id"], each["role"], each["added_by"]) for each in listed["members"]] == [
        ("bob", "controller", "ada"),
        ("someone of whom nobody knows yet", "observer", "ada"),
    ]
    assert await ada.code("PUT", f"{members}/ada", json={"role": "observer"}) == (409, "conflict")
    for body in ({}, {"role": "owner"}, {"role": 7}, {"role": "observer", "until": 1}):
        assert await ada.code("PUT", f"{members}/eve", json=body) == (422, "invalid")
    assert await ada.code("PUT", f"{members}/{'x' * 129}", json={"role": "observer"}) == (422, "invalid")
    assert await ada.code("PUT", f"{members}/%00", json={"role": "observer"}) == (422, "invalid")
    assert await ada.code("DELETE", f"{members}/eve") == (404, "not_found")
    assert await eve.code("DELETE", f"{members}/eve") == (404, "not_found")
    # A member may go by himself.
    assert (await bob.ask("DELETE", f"{members}/bob"))[0] == 204
    assert await bob.code("GET", f"/sessions/{session}") == (404, "not_found")


@pytest.mark.feature("R01", "S20")
async def test_shared_sessions_are_listed_with_owner_and_role(people: People) -> None:
    ada, bob, *_ = await people()
    session = await ada.session(session_id="notes", title="Notes")
    own = await bob.session()
    await ada.share(session, "bob", "observer")
    _, listed = await bob.ask("GET", "/sessions", params={"shared": "true"})
    (one,) = listed["sessions"]
    assert (one["id"], one["owner"], one["role"], one["alias"], one["title"]) == (
        session,
        "ada",
        "observer",
        None,
        "Notes",
    )
    assert listed["total"] == 1
    assert [each["id"] for each in (await bob.ask("GET", "/sessions"))[1]["sessions"]] == [own]
    assert (await ada.ask("GET", "/sessions?shared"))[1]["total"] == 0


@pytest.mark.feature("R01")
@pytest.mark.parametrize("transport", ["ws-json", "sse"])
async def test_whoever_is_taken_out_is_sent_away_at_once(people: People, transport: str) -> None:
    ada, bob, eve, _ = await people()
    session = await ada.session()
    await ada.share(session, "bob", "controller")
    await ada.share(session, "eve", "observer")
    async with (
        connect(bob.as_server, session, transport) as his,
        connect(eve.as_server, session, transport) as others,
    ):
        await his.until("sync")
        await others.until("sync")
        assert (await ada.ask("DELETE", f"/sessions/{session}/members/bob"))[0] == 204
        ended = his.payload(await his.until("disconnect"))
        assert (ended["code"], ended["reconnect"]) == ("forbidden", False)
        await his.end()
        command = {"type": "user_message", "id": "1", "content": "x"}
        assert await bob.code("POST", f"/sessions/{session}/commands", json=command) == (404, "not_found")
        # A changed role is taken up by coming back.
        await ada.share(session, "eve", "controller")
        ended = others.payload(await others.until("disconnect"))
        assert (ended["code"], ended["reconnect"]) == ("stale", True)
    async with connect(eve.as_server, session, transport) as others:
        await others.say("hello")


@pytest.mark.feature("R01", "S19")
async def test_whoever_is_taken_out_elsewhere_does_nothing_more_and_is_sent_away(
    people: People, make_server: MakeServer
) -> None:
    patient = ChannelSettings(poll_interval=3600.0)
    ada, bob, eve, _ = await people(channel=patient)
    server = ada.server
    other = await make_server(auth=server.services.config.auth, channel=patient)
    elsewhere = Person(other, ada.token)
    session = await ada.session()
    for user in ("bob", "eve"):
        await ada.share(session, user, "controller")
    async with (
        connect(bob.as_server, session, "ws-json") as his,
        connect(eve.as_server, session, "ws-json") as others,
    ):
        await his.until("sync")
        await others.until("sync")
        assert (await elsewhere.ask("DELETE", f"/sessions/{session}/members/bob"))[0] == 204
        await elsewhere.share(session, "eve", "observer")
        # This process has not looked yet; a command is asked about all the same.
        status, error = await his.send(type="user_message", content="still here?")
        assert (status, error["code"]) == (400, "not_found")
        status, error = await others.send(type="user_message", content="still here?")
        assert (status, error["code"]) == (400, "forbidden")
        await server.services.guests.look()
        assert his.payload(await his.until("disconnect"))["code"] == "forbidden"
        assert others.payload(await others.until("disconnect"))["code"] == "stale"
    await elsewhere.client.close()


async def test_owners_and_those_who_are_not_members_are_not_looked_up(people: People) -> None:
    ada, bob, *_ = await people()
    session = await ada.session()
    await ada.share(session, "bob", "observer")
    services = ada.server.services
    async with connect(ada.as_server, session, "ws-json") as hers, connect(bob.as_server, session, "sse") as his:
        await hers.until("sync")
        await his.until("sync")
        await services.guests.look()
        status, _ = await hers.send(type="ping")
        assert status == 200
        assert {one.grant.role for one in services.hub.listeners_of(await _id(ada, session))} == {"owner", "observer"}


async def _id(person: Person, session: str) -> Any:
    return (await person.server.services.sessions.resolve("ada", session)).session_id


@pytest.mark.feature("R01")
async def test_clients_are_shown_with_their_roles(people: People) -> None:
    ada, bob, *_ = await people()
    session = await ada.session()
    await ada.share(session, "bob", "observer")
    async with connect(bob.as_server, session, "ws-json", client_id="bobs") as his:
        assert his.payload(await his.until("connected"))["role"] == "observer"
        await his.until("sync")
        async with connect(ada.as_server, session, "ws-json", client_id="adas") as hers:
            connected = hers.payload(await hers.until("connected"))
            roles = {each["client_id"]: each.get("role", "owner") for each in connected["clients"]}
            assert roles == {"bobs": "observer"}


@pytest.mark.feature("R01")
async def test_a_token_for_reading_reads(people: People) -> None:
    ada, *_ = await people()
    session = await ada.session()
    reader = Person(ada.server, READING)
    try:
        assert (await reader.ask("GET", f"/sessions/{session}"))[1]["role"] == "observer"
        assert (await reader.ask("GET", "/sessions"))[1]["total"] == 1
        for method, path, body in (
            ("POST", "/sessions", {}),
            ("DELETE", f"/sessions/{session}", {}),
            ("PUT", f"/sessions/{session}/members/bob", {"role": "observer"}),
        ):
            assert await reader.code(method, path, json=body) == (403, "forbidden")
        command = {"type": "user_message", "id": "1", "content": "x"}
        # Also when the session was found for her other token before.
        assert (await ada.ask("POST", f"/sessions/{session}/commands", json=command | {"id": "2"}))[0] == 200
        assert await reader.code("POST", f"/sessions/{session}/commands", json=command) == (403, "forbidden")
        assert (await reader.ask("POST", f"/sessions/{session}/commands", json={"type": "ping"}))[0] == 200
        async with connect(reader.as_server, session, "ws-json") as client:
            await client.until("sync")
            status, error = await client.send(**command)
            assert (status, error["code"]) == (400, "forbidden")
    finally:
        await reader.client.close()
