from __future__ import annotations

import unicodedata
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agents.offline.samples import EMOJI, MARKDOWN
from server.agents.offline.tokens import Pacer, clusters, shorten, tokens
from tests.agents.support import Clock

ODD = st.text(alphabet=st.sampled_from("ab \n\r\t\u0301\u200d\ufe0f👩🏽👧🇫🇷🇯한\u1161\u11a8नि😀"))


@given(st.text() | ODD)
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert "".join(clusters(text)) == text
    assert all(tokens(text))


@given(st.text() | ODD)
def test_no_piece_starts_in_the_middle_of_a_character(text: str) -> None:
    for piece in list(tokens(text))[1:]:
        assert unicodedata.category(piece[0]) not in {"Mn", "Me", "Mc"}
        assert piece[0] not in "\u200d\ufe0f🏽\u1161\u11a8"
    for before, after in zip(list(tokens(text)), list(tokens(text))[1:], strict=False):
        assert not (before[-1] == "\r" and after[0] == "\n")
        assert before[-1] != "\u200d" or after[0] < "\u0300"


@pytest.mark.parametrize(
    "character",
    ["a", "e\u0301", "q\u0307\u0323", "👩‍👩‍👧‍👦", "👩🏽‍💻", "🏳️‍🌈", "🇫🇷", "👋🏿", "한", "\u1112\u1161\u11ab", "\r\n",
     "नि", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"],
)  # fmt: skip
def test_one_character_of_a_reader_is_one_cluster(character: str) -> None:
    assert list(clusters(character * 3)) == [character] * 3


def test_words_come_in_pieces_with_the_space_before_them() -> None:
    assert list(tokens("Hello,  wonderful world\n")) == ["Hello,", "  wonder", "ful", " world", "\n"]
    assert list(tokens("né trois")) == ["né", " trois"]
    assert list(tokens("éééééééé")) == ["éééééé", "éé"]
    assert list(tokens("")) == []
    assert len(list(tokens(EMOJI))) > 40
    assert len(list(tokens(MARKDOWN))) > 40


def test_shorten_counts_what_people_count() -> None:
    assert shorten("a\n b", 10) == "a b"
    assert shorten("👩🏽‍💻" * 4, 4) == "👩🏽‍💻" * 4
    assert shorten("👩🏽‍💻" * 5, 4) == "👩🏽‍💻" * 4 + "…"


async def released(clock: Clock, speed: float, count: int) -> None:
    pacer = Pacer(speed, clock.sleep, clock.now)
    for _ in range(count):
        await pacer.wait()


@pytest.mark.parametrize("speed", [1, 20, 60, 333])
async def test_tokens_come_at_the_speed_that_is_set(speed: float) -> None:
    clock = Clock()
    await released(clock, speed, 101)
    assert sum(clock.sleeps) == pytest.approx(100 / speed, abs=0.003)
    assert len(clock.sleeps) <= 100


async def test_fast_streams_sleep_seldom_and_keep_their_speed() -> None:
    clock = Clock()
    await released(clock, 10_000, 10_001)
    assert sum(clock.sleeps) == pytest.approx(1.0, abs=0.005)
    assert len(clock.sleeps) < 1000


async def test_as_fast_as_possible_still_lets_others_run() -> None:
    clock = Clock()
    await released(clock, 0, 1000)
    assert set(clock.sleeps) == {0}
    assert 20 <= len(clock.sleeps) <= 40


async def test_a_late_wake_up_is_made_up_for() -> None:
    clock = Clock()
    pacer = Pacer(10, clock.sleep, clock.now)
    await pacer.wait()
    clock.time += timedelta(seconds=0.25)
    await pacer.wait()
    await pacer.wait()
    assert clock.sleeps == []
    await pacer.wait()
    assert clock.sleeps == [pytest.approx(0.05)]


@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_clock_that_is_set_neither_stops_the_stream_nor_floods_it(jump: int) -> None:
    clock = Clock()
    pacer = Pacer(10, clock.sleep, clock.now)
    for _ in range(5):
        await pacer.wait()
    clock.time += timedelta(seconds=jump)
    clock.sleeps.clear()
    for _ in range(10):
        await pacer.wait()
    assert sum(clock.sleeps) == pytest.approx(1.0, abs=0.11)
    assert max(clock.sleeps) <= 0.11


async def test_a_clock_that_stands_still_does_not_stop_the_stream() -> None:
    clock = Clock()
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)

    pacer = Pacer(10, sleep, clock.now)
    for _ in range(100):
        await pacer.wait()
    assert max(sleeps) <= 0.21
