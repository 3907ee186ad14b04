from __future__ import annotations

import json
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cursor import Cursor
from protocol.envelope import Event, payload_json
from protocol.errors import ErrorCode, ParleyError
from protocol.events import MessageCreated
from protocol.framing import (
    BATCH_BYTES,
    LAST_CHUNK,
    Framing,
    NdjsonParser,
    SseMessage,
    SseParser,
    chunk,
    frame,
    frame_many,
    ndjson_line,
    split_batch,
    sse_frame,
    ws_batch,
    ws_frame,
)
from tests.protocol.strategies import TEXT, cut, few, payloads

SESSION = "018f0000-0000-7000-8000-00000000000a"
TIME = "2026-01-02T03:04:05.678Z"
CUTS = st.lists(st.integers(0, 100_000), max_size=8)
FRAMINGS: tuple[Framing, ...] = get_args(Framing)


@st.composite
def events(draw: st.DrawFn) -> Event:
    name, payload = draw(payloads())
    seq = draw(st.none() | st.integers(1, 10_000))
    return Event(name, SESSION, TIME, payload_json(payload), cursor=None if seq is None else Cursor("e1", seq))


MANY = st.lists(events(), max_size=5)


def message(text: str) -> Event:
    payload = MessageCreated(message_id=UUID(int=1), role="user", content=text, timestamp=TIME)
    return Event("message_created", SESSION, TIME, payload_json(payload), cursor=Cursor("e1", 7))


def read_ws(data: bytes) -> list[tuple[bool, bytes]]:
    """Whole unfragmented messages of a server: (is text, payload), read as RFC 6455, section 5.2, says."""
    messages = []
    while data:
        first, second, data = data[0], data[1], data[2:]
        assert first in (0x81, 0x82), "FIN, no reserved bits, text or binary"
        assert second < 0x80, "a server does not mask"
        length = second
        if second > 125:
            width = 2 if second == 126 else 8
            length, data = int.from_bytes(data[:width], "big"), data[width:]
            assert length > (125 if width == 2 else 65_535), "the shortest form of the length"
        assert len(data) >= length
        messages.append((first == 0x81, data[:length]))
        data = data[length:]
    return messages


# --- WebSocket


def test_ws_frames_are_the_examples_of_rfc_6455() -> None:
    # Section 5.7.
    assert ws_frame(b"Hello", text=True) == bytes.fromhex("810548656c6c6f")
    assert ws_frame(bytes(256), text=False) == bytes.fromhex("827e0100") + bytes(256)
    assert ws_frame(bytes(65_536), text=False) == bytes.fromhex("827f0000000000010000") + bytes(65_536)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536])
@pytest.mark.parametrize("text", [True, False])
def test_ws_frames_of_every_form_of_length(length: int, text: bool) -> None:
    assert read_ws(ws_frame(b"x" * length, text=text) * 2) == [(text, b"x" * length)] * 2


@pytest.mark.feature("T07")
@few
@given(MANY)
def test_batches_hold_the_events_in_order(many: list[Event]) -> None:
    wanted = [event.json for event in many]
    read = read_ws(frame_many(many, "ws-json-batch"))
    assert [item for text, payload in read if text for item in split_batch(payload)] == wanted
    assert len(read) == bool(many)
    assert all(text for text, _ in read)
    if many:
        assert frame_many(many, "ws-json-batch") == ws_batch(many)


@pytest.mark.feature("T07")
def test_a_batch_stays_below_what_clients_accept() -> None:
    small, large = message("x"), message("y" * BATCH_BYTES)
    many = [small, small, large, small, *[message("z" * 1000)] * 600]
    read = read_ws(frame_many(many, "ws-json-batch"))
    assert [item for _, payload in read for item in split_batch(payload)] == [event.json for event in many]
    assert [len(payload) > BATCH_BYTES for _, payload in read].count(True) == 1
    assert len(read) < 8


@few
@given(MANY)
def test_every_event_has_its_own_message_unless_batched(many: list[Event]) -> None:
    assert read_ws(frame_many(many, "ws-json")) == [(True, event.json) for event in many]
    assert read_ws(frame_many(many, "ws-msgpack")) == [(False, event.msgpack) for event in many]


# --- all framings


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_frame_is_made_once(framing: Framing) -> None:
    event = message("x")
    assert frame(event, framing) is frame(event, framing)
    assert frame(event, framing) == frame_many([event], framing)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_nothing_is_framed_as_nothing(framing: Framing) -> None:
    assert frame_many([], framing) == b""


# --- server-sent events


@pytest.mark.feature("S31")
def test_an_sse_frame_is_event_data_and_a_blank_line() -> None:
    event = Event("session_updated", SESSION, TIME, b'{"title":"a"}')
    assert sse_frame(event) == b"event: session_updated\ndata: " + event.json + b"\n\n"


@pytest.mark.feature("S31", "T02")
def test_only_what_moves_the_cursor_has_an_id_line() -> None:
    durable = Event("session_updated", SESSION, TIME, b"{}", cursor=Cursor("e1", 7))
    assert sse_frame(durable) == b"id: e1.7\nevent: session_updated\ndata: " + durable.json + b"\n\n"
    connected = Event("connected", SESSION, TIME, b'{"cursor":"e1.5"}', sse_id="e1.5")
    assert sse_frame(connected).startswith(b"id: e1.5\nevent: connected\n")
    assert b"id:" not in sse_frame(Event("heartbeat", SESSION, TIME, b"{}"))


@pytest.mark.feature("S31")
@few
@given(MANY, CUTS)
def test_regression_10_an_event_stream_may_be_cut_anywhere(many: list[Event], places: list[int]) -> None:
    parser = SseParser()
    read = [item for piece in cut(frame_many(many, "sse"), places) for item in parser.feed(piece)]
    last = ""
    expected = []
    for event in many:
        last = event.sse_id or last
        expected.append(SseMessage(event.event_type, event.json.decode(), last))
    assert read == expected
    assert parser.last_event_id == last


@given(st.lists(TEXT.map(lambda text: text.replace("\r", "").replace("\n", "")), max_size=4), CUTS)
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_regression_10_lines_end_in_any_of_three_ways(end: bytes, texts: list[str], places: list[int]) -> None:
    data = b"".join(b"data:" + text.encode() + end for text in texts) + end
    parser = SseParser()
    read = [item for piece in cut(data, places) for item in parser.feed(piece)]
    expected = "\n".join(text.removeprefix(" ") for text in texts)
    assert read == ([SseMessage("message", expected, "")] if texts else [])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # The examples of WHATWG HTML, section 9.2.6.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [("message", "YHOO\n+2\n10", "")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [("message", "first event", "1"), ("message", "second event", ""), ("message", " third event", "")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [("message", "", ""), ("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [("message", "test", ""), ("message", "test", "")]),
        # Its rules without an example.
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", [("message", "after a byte order mark", "")]),
        (b"event: x\n\ndata: 1\n\n", [("message", "1", "")]),
        (b"event: x\ndata: 1\n\ndata: 2\n\n", [("x", "1", ""), ("message", "2", "")]),
        (b"id: 1\n\ndata: x\n\n", [("message", "x", "1")]),
        (b"id: 1\0\ndata: x\n\n", [("message", "x", "")]),
        (b"unknown: field\nDATA: no\n data: no\ndata: yes\n\n", [("message", "yes", "")]),
        (b"data: \xff\n\n", [("message", "\ufffd", "")]),
        (b"data: unfinished\n", []),
    ],
)
def test_the_reader_reads_as_browsers_do(stream: bytes, expected: list[tuple[str, str, str]]) -> None:
    whole, bytewise = SseParser(), SseParser()
    assert whole.feed(stream) == expected
    assert [item for byte in stream for item in bytewise.feed(bytes([byte]))] == expected


def test_an_id_counts_when_its_message_is_complete() -> None:
    parser = SseParser()
    parser.feed(b"id: 1\ndata: x\n\nid: 2\ndata: y")
    assert parser.last_event_id == "1"
    parser.feed(b"\n\n")
    assert parser.last_event_id == "2"


def test_the_server_may_ask_for_a_delay() -> None:
    parser = SseParser()
    parser.feed(b"retry: 1500\n")
    assert parser.retry_ms == 1500
    for nonsense in (b"retry: -1\n", b"retry: 1.5\n", b"retry\n", b"retry: \xd9\xa3\n"):
        parser.feed(nonsense)
    assert parser.retry_ms == 1500


def test_a_stream_without_ends_does_not_fill_the_memory() -> None:
    for piece in (b"data: xxxxxxxxxx", b"data: xxxxxxxxxx\n"):
        parser = SseParser(max_bytes=100)
        parser.feed(piece * 4)
        with pytest.raises(ParleyError) as caught:
            parser.feed(piece * 8)
        assert caught.value.code is ErrorCode.TOO_LARGE
    # What is complete is forgotten.
    parser = SseParser(max_bytes=100)
    assert sum(len(parser.feed(b"data: xxxxxxxxxx\n\n")) for _ in range(100)) == 100


# --- newline-delimited JSON


@pytest.mark.feature("S08")
def test_an_ndjson_line_is_the_event_and_a_newline() -> None:
    event = message("two\nlines")
    assert ndjson_line(event) == event.json + b"\n"
    assert ndjson_line(event).count(b"\n") == 1


@pytest.mark.feature("S08")
@few
@given(MANY, CUTS)
def test_regression_10_ndjson_may_be_cut_anywhere(many: list[Event], places: list[int]) -> None:
    parser = NdjsonParser()
    read = [item for piece in cut(frame_many(many, "ndjson"), places) for item in parser.feed(piece)]
    assert read == [event.json for event in many]


@pytest.mark.feature("S08")
def test_regression_10_ndjson_byte_by_byte_with_characters_of_every_width() -> None:
    event = message("a é 日 😀 \u2028")
    parser = NdjsonParser()
    read = [item for byte in ndjson_line(event) * 2 for item in parser.feed(bytes([byte]))]
    assert read == [event.json, event.json]
    assert json.loads(read[0])["payload"]["content"] == "a é 日 😀 \u2028"


def test_ndjson_of_other_hands() -> None:
    parser = NdjsonParser()
    assert parser.feed(b'\n{"a":\r1}\r\n  \n{"b":2}') == [b'{"a":\r1}']
    assert parser.feed(b"\n") == [b'{"b":2}']


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    parser = NdjsonParser(max_bytes=100)
    parser.feed(b"x" * 100)
    with pytest.raises(ParleyError) as caught:
        parser.feed(b"x")
    assert caught.value.code is ErrorCode.TOO_LARGE


# --- HTTP/1.1 chunks


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_chunks_are_read_as_rfc_9112_says(parts: list[bytes]) -> None:
    data = b"".join(map(chunk, parts)) + LAST_CHUNK
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body += data[:length]
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
        if not length:
            break
    assert (body, data) == (b"".join(parts), b"")
