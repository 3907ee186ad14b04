"""`GET /sessions?q=`: sessions by what was said in them."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from server.config import AuthSettings, TokenSettings
from tests.auth.door import ADA, BOB
from tests.rest.test_sessions import ask, finished
from tests.support.server import MakeServer, RunningServer


async def search(server: RunningServer, q: str, **query: Any) -> Any:
    """What is found, as it is answered."""
    status, found = await ask(server, "GET", f"/sessions?{urlencode({'q': q, **query})}")
    assert status == 200, found
    return found


async def said(server: RunningServer, *texts: str, **body: Any) -> str:
    """A session with these messages, each echoed."""
    session = await server.create_session(agent_type="offline", **body)
    for number, text in enumerate(texts, 1):
        await server.command(session, type="user_message", content=f"echo {text}")
        await finished(server, session, number)
    return session


@pytest.mark.feature("S20")
async def test_sessions_are_found_by_title_name_id_and_text(server: RunningServer) -> None:
    rivers = await said(server, "nothing", "The Loire is long", title="About Rivers")
    named = await said(server, "nothing", session_id="loire-valley")
    await said(server, "nothing", title="Other")
    found = await search(server, "LOIRE")
    assert [session["id"] for session in found["sessions"]] == [named, rivers]
    assert (found["total"], found["limit"], found["offset"], found["complete"]) == (2, 100, 0, True)
    by_name, by_text = (session["match"] for session in found["sessions"])
    assert by_name == {"field": "alias"}
    _, history = await ask(server, "GET", f"/sessions/{rivers}/history")
    newest = history["messages"][-1]
    assert by_text == {
        "field": "message",
        "message_id": newest["message_id"],
        "role": "assistant",
        "excerpt": "The Loire is long",
    }
    assert [session["match"] for session in (await search(server, " rivers "))["sessions"]] == [{"field": "title"}]
    for text in (rivers, rivers.upper()):
        [session] = (await search(server, text))["sessions"]
        assert (session["id"], session["match"]) == (rivers, {"field": "id"})
        assert session == (await ask(server, "GET", "/sessions?limit=1&offset=2"))[1]["sessions"][0] | {
            "match": {"field": "id"}
        }
    # What two ids have in common is no search for an id.
    assert (await search(server, rivers[:4]))["total"] == 0
    assert await search(server, "the Seine") == {
        "sessions": [],
        "total": 0,
        "limit": 100,
        "offset": 0,
        "complete": True,
    }


async def test_what_is_looked_for_is_text_not_a_pattern(server: RunningServer) -> None:
    for text in ("100% sure", "snake_case", r"C:\Users", 'it\'s "quoted"', "null", "Straße ÉTÉ 東京 👋"):
        await said(server, text)
    for q, total in (
        ("%", 1),
        ("100%", 1),
        ("0% s", 1),
        ("_", 1),
        ("e_c", 1),
        ("snake%", 0),
        ("\\", 1),
        ("c:\\u", 1),
        ("'", 1),
        ('"', 1),
        ("null", 1),
        ("été", 1),
        ("京 👋", 1),
        ("echo", 6),
    ):
        assert (await search(server, q))["total"] == total, q


async def test_an_excerpt_is_cut_around_what_was_found(server: RunningServer) -> None:
    await said(server, f"{'before ' * 1000}needle{' after' * 1000}")
    [session] = (await search(server, "NEEDLE"))["sessions"]
    excerpt = session["match"]["excerpt"]
    assert excerpt.startswith("…")
    assert excerpt.endswith("…")
    assert " before needle after " in excerpt
    assert len(excerpt) == 202


@pytest.mark.feature("S20")
async def test_regression_24_what_is_found_comes_page_by_page_with_its_total(server: RunningServer) -> None:
    made = [await said(server, f"thing {number}") for number in range(5)]
    await ask(server, "DELETE", f"/sessions/{made.pop()}")
    pages = [await search(server, "thing", limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [session["id"] for page in pages for session in page["sessions"]] == made[::-1]
    assert [(len(page["sessions"]), page["total"]) for page in pages] == [(2, 4), (2, 4), (0, 4)]
    # Of a deleted session nothing is left to be found.
    assert (await search(server, "thing", active_only="false"))["total"] == 4


@pytest.mark.feature("S37")
async def test_nobody_finds_what_others_said(make_server: MakeServer) -> None:
    entries = (TokenSettings(user="ada", token=ADA), TokenSettings(user="bob", token=BOB))
    server = await make_server(auth=AuthSettings(tokens=entries))
    ada, bob = ({"headers": {"Authorization": f"Bearer {token}"}} for token in (ADA, BOB))
    _, made = await ask(server, "POST", "/sessions", json={"session_id": "secret-name", "title": "secret"}, **ada)
    assert (await ask(server, "GET", "/sessions?q=secret", **ada))[1]["total"] == 1
    for q in ("secret", made["id"]):
        assert (await ask(server, "GET", f"/sessions?q={q}", **bob))[1]["total"] == 0
        assert (await ask(server, "GET", f"/sessions?q={q}"))[0] == 401
