"""`parley sessions`: listed, found, shown, read, deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.support import parley, terminal
from tests.support.server import RunningServer


async def sessions(server: RunningServer, *arguments: str) -> tuple[int, str, str]:
    return await parley("sessions", *arguments, PARLEY_URL=server.url)


async def objects(server: RunningServer, *arguments: str) -> list[dict[str, Any]]:
    code, out, errors = await sessions(server, *arguments, "--json")
    assert (code, errors) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
async def three(server: RunningServer) -> RunningServer:
    """A server with three sessions, `c` the last used."""
    for name, title in (("a", "Rivers of France"), ("b", "Mountains"), ("c", "Lakes\twith\x1b[2J tabs")):
        session = await server.create_session(session_id=name, title=title)
        await server.command(session, type="user_message", content=f"tell me about {name}")
    return server


@pytest.mark.feature("E01", "S20")
async def test_they_are_listed_as_lines_with_tabs_the_last_used_first(three: RunningServer) -> None:
    code, out, errors = await sessions(three)
    assert (code, errors) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        ("c", "offline", "Lakes with[2J tabs"),
        ("b", "offline", "Mountains"),
        ("a", "offline", "Rivers of France"),
    ]
    assert await sessions(three, "list") == (0, out, "")
    code, out, errors = await sessions(three, "--limit", "2")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["c", "b"]
    assert errors == "-- 1 more: --limit 3\n"


@pytest.mark.feature("E01", "S20")
async def test_some_are_found_by_words(three: RunningServer) -> None:
    assert [session["alias"] for session in await objects(three, "rivers", "of")] == ["a"]
    assert [session["alias"] for session in await objects(three, "about b")] == ["b"]
    assert await objects(three, "list", "show") == []
    assert await sessions(three, "nothing like that") == (0, "", "")


async def test_on_a_terminal_they_are_a_table(three: RunningServer) -> None:
    async with terminal("sessions", url=three.url, columns=70) as shown:
        assert await shown.end() == 0
    lines = shown.emulator.lines
    assert lines[0].split() == ["session", "title", "last", "used"]
    assert lines[3].startswith("a        Rivers of France")
    assert lines[3].endswith("just now")
    assert shown.emulator.strange == []
    async with terminal("sessions", "no such", "words", url=three.url) as shown:
        assert await shown.end() == 0
    assert shown.emulator.lines[0] == "-- no session is found"


@pytest.mark.feature("E01", "S20", "S21")
async def test_one_is_shown_and_read(three: RunningServer) -> None:
    code, out, _ = await sessions(three, "show", "a")
    assert code == 0
    shown = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (shown["name"], shown["title"], shown["state"]) == ("a", "Rivers of France", "idle")
    assert (await objects(three, "show", "a"))[0]["id"] == shown["id"]
    code, out, _ = await sessions(three, "history", "a")
    assert code == 0
    assert out.startswith("user> tell me about a\noffline> ")
    assert [message["role"] for message in await objects(three, "history", shown["id"])] == ["user", "assistant"]
    assert [message["role"] for message in await objects(three, "history", "a", "--last", "1")] == ["assistant"]


async def test_the_last_messages_of_a_long_session(server: RunningServer) -> None:
    session = await server.create_session(session_id="long")
    for number in range(12):
        await server.command(session, type="user_message", content=f"calculate {number}+1 then calculate {number}+2")
    assert (await parley("tail", "long", "--after", "0", "--exit-when-idle", PARLEY_URL=server.url))[0] == 0
    everything = await objects(server, "history", "long")
    for count in (1, 7, 40, 1000):
        assert await objects(server, "history", "long", "--last", str(count)) == everything[-count:]


@pytest.mark.feature("E01", "S20")
async def test_deleting_asks_unless_it_is_told_not_to(three: RunningServer) -> None:
    code, out, errors = await sessions(three, "delete", "a")
    assert (code, out) == (2, "")
    assert "say --yes" in errors
    async with terminal("sessions", "delete", "a", "b", url=three.url) as asked:
        await asked.until("Delete these 2 for good? [y/N]")
        asked.say("n")
        assert await asked.end() == 1
    assert len(await objects(three)) == 3
    async with terminal("sessions", "delete", "a", url=three.url) as asked:
        await asked.until("Delete it for good? [y/N]")
        asked.say("y")
        assert await asked.end() == 0
    assert await sessions(three, "delete", "b", "--yes") == (0, "deleted b\n", "")
    assert [session["alias"] for session in await objects(three)] == ["c"]
    assert len(await objects(three, "--all")) == 3


async def test_a_name_that_does_not_exist_deletes_nothing(three: RunningServer) -> None:
    code, out, errors = await sessions(three, "delete", "a", "nope", "--yes")
    assert (code, out, errors) == (1, "", "parley: there is no session 'nope'; yours are listed by: parley sessions\n")
    assert len(await objects(three)) == 3
    for arguments in (("show", "nope"), ("history", "nope"), ("history", "nope", "--last", "3")):
        code, out, errors = await sessions(three, *arguments)
        assert (code, out) == (1, "")
        assert "there is no session 'nope'; yours are listed by: parley sessions" in errors


async def test_wrong_usage_is_exit_code_2(server: RunningServer) -> None:
    for arguments in (
        ("show",),
        ("delete",),
        ("list", "--limit", "0"),
        ("--limit", "x"),
        ("history", "a", "--last", "-1"),
    ):
        code, out, _ = await sessions(server, *arguments)
        assert (code, out) == (2, "")
