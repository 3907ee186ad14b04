"""Markdown that is still being written: which of it is finished for good, and what may yet change.

A terminal cannot take back what has scrolled away. So of a text that grows only its last block (a paragraph, a list
item, a table) is drawn again and again; what stands before it is printed once. A last block that grows too tall is cut
where its rows can no longer change, so that it scrolls too.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from server.cli.markdown import Row, parse
from server.cli.text import plain

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["Growing", "Piece"]

#: The last line, where it is too short to tell what it begins: a list, a rule, a heading underlined, a table's rule.
_UNDECIDED: Final = re.compile(r"(?:\A|\n)[ \t]*(?:[-=*+_>#`~|: \t]+|\d{1,9}[.)]?[ \t]*)\Z")
#: What would mean something else at the beginning of a line than in its middle.
_BEGINS_BLOCK: Final = re.compile(r"[-+*>#|=~`_\[<]|\d{1,9}[.)]")
_NUMBER: Final = re.compile(r"\d{1,9}(?=[.)])")
#: Characters of a last block that are looked at in one go when it is cut.
_WINDOW: Final = 8_000
#: Characters after which a last block that cannot be cut well is cut anyhow, after a line.
_LONGEST: Final = 20_000
#: Rows of a table, whose columns fit only rows that are known: until then it is left whole.
_TALLEST_TABLE: Final = 100

Draw = Callable[[str], Sequence[Row]]


class Piece(NamedTuple):
    """Markdown that is finished. `joined`: it belongs to the piece before it, and no blank line parts them."""

    source: str
    joined: bool


class Growing:
    """One text. What `add`, `cut` and `finish` return is to be printed, once; `open` is to be drawn until it is."""

    def __init__(self) -> None:
        #: What stands before the open text that its meaning depends on: a code block's first line, a table's head.
        self._prefix = ""
        self._text = ""
        self._joined = False
        #: A carriage return at the end, which may be half of a line break.
        self._held = ""
        #: The length at which no good place to cut was found.
        self._tried = 0

    @property
    def open(self) -> Piece:
        """The last block, without a last line of which it is unclear what it begins."""
        text = self._decided()
        return Piece(self._prefix + text if text.strip() else "", self._joined)

    def add(self, text: str) -> list[Piece]:
        """Take what was written since; the pieces that are finished by it."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        self._text += plain(text.removesuffix("\r"))
        return list(self._finished())

    def cut(self, draw: Draw, tallest: int) -> list[Piece]:
        """Finish the upper part of an open block that is drawn in more than `tallest` rows."""
        pieces = []
        while (piece := self._cut(draw, max(tallest, 2))) is not None:
            pieces.append(piece)
        return pieces

    def finish(self, draw: Draw, tallest: int) -> list[Piece]:
        """The rest: nothing will be added."""
        pieces = self.add("\n") + self.cut(draw, tallest)
        if self._text.strip():
            pieces.append(Piece(self._prefix + self._text, self._joined))
        self._text = self._prefix = ""
        return pieces

    # --- blocks that are followed by another one

    def _finished(self) -> Iterator[Piece]:
        while True:
            blocks = self._blocks()
            if len(blocks) > 1:
                yield self._take(_line(blocks[-1]), joined=False)
            elif blocks and blocks[0].type.endswith("_list_open") and not self._prefix:
                items = self._items()
                if len(items) < 2:
                    return
                number = _NUMBER.sub(str(_first_number(blocks[0]) + len(items) - 1), self._from(items[-1]), count=1)
                is_ordered = blocks[0].type == "ordered_list_open"
                yield self._take(_line(items[-1]), joined=True)
                self._text = number if is_ordered else self._text
                return
            elif blocks and self._is_closed(blocks[0]):
                yield self._take(_line(blocks[0], -1), joined=False)
            else:
                return

    def _decided(self) -> str:
        undecided = _UNDECIDED.search(self._text)
        return self._text if undecided is None else self._text[: undecided.start()]

    def _blocks(self) -> list[Token]:
        return [token for token in parse(self._prefix + self._decided()) if token.level == 0 and token.map]

    def _items(self) -> list[Token]:
        tokens = parse(self._decided())
        return [token for token in tokens if token.level == 1 and token.type == "list_item_open" and token.map]

    def _lines(self) -> list[str]:
        return (self._prefix + self._text).splitlines(keepends=True)

    def _from(self, block: Token) -> str:
        return "".join(self._lines()[_line(block) :])

    def _take(self, line: int, *, joined: bool) -> Piece:
        """Finish everything before a line, which is counted with the prefix; `joined` is about what follows."""
        lines = self._lines()
        piece = Piece("".join(lines[:line]), self._joined)
        self._text, self._prefix, self._joined = "".join(lines[line:]), "", joined
        return piece

    def _is_closed(self, block: Token) -> bool:
        """Whether this is a code block whose end has come, so that nothing can be added to it."""
        if block.type != "fence" or block.map is None:
            return False
        lines = self._lines()[block.map[0] : block.map[1]]
        last = lines[-1].strip()
        whole = lines[-1].endswith("\n") and len(lines) > 1
        return whole and len(last) >= len(block.markup) and set(last) == {block.markup[0]}

    # --- a block that is too tall

    def _cut(self, draw: Draw, tallest: int) -> Piece | None:
        source = self._prefix + self._decided()[:_WINDOW]
        if len(self._text) <= self._tried or not source.strip():
            return None
        rows = draw(source)
        if len(rows) <= tallest:
            return None
        keep = tallest // 2
        match parse(source)[0].type:
            case "fence":
                piece = self._cut_lines(self._lines()[0], 1, keep)
            case "table_open" if len(rows) > _TALLEST_TABLE:
                piece = self._cut_lines("".join(self._lines()[:2]), 2, keep)
            case "blockquote_open" if all(line.startswith(">") for line in self._lines()):
                piece = self._cut_lines("", 0, keep)
            case "paragraph_open":
                piece = self._cut_paragraph(draw, rows, len(rows) - keep)
            case _:
                piece = None
        if piece is None and len(self._text) > _LONGEST:
            piece = self._cut_anyhow()
        self._tried = 0 if piece else len(self._text) + len(self._text) // 8
        return piece

    def _cut_lines(self, head: str, first: int, keep: int) -> Piece | None:
        """Finish lines of code or of a table; the rest gets the same head."""
        lines = self._lines()
        latest = len(lines) - keep
        if latest <= first:
            return None
        # Where the code breathes, if it does so near the place.
        good = [line for line in range(max(first + 1, latest - keep), latest) if not lines[line - 1].strip()]
        end = good[-1] if good else latest
        piece = Piece("".join(lines[:end]), self._joined)
        self._prefix, self._text, self._joined = head, "".join(lines[end:]), True
        return piece

    def _cut_paragraph(self, draw: Draw, rows: Sequence[Row], count: int) -> Piece | None:
        """Finish that many rows of a paragraph, if they are the same when it ends there."""
        text = self._text[:_WINDOW]
        wanted = [row.text for row in rows[:count]]
        for place in _likely_places(text, wanted, lambda place: len(draw(text[:place])) <= count):
            if [row.text for row in draw(text[:place])] == wanted:
                piece = Piece(text[:place], self._joined)
                self._text, self._joined = self._text[place:].lstrip(" \n"), True
                return piece
        return None

    def _cut_anyhow(self) -> Piece:
        end = self._text.rfind("\n", 0, _WINDOW) + 1 or _WINDOW
        piece = Piece(self._prefix + self._text[:end], self._joined)
        self._text, self._prefix, self._joined = self._text[end:], "", True
        return piece


def _likely_places(text: str, rows: list[str], fits: Callable[[int], bool]) -> Iterator[int]:
    """Where these rows of a text may end, the likeliest first."""
    places = _places(text)
    # As many letters as were drawn: exact, unless there is markup among them.
    drawn = sum(len(row.replace(" ", "")) for row in rows)
    letters = (found.end() for found in re.finditer(r"[^ \n]", text))
    end = next(itertools.islice(letters, drawn - 1, None), 0) if drawn else 0
    exact = bisect.bisect_left(places, end)
    if exact < len(places):
        yield places[exact]
    last = bisect.bisect_left(places, True, key=lambda place: not fits(place))
    yield from reversed(places[max(last - 8, 0) : last])


def _places(text: str) -> list[int]:
    """Where a paragraph may be cut: between words or, where there are none, between letters."""
    places = [found.end() for found in re.finditer(r"[ \n]+", text)]
    if len(places) < len(text) // 80:
        places = [at for at in range(1, len(text)) if text[at - 1].isalnum() and text[at].isalnum()]
    return [place for place in places if place < len(text) and not _BEGINS_BLOCK.match(text, place)]


def _line(block: Token, side: int = 0) -> int:
    """The line on which a block begins, or with `side` -1 the one after its end."""
    assert block.map is not None, "only tokens with a place are looked at"
    return block.map[side]


def _first_number(block: Token) -> int:
    return int(block.attrs.get("start", 1))
