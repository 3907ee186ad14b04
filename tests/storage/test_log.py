"""The log and the messages: read by number, in pages without a gap, byte for byte."""

from __future__ import annotations

import pytest

from storage.ids import new_id
from storage.log import NewEvent
from storage.sessions import Session
from storage.turns import Advance
from tests.storage.conftest import Open
from tests.storage.scene import Scene, event

# What JSON columns would reorder, rewrite or refuse; to the log they are bytes.
BODIES = [
    b"{}",
    b'{"b":1,"a":2,"a":3}',
    b'{"n":1.0,"m":1e400,"o":100000000000000000000001}',
    b'{"text":"\\u0000 \\ud800 \\u00e9"}',
    '{"text":"\u00e9\U0001f600"}'.encode(),
    b"\x00\xff not even json",
    b"",
]


async def with_events(scene: Scene, *bodies: bytes) -> Session:
    """A session whose log is two events and then these."""
    session = await scene.session()
    claim = await scene.begun(session)
    if bodies:
        move = Advance(step_state="running", events=[NewEvent("x", body) for body in bodies])
        await scene.turns.advance(claim, move, scene.now())
    return session


@pytest.mark.feature("T02")
async def test_bodies_are_kept_byte_for_byte(scene: Scene) -> None:
    session = await with_events(scene, *BODIES)
    assert [stored.body for stored in await scene.log.read(session.session_id, 2)] == BODIES


async def test_pages_have_no_gap_and_end_where_the_log_ends(scene: Scene) -> None:
    session = await with_events(scene, *(b"x" for _ in range(23)))
    for size in (1, 4, 5, 100):
        read: list[int] = []
        while page := await scene.log.read(session.session_id, len(read), limit=size):
            assert len(page) <= size
            read += [stored.seq for stored in page]
        assert read == list(range(1, 26))
    assert await scene.log.read(session.session_id, 25) == []
    assert await scene.log.read(session.session_id, 10_000) == []
    assert await scene.log.read(new_id(), 0) == []


async def test_a_page_is_bounded_by_bytes_and_never_empty_before_the_end(scene: Scene) -> None:
    large = b"x" * 300_000
    session = await with_events(scene, b"a" * 10, large, b"b" * 10, b"c" * 10, large)

    async def sizes(after: int, max_bytes: int, limit: int = 500) -> list[int]:
        page = await scene.log.read(session.session_id, after, limit=limit, max_bytes=max_bytes)
        assert [stored.seq for stored in page] == list(range(after + 1, after + 1 + len(page)))
        return [len(stored.body) for stored in page]

    assert await sizes(2, 1) == [10]
    assert await sizes(2, 10) == [10]
    # About: the event that reaches over the bound is still in the page.
    assert await sizes(2, 11) == [10, 300_000]
    assert await sizes(3, 1) == [300_000]
    assert await sizes(4, 20) == [10, 10]
    assert await sizes(4, 21) == [10, 10, 300_000]
    assert await sizes(2, 1 << 30, limit=3) == [10, 300_000, 10]


async def test_messages_by_number_and_from_the_end(scene: Scene) -> None:
    session = await scene.session()
    for number in range(4):
        plan = scene.plan(f"question {number}")
        await scene.say(session, f"c{number}", f"question {number}", plan=plan)
        await scene.end(scene.claim(session, plan), f"answer {number}")
    other = await scene.session()
    await scene.begun(other)
    expected = [f"{kind} {number}" for number in range(4) for kind in ("question", "answer")]

    async def page(after: int, limit: int) -> list[str]:
        return [message.content for message in await scene.messages.page(session.session_id, after, limit)]

    assert await page(0, 100) == expected
    stored = await scene.messages.page(session.session_id, 0, 3)
    assert [message.content for message in stored] == expected[:3]
    assert await page(stored[-1].seq, 100) == expected[3:]
    assert [message.content for message in await scene.messages.tail(session.session_id, 3)] == expected[-3:]
    assert await scene.messages.tail(session.session_id, 100) == await scene.messages.page(session.session_id, 0, 100)
    assert await scene.messages.tail(new_id(), 5) == []
    # Each stands at the number of the event that announced it.
    announced = await scene.log.read(session.session_id, 0)
    assert [one.seq for one in announced if one.event_type == "message_created"] == [
        message.seq for message in await scene.messages.page(session.session_id, 0, 100)
    ]


@pytest.mark.feature("T06")
async def test_messages_are_read_up_to_a_size_and_one_in_any_case(scene: Scene) -> None:
    session = await scene.session()
    for number, text in enumerate(["a" * 100, "\u00e9" * 50]):
        plan = scene.plan(text)
        await scene.say(session, f"c{number}", text, plan=plan)
        await scene.end(scene.claim(session, plan), "z" * 100)
    everything = await scene.messages.page(session.session_id, 0, 10)
    assert [message.size for message in everything] == [100] * 4
    for most, count in ((1, 1), (100, 1), (101, 2), (200, 2), (301, 4), (1 << 20, 4)):
        assert await scene.messages.page(session.session_id, 0, 10, most) == everything[:count]
        assert await scene.messages.tail(session.session_id, 10, most) == everything[-count:]


async def test_texts_are_kept_as_they_are(scene: Scene) -> None:
    text = "\u00e9 e\u0301 \U0001f600 \u202e \x01 \x7f \r\n\t '; DROP TABLE messages; --"
    session = await scene.session()
    await scene.say(session, "c", text, plan=scene.plan(text))
    assert [message.content for message in await scene.messages.tail(session.session_id, 1)] == [text]


@pytest.mark.feature("S15", "S16")
async def test_a_history_is_the_same_after_a_restart(opener: Open) -> None:
    before = await opener()
    session = await before.session(alias="mine")
    claim = await before.begun(session)
    await before.turns.advance(claim, Advance(step_state="running", events=[event("x", "y")]), before.now())
    await before.end(claim)
    log, messages = await before.log.read(session.session_id, 0), await before.messages.tail(session.session_id, 9)
    was = await before.sessions.resolve("ada", "mine")
    await before.database.close()

    after = await opener()
    assert await after.log.read(session.session_id, 0) == log
    assert await after.messages.tail(session.session_id, 9) == messages
    assert await after.sessions.resolve("ada", "mine") == was
    assert len(log) == was.seq == 5
