"""Markdown that is being written: what is printed once and for good, and what is drawn again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.agents.offline import samples
from server.cli.growing import Growing
from server.cli.markdown import Painter

PAINTER = Painter(60)


def printed(pieces: Iterable[str], tallest: int = 8) -> Iterator[str]:
    """The rows that are printed when a text comes in these pieces; what is open in between is checked to be small."""
    growing = Growing()
    is_first = True
    for text in [*pieces, None]:
        if text is not None:
            finished = growing.add(text) + growing.cut(PAINTER.markdown, tallest)
        else:
            finished = growing.finish(PAINTER.markdown, tallest)
        for piece in finished:
            if not (is_first or piece.joined):
                yield ""
            is_first = False
            yield from (row.text for row in PAINTER.markdown(piece.source))


def whole(text: str) -> list[str]:
    return [row.text for row in PAINTER.markdown(text)]


def in_steps(text: str, step: int) -> list[str]:
    return [text[at : at + step] for at in range(0, len(text), step)]


CODE = "```python\n" + "".join(f"def f{number}():\n    return {number}\n\n" for number in range(30)) + "```\n"
ESSAY = "".join(samples.essay("rivers", 600))
TABLE = "| a | b |\n|---|---:|\n" + "".join(f"| row {number} | {number} |\n" for number in range(60))


@pytest.mark.parametrize("step", [1, 37, 100_000])
@pytest.mark.parametrize(
    "text",
    [
        samples.MARKDOWN,
        samples.EMOJI,
        ESSAY,
        CODE,
        TABLE,
        f"Before.\n\n{CODE}\nBetween.\n{TABLE}\nAfter.",
        " ".join(map(str, range(800))),
        "漢字" * 900,
        "x" * 3000,
        "> quoted\n" * 40,
        "- item\n" * 30,
        "1. one\n1. two\n1. three\n",
        "3) three\n4) four\n",
        "A line\nthat is followed by a list:\n- a\n- b\n\nA heading\n===\n\nSetext\n---\n",
        "Some `code **and` stars ** and * more *emphasis* and __underscores__\n" * 20,
        "---\n\n***\n\n# one\n## two\n",
        "",
        "   \n\n",
        "\r\ntext\r\nwith\rbreaks",
    ],
)
def test_what_is_printed_is_what_a_whole_text_looks_like(text: str, step: int) -> None:
    # Letter by letter the long ones take long, and show no more.
    step = step if len(text) < 600 else max(step, 7)
    assert [row for row in printed(in_steps(text, step)) if row] == [row for row in whole(text) if row]


BLOCKS = st.sampled_from(
    [
        "A paragraph of *some* words, with `code`, that is long enough to be wrapped once or twice in a narrow place.",
        "Short.",
        "two\nlines",
        "# Heading",
        "- a\n- b\n  - c\n\n  more\n- d",
        "1. one\n2. two\n\n   and a half\n3. three",
        "```\ncode\n\n  more code\n```",
        "~~~py\nx = '''\n```\n'''\n~~~",
        "> quote\n> more",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "***",
        "<div>\nhtml\n</div>",
        "    indented code",
        " ".join(f"word{number}" for number in range(120)),
    ]
)


@given(st.lists(BLOCKS, max_size=8).map("\n\n".join), st.lists(st.integers(1, 60), min_size=1))
def test_no_word_is_lost_or_repeated(text: str, steps: list[int]) -> None:
    pieces: list[str] = []
    at = 0
    while at < len(text):
        step = steps[len(pieces) % len(steps)]
        pieces.append(text[at : at + step])
        at += step
    assert " ".join(printed(pieces)).split() == " ".join(whole(text)).split()


@given(st.text(max_size=300), st.integers(1, 40))
def test_any_text_is_taken(text: str, step: int) -> None:
    list(printed(in_steps(text, step), tallest=2))


def test_what_is_open_stays_small() -> None:
    for text in (ESSAY, CODE, " ".join(map(str, range(800))), "> quoted\n" * 40, "- item\n" * 30):
        growing = Growing()
        for piece in in_steps(text, 5):
            growing.add(piece)
            growing.cut(PAINTER.markdown, 8)
            assert len(PAINTER.markdown(growing.open.source)) <= 8


def test_a_table_is_left_whole_until_it_is_very_long() -> None:
    assert len([row for row in printed(in_steps(TABLE, 9)) if row.startswith("a")]) == 1
    rows = "".join(f"| row {number} | {number} |\n" for number in range(300))
    long = list(printed(in_steps("| a | b |\n|---|---:|\n" + rows, 50)))
    assert 1 < len([row for row in long if row.startswith("a")]) < 10
    assert [row.split()[1] for row in long if row.startswith("row")] == [str(number) for number in range(300)]


@pytest.mark.parametrize("end", ["-", "- ", "1", "1.", "#", "##", "```", "=", "***", "> ", "|", "| --- | -"])
def test_a_line_that_may_become_anything_is_not_drawn_yet(end: str) -> None:
    growing = Growing()
    growing.add(f"Some text\n{end}")
    assert growing.open.source == "Some text"


def test_what_no_rule_can_cut_is_cut_in_the_end() -> None:
    growing = Growing()
    growing.add("- " + "a\n  > b\n" * 6000)
    pieces = growing.cut(PAINTER.markdown, 8)
    assert pieces
    assert len(growing.open.source) <= 20_000
