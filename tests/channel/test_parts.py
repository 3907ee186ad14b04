"""The hub's small parts, each on its own."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from protocol.cursor import Cursor
from protocol.delta import utf16_len
from protocol.envelope import Event
from protocol.events import MessageDelta, Part
from server.channel.group import Group
from server.channel.live import LiveTexts
from server.channel.ring import Ring
from server.channel.settings import ChannelSettings
from server.channel.subscriber import Subscriber, Wire
from tests.channel.fakes import FakeTransport

ONE, TWO = UUID(int=1), UUID(int=2)


def event(seq: int, size: int = 0) -> Event:
    return Event("message_created", "s", "t", b'"%s"' % (b"x" * size), cursor=Cursor("e", seq))


def delta(offset: int, text: str, *, message: UUID = ONE, attempt: int = 1, part: Part = "content") -> MessageDelta:
    return MessageDelta(message_id=message, attempt=attempt, part=part, offset=offset, text=text)


def test_a_ring_gives_up_its_oldest_events_for_its_bound() -> None:
    ring = Ring(10 * event(100).size)
    for seq in range(100, 150):
        ring.append(event(seq))
    assert len(ring) == 10
    assert ring.size <= 10 * event(100).size
    assert ring.after(138, 1 << 20) is None
    page = ring.after(139, 1 << 20)
    assert page is not None
    assert [one.seq for one in page] == list(range(140, 150))
    assert ring.after(149, 1 << 20) is None


def test_a_page_is_bounded_but_never_empty() -> None:
    ring = Ring(1 << 20)
    for seq in range(1, 6):
        ring.append(event(seq, 1_000))
    assert [one.seq for one in ring.after(0, 10) or []] == [1]
    assert [one.seq for one in ring.after(0, 2 * event(1, 1_000).size) or []] == [1, 2]


def test_an_event_larger_than_the_ring_leaves_it_empty() -> None:
    ring = Ring(100)
    ring.append(event(1, 1_000))
    assert (len(ring), ring.size, ring.after(0, 1_000)) == (0, 0, None)


def test_a_ring_starts_afresh_after_a_gap() -> None:
    ring = Ring(1 << 20)
    ring.append(event(1))
    ring.append(event(5))
    assert ring.after(0, 1_000) is None
    assert [one.seq for one in ring.after(4, 1_000) or []] == [5]


def test_repeated_and_overlapping_deltas_change_nothing_twice() -> None:
    live = LiveTexts()
    for one in (delta(0, "ab🙂"), delta(0, "ab🙂"), delta(2, "🙂c"), delta(4, "c")):
        live.apply(one)
    assert [one.text for one in live.merged()] == ["ab🙂c"]


def test_parts_and_messages_are_kept_apart() -> None:
    live = LiveTexts()
    live.apply(delta(0, "answer"))
    live.apply(delta(0, "thought", part="reasoning"))
    live.apply(delta(0, "other", message=TWO))
    assert [(one.message_id, one.part, one.text) for one in live.merged()] == [
        (ONE, "content", "answer"),
        (ONE, "reasoning", "thought"),
        (TWO, "content", "other"),
    ]
    live.close(ONE)
    assert len(live) == 1
    live.close(ONE)


def test_a_text_whose_beginning_is_unknown_is_told_from_where_it_is_known() -> None:
    live = LiveTexts()
    live.apply(delta(0, "abc"))
    live.apply(delta(10, "xyz"))
    assert [(one.offset, one.text) for one in live.merged()] == [(10, "xyz")]


@given(st.lists(st.text("aé🙂", min_size=1, max_size=9), max_size=20), st.integers(1, 7), st.integers(0, 20))
def test_what_is_missing_comes_in_pages_that_fit_together(texts: list[str], page: int, start: int) -> None:
    live = LiveTexts()
    offset = 0
    marks = live.marks()
    had = ""
    for number, text in enumerate(texts):
        if number == start:
            marks, had = live.marks(), "".join(texts[:number])
        live.apply(delta(offset, text))
        offset += utf16_len(text)
    complete = False
    while not complete:
        deltas, marks, complete = live.missing(marks, page)
        for one in deltas:
            assert one.offset == utf16_len(had)
            assert len(one.text) <= page
            had += one.text
    assert had == "".join(texts)


def test_a_group_writes_to_who_is_live_and_counts_what_each_was_written() -> None:
    settings = ChannelSettings(high_water=10)
    transports = [
        FakeTransport(Wire("ws-json")),
        FakeTransport(Wire("ws-json"), room=5),
        FakeTransport(Wire("ws-json")),
    ]
    quick, slow, resting = (Subscriber(one, "c", settings, now=0.0) for one in transports)
    group = Group(Wire("ws-json"), settings)
    for one in (quick, slow, resting):
        group.add(one)
    quick.write(b"before")
    group.wake(quick)
    assert list(group.write(b"first", {})) == []
    group.wake(slow)
    assert (group.live, list(group)) == (2, [quick, slow, resting])
    assert list(group.write(b"second second", {quick: b"tail"})) == []
    assert list(group.write(b"third", {})) == [slow]
    group.rest(slow)
    group.write(b"fourth", {quick: b"end"})
    group.remove(quick)
    group.remove(resting)
    assert (group.live, list(group)) == (0, [slow])
    assert [one.data for one in transports] == [
        b"beforefirstsecond secondtailthirdfourthend",
        b"second secondthird",
        b"",
    ]
    assert [one.written for one in (quick, slow, resting)] == [len(one.data) for one in transports]


def test_a_group_writes_nothing_to_a_connection_that_is_lost() -> None:
    transport = FakeTransport(Wire("sse"))
    lost = Subscriber(transport, "c", ChannelSettings(), now=0.0)
    group = Group(Wire("sse"), ChannelSettings())
    group.add(lost)
    group.wake(lost)
    transport.lose()
    group.write(b"gone", {})
    assert transport.data == b""
