from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.cursor import MAX_SEQ, Cursor, parse_cursor
from protocol.errors import ErrorCode, ParleyError


@pytest.mark.feature("T02")
@given(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), st.integers(0, MAX_SEQ))
def test_cursors_survive_a_round_trip(epoch: str, seq: int) -> None:
    cursor = Cursor(epoch, seq)
    assert parse_cursor(str(cursor)) == cursor


@given(st.integers(0, MAX_SEQ))
def test_a_bare_number_is_of_no_epoch(seq: int) -> None:
    assert parse_cursor(str(seq)) == seq


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1.",
        ".1",
        "-1",
        "1.-1",
        "a",
        "a.b",
        "1.2.3",
        " 1",
        "1\n",
        "1.2\n",
        "é.1",
        "٣",
        "1.٣",
        str(MAX_SEQ + 1),
        "9" * 5000,
        "a" * 65 + ".1",
        "2026-01-02T03:04:05.678Z",
    ],
)
def test_regression_06_anything_else_is_refused_times_above_all(text: str) -> None:
    with pytest.raises(ParleyError) as caught:
        parse_cursor(text)
    assert caught.value.code is ErrorCode.INVALID


def test_cursors_of_one_epoch_are_in_order() -> None:
    assert Cursor("1", 9) < Cursor("1", 10)
