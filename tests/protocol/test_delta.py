from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.delta import MessageText, TextCounter, merge, split, split_text, tail, utf16_len
from protocol.events import MessageCreated, MessageDelta, Part, ToolCallRequest
from tests.protocol.strategies import TEXT, deltas

MESSAGE = UUID("018f0000-0000-7000-8000-000000000001")
TIME = "2026-01-02T03:04:05.678Z"
PARTS: list[tuple[Part, str | None]] = [
    ("content", None),
    ("reasoning", None),
    ("arguments", "call_a"),
    ("arguments", "call_b"),
]
PIECES = st.lists(TEXT.filter(bool), min_size=1, max_size=6)


def delta(offset: int, text: str, attempt: int = 1, part: Part = "content", call_id: str | None = None) -> MessageDelta:
    return MessageDelta(message_id=MESSAGE, attempt=attempt, part=part, call_id=call_id, offset=offset, text=text)


def stream(
    pieces: Sequence[str], attempt: int = 1, part: Part = "content", call_id: str | None = None
) -> list[MessageDelta]:
    """The deltas that a server sends for a text in pieces."""
    counter = TextCounter()
    return [delta(counter.add(piece), piece, attempt, part, call_id) for piece in pieces]


def message(content: str) -> MessageCreated:
    return MessageCreated(message_id=MESSAGE, role="assistant", content=content, timestamp=TIME, finish_reason="stop")


# --- counting and cutting


@given(TEXT)
def test_lengths_are_those_of_javascript(text: str) -> None:
    assert utf16_len(text) == sum(2 if ord(character) > 0xFFFF else 1 for character in text)
    counter = TextCounter()
    assert [counter.add(character) for character in text] == [utf16_len(text[:index]) for index in range(len(text))]
    assert counter.length == utf16_len(text)


@given(TEXT, st.integers(-3, 50))
def test_a_cut_parts_no_pair(text: str, units: int) -> None:
    head, rest = split_text(text, units)
    assert head + rest == text
    wanted = max(0, min(units, utf16_len(text)))
    assert utf16_len(head) in (wanted, wanted - 1)
    if utf16_len(head) < wanted:
        assert ord(rest[0]) > 0xFFFF


@given(deltas(), st.integers(0, 50))
def test_what_is_split_merges_again(whole: MessageDelta, units: int) -> None:
    head, rest = split(whole, units)
    assert utf16_len(head.text) <= units
    assert merge(head, rest) == whole
    assert merge(rest, head) == whole


@given(st.integers(0, 5), TEXT, st.integers(0, 60))
def test_a_tail_is_what_a_reader_lacks(offset: int, text: str, length: int) -> None:
    lacking = tail(delta(offset, text), length)
    if lacking is None:
        beyond = not offset <= length < offset + utf16_len(text)
        inside_a_pair = utf16_len(split_text(text, length - offset)[0]) != length - offset
        assert beyond or inside_a_pair
    else:
        assert lacking.offset == length
        assert lacking.text
        assert text.endswith(lacking.text)
        assert lacking.offset + utf16_len(lacking.text) == offset + utf16_len(text)


# --- merging


@given(PIECES, st.data())
def test_merging_any_overlapping_pieces_of_a_text_says_what_both_say(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    bounds = st.integers(0, len(text))
    (a, b), (c, d) = sorted([data.draw(bounds), data.draw(bounds)]), sorted([data.draw(bounds), data.draw(bounds)])
    first, second = (delta(utf16_len(text[:start]), text[start:end]) for start, end in ((a, b), (c, d)))
    merged = merge(first, second)
    assert merged == merge(second, first)
    if max(a, c) <= min(b, d):
        assert merged == delta(utf16_len(text[: min(a, c)]), text[min(a, c) : max(b, d)])
    else:
        assert merged is None


@given(PIECES)
def test_merging_a_whole_stream_gives_the_whole_text(pieces: list[str]) -> None:
    def both(a: MessageDelta, b: MessageDelta) -> MessageDelta:
        merged = merge(a, b)
        assert merged is not None
        return merged

    assert reduce(both, stream(pieces)) == delta(0, "".join(pieces))
    assert reduce(both, reversed(stream(pieces))) == delta(0, "".join(pieces))


@pytest.mark.parametrize(
    "other",
    [
        delta(1, "b", attempt=2),
        delta(1, "b", part="reasoning"),
        delta(1, "b", part="arguments", call_id="x"),
        replace(delta(1, "b"), message_id=UUID(int=7)),
        delta(2, "b"),
    ],
)
def test_what_does_not_belong_together_does_not_merge(other: MessageDelta) -> None:
    assert merge(delta(0, "a"), other) is None
    assert merge(other, delta(0, "a")) is None


def test_a_sender_that_counts_wrongly_is_not_believed() -> None:
    # The second delta claims to begin in the middle of a pair.
    assert merge(delta(0, "a"), delta(0, "😀x")) is None
    assert merge(delta(0, "ab"), delta(1, "😀x")) is None
    assert tail(delta(0, "😀x"), 1) is None


# --- putting together


@pytest.mark.feature("A01")
@pytest.mark.parametrize(("part", "call_id"), PARTS)
@given(pieces=PIECES)
def test_a_stream_gives_its_text(part: Part, call_id: str | None, pieces: list[str]) -> None:
    text = MessageText(MESSAGE)
    assert {text.apply(piece) for piece in stream(pieces, 1, part, call_id)} == {"appended"}
    assert text.text(part, call_id) == "".join(pieces)
    assert text.length(part, call_id) == utf16_len("".join(pieces))
    assert not text.gap


@given(st.data())
def test_any_loss_repetition_reordering_and_merging_ends_in_a_right_beginning(data: st.DataObject) -> None:
    """Whatever happens to deltas on the way, what stands there is a beginning of the text, and a hole is known."""
    pieces = data.draw(PIECES)
    whole = "".join(pieces)
    sent = stream(pieces)
    # Each delivery is a run of deltas, merged; runs are lost, repeated and out of order.
    runs = st.tuples(st.integers(0, len(sent) - 1), st.integers(1, len(sent)))
    text = MessageText(MESSAGE)
    reached = 0
    for start, count in data.draw(st.lists(runs, max_size=10)):
        arrived = sent[start : start + count]
        merged = reduce(lambda a, b: merge(a, b) or pytest.fail("neighbours merge"), arrived)
        before = text.length()
        applied = text.apply(merged)
        reached = max(reached, merged.offset + utf16_len(merged.text))
        assert whole.startswith(text.text())
        assert text.length() == utf16_len(text.text())
        assert applied == ("appended" if text.length() > before else "gap" if merged.offset > before else "ignored")
        assert text.gap == (text.length() < reached)
    healer = data.draw(st.sampled_from(["merged", "durable"]))
    if healer == "merged":
        text.apply(delta(0, whole))
    else:
        text.close(message(whole))
    assert text.text() == whole
    assert not text.gap


@given(st.data())
def test_parts_and_calls_do_not_disturb_each_other(data: st.DataObject) -> None:
    wanted = {key: data.draw(PIECES) for key in PARTS}
    waiting = {key: stream(pieces, 1, *key) for key, pieces in wanted.items()}
    text = MessageText(MESSAGE)
    while any(waiting.values()):
        key = data.draw(st.sampled_from([key for key in PARTS if waiting[key]]))
        assert text.apply(waiting[key].pop(0)) == "appended"
    assert {key: text.text(*key) for key in PARTS} == {key: "".join(pieces) for key, pieces in wanted.items()}
    # What somebody who comes late is given is the same.
    late = MessageText(MESSAGE)
    assert {late.apply(merged) for merged in text.deltas()} == {"appended"}
    assert {key: late.text(*key) for key in PARTS} == {key: text.text(*key) for key in PARTS}
    assert [(merged.offset, merged.attempt) for merged in text.deltas()] == [(0, 1)] * len(PARTS)


@given(st.data())
def test_the_highest_attempt_counts_whatever_the_order(data: st.DataObject) -> None:
    texts = {attempt: "".join(data.draw(PIECES)) for attempt in (1, 2, 3)}
    order = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=8))
    text = MessageText(MESSAGE)
    for index, attempt in enumerate(order):
        applied = text.apply(delta(0, texts[attempt], attempt))
        highest = max([0, *order[:index]])
        if attempt > highest:
            assert applied == ("restarted" if highest else "appended")
        else:
            assert applied == "ignored"
    assert text.attempt == max(order)
    assert text.text() == texts[max(order)]


def test_a_newer_attempt_that_begins_with_a_hole_is_a_gap_and_forgets_the_older_one() -> None:
    text = MessageText(MESSAGE)
    assert text.apply(delta(0, "old")) == "appended"
    assert text.apply(delta(3, "new", attempt=2)) == "gap"
    assert (text.text(), text.attempt, text.gap) == ("", 2, True)
    assert text.apply(delta(0, "brandnew", attempt=2)) == "appended"
    assert (text.text(), text.gap) == ("brandnew", False)


def test_the_rule_to_the_letter() -> None:
    text = MessageText(MESSAGE)
    assert text.apply(delta(0, "abc")) == "appended"
    assert text.apply(delta(0, "abc")) == "ignored"
    assert text.apply(delta(1, "bc")) == "ignored"
    assert text.apply(delta(3, "")) == "ignored"
    assert text.apply(delta(4, "e")) == "gap"
    assert text.gap
    assert text.apply(delta(2, "cd")) == "appended"
    assert text.text() == "abcd"
    assert text.gap, "the e is still missing"
    assert text.apply(delta(0, "abcde")) == "appended"
    assert not text.gap


@pytest.mark.feature("A01")
def test_the_durable_message_has_the_last_word() -> None:
    text = MessageText(MESSAGE)
    text.apply(delta(0, "half of it and mor"))
    text.apply(delta(0, '{"a', part="arguments", call_id="call_a"))
    text.close(
        replace(
            message("half of it"),
            reasoning="because",
            tool_calls=[ToolCallRequest(call_id="call_a", name="read_file", arguments='{"a":1}')],
        )
    )
    assert text.closed
    assert text.text() == "half of it"
    assert text.text("reasoning") == "because"
    assert text.text("arguments", "call_a") == '{"a":1}'
    assert text.apply(delta(0, "half of it and more", attempt=9)) == "ignored"
    assert text.text() == "half of it"
    assert text.text("arguments", "another") == ""
    assert text.length("arguments", "another") == 0


def test_a_delta_of_another_message_is_a_bug() -> None:
    with pytest.raises(ValueError, match="was applied to"):
        MessageText(UUID(int=7)).apply(delta(0, "x"))
