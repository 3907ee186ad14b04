"""Text from elsewhere, and small words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.client import Status
from server.agents.offline.samples import EMOJI
from server.cli.chat.status import View, status_line
from server.cli.listing import ago
from server.cli.text import arguments_of, one_line, plain, short_id, shorten


@given(st.text())
def test_nothing_harmful_is_left(text: str) -> None:
    clean = plain(text)
    assert not any(ord(char) < 32 and char not in "\n\t" for char in clean)
    assert not any(
        0x7F <= ord(char) < 0xA0 or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069" for char in clean
    )
    assert plain(clean) == clean
    assert "\n" not in one_line(text)


def test_what_people_write_is_left_alone() -> None:
    for text in (EMOJI, "10\u00a0000 naïve “quoted”", "\u0645\u06cc\u200c\u062e\u0648", "tab\tand\nline"):
        assert plain(text) == text
    assert plain("one\r\ntwo\rthree\u2028four") == "one\ntwo\nthree\nfour"


def test_texts_are_shortened() -> None:
    assert one_line("a \n b\t c") == "a b c"
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"
    assert short_id("01890000-0000-7000-8000-00000000cafe") == "…000cafe"
    assert short_id("ada") == "ada"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({}, ""),
        (None, ""),
        ({"path": "a.py", "line": 3, "deep": {"x": [1]}}, 'path="a.py", line=3, deep={"x": [1]}'),
        ({"content": "x" * 10_000}, 'content="' + "x" * 50 + "…"),
        ({"text": "a\n\x1b[2Jb"}, 'text="a\\n\\u001b[2Jb"'),
        (["a", 1], '["a", 1]'),
        ("not an object", '"not an object"'),
    ],
)
def test_arguments_are_written_as_by_hand(arguments: Any, shown: str) -> None:
    assert arguments_of(arguments) == shown


def test_how_long_ago() -> None:
    now = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)
    for timestamp, words in [
        ("2026-01-02T11:59:30.000Z", "just now"),
        ("2026-01-02T12:00:05.000Z", "just now"),
        ("2026-01-02T11:58:30.000Z", "1 min ago"),
        ("2026-01-02T09:00:00.000Z", "3 h ago"),
        ("2025-12-30T12:00:00.000Z", "3 days ago"),
    ]:
        assert ago(timestamp, now) == words


def line(width: int, status: Status | None = None, **view: Any) -> str:
    shown = View(status or Status("open", "ws"), "01890000-0000-7000-8000-00000000cafe", "coder", **view)
    return "".join(part[1] for part in status_line(shown, width))


def test_the_status_says_as_much_as_fits() -> None:
    busy: dict[str, Any] = {"busy": 12.3, "waiting": 2}
    assert line(80, None, **busy) == "● WebSocket · …00000000cafe · coder · answering 12 s · 2 waiting · Ctrl-C stops"
    assert line(60, None, **busy) == "● WebSocket · …00000000cafe · answering 12 s · 2 waiting"
    assert line(30, None, **busy) == "● WebSocket · answering 12 s"
    assert line(11, None, **busy) == "● WebSocket"
    assert line(5, None, **busy) == "● We…"
    assert (
        line(80, activity="thinking", busy=0.4) == "● WebSocket · …00000000cafe · coder · thinking 0 s · Ctrl-C stops"
    )
    assert line(80, busy=3, stopping=True) == "● WebSocket · …00000000cafe · coder · stopping 3 s · Ctrl-C stops"
    for status, words in [
        (Status("open", "sse"), "● SSE"),
        (Status("reconnecting"), "○ reconnecting"),
        (Status("connecting"), "○ connecting"),
        (Status("closed", reason="gone"), "✗ disconnected"),
    ]:
        assert line(20, status) == words
