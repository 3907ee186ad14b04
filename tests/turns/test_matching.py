"""Patterns over arguments."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.turns.matching import glob, matches, text_of


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("", "", True),
        ("", "a", False),
        ("*", "", True),
        ("*", "a\nb", True),
        ("a", "ab", False),
        ("a*", "ab", True),
        ("*b", "ab", True),
        ("a*b", "ab", True),
        ("a*b", "a", False),
        ("ab*b", "ab", False),
        ("a?c", "a\nc", True),
        ("a?c", "ac", False),
        ("*.md", "x.md", True),
        ("*.md", "x.mdx", False),
        ("*.md", "xamd", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("\\?", "\\x", True),
        ("a**b", "axxb", True),
        ("*a*a*a*", "aa", False),
    ],
)
def test_a_pattern_is_as_it_says(pattern: str, text: str, *, fits: bool) -> None:
    assert glob(pattern, text) is fits


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=12))
def test_a_pattern_is_what_the_expression_would_be(pattern: str, text: str) -> None:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert glob(pattern, text) is (re.fullmatch(expression, text, re.DOTALL) is not None)


def test_no_pattern_takes_long() -> None:
    text = "a" * 1_000_000
    assert not glob("*a" * 400 + "b", text)
    assert not glob("a*" * 400 + "b", text)
    assert glob("*" + "a?" * 100, text)


def test_values_are_matched_as_their_text() -> None:
    assert text_of("a b") == "a b"
    assert text_of({"b": [1, None], "a": "ä"}) == '{"a":"ä","b":[1,null]}'
    assert matches(
        "x", {"n": "1?", "on": "true", "o": '{"a":*}'}, {"n": 12, "on": True, "o": {"a": 1}}, permitting=True
    )
    assert not matches("x", {"n": "1"}, {"n": "2"}, permitting=True)
