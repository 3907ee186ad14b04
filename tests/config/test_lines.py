"""Lines of keys in TOML: the reader finds what `tomllib` finds, and where it is."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from server.config.lines import find_lines
from server.config.sources import Place

DOCUMENT = '''\
# port = 1
top = 1  # [not] a = header
"quoted key" = "with \\" and [brackets] = {braces} # no remark"
'literal.key' = 'C:\\temp'  # one name, not two
a.b . "c d" = { x = 1, y.z = [1, 2, { w = 3 }] }

[table]
text = """
[no.header]
key = 1
\\"""
"quotes" at the end"""""
after = \'\'\'
# no remark
x = 1\'\'\'
list = [
  1, # [2]
  "]",
  { user = "ada" },

  { user = "bob", more = [ { deep = 1 } ] },
]
date = 1979-05-27T07:32:00-08:00
number = 1_000.5e-3

[ table . "inner table" ]
x = 0x_f
[[array]]
n = 1
[array.sub]
n = 2
[[array.sub2]]
n = 3

[[array]]
n = 4
[[array.sub2]]
n = 5
[[array.sub2]]
n = 6
'''.replace("0x_f", "0xf")


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """All places in a value, except the document itself."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from places(item, (*place, name))


def test_every_key_and_table_has_a_line() -> None:
    assert set(places(tomllib.loads(DOCUMENT))) == set(find_lines(DOCUMENT))


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("top",), "top = 1"),
        (("quoted key",), '"quoted key" = '),
        (("literal.key",), "'literal.key' = "),
        (("a", "b", "c d", "y", "z", 2, "w"), "a.b"),
        (("table",), "[table]"),
        (("table", "text"), 'text = """'),
        (("table", "after"), "after = "),
        (("table", "list", 0), "  1, # [2]"),
        (("table", "list", 3, "more", 0, "deep"), '  { user = "bob"'),
        (("table", "number"), "number = "),
        (("table", "inner table", "x"), "x = 0xf"),
        (("array", 0, "n"), "n = 1"),
        (("array", 0, "sub", "n"), "n = 2"),
        (("array", 1, "n"), "n = 4"),
        (("array", 0, "sub2", 0, "n"), "n = 3"),
        (("array", 1, "sub2", 1, "n"), "n = 6"),
    ],
    ids=str,
)
def test_the_line_is_the_one_where_it_stands(place: Place, text: str) -> None:
    line = find_lines(DOCUMENT)[place]
    assert DOCUMENT.splitlines()[line - 1].startswith(text)


@pytest.mark.parametrize(
    "text", ["", "\n\n# only a remark", "a = 1", "a = []\nb = {}\nc = [[], [[]]]\r\nd = ''", "[a]"]
)
def test_small_documents(text: str) -> None:
    assert set(places(tomllib.loads(text))) == set(find_lines(text))
