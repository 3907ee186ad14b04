"""One message while it is being written: what of it is on the screen for good, and what is still open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from server.cli.growing import Growing, Piece
from server.cli.markdown import Painter, Row

__all__ = ["Strand", "Writing"]

Put = Callable[[Sequence[Row]], None]

BLANK: Final = Row("", "")


class Strand:
    """One part of a message: its reasoning, or what it says."""

    def __init__(self, draw: Callable[[str], list[Row]], put: Put) -> None:
        self._put = put
        self._draw = draw
        self._growing = Growing()
        self._taken = ""
        self._is_fresh = True

    @property
    def text(self) -> str:
        """What was taken so far."""
        return self._taken

    def continues(self, text: str) -> bool:
        """Whether a text begins with what was taken, or is the beginning of it: nothing on the screen contradicts."""
        return text.startswith(self._taken) or self._taken.startswith(text)

    def grow(self, text: str, tallest: int) -> None:
        """Take a text that begins with what was taken before."""
        added = text[len(self._taken) :]
        if added:
            self._taken = text
            self._print(self._growing.add(added))
            self._print(self._growing.cut(self._draw, tallest))

    def finish(self, tallest: int) -> None:
        """Nothing comes after this."""
        self._print(self._growing.finish(self._draw, tallest))

    def open(self) -> list[Row]:
        """The rows that may yet change."""
        piece = self._growing.open
        return self._spaced(piece, self._draw(piece.source)) if piece.source else []

    def _print(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            rows = self._draw(piece.source)
            if rows:
                self._put(self._spaced(piece, rows))
                self._is_fresh = False

    def _spaced(self, piece: Piece, rows: list[Row]) -> list[Row]:
        return rows if self._is_fresh or piece.joined or not rows else [BLANK, *rows]


class Writing:
    """A message, from its first delta until it is complete.

    `put` prints rows for good. `afresh` is called before a message that contradicts what was shown of it is shown from
    its beginning: a server that goes on with another one's turn begins its message again. Most of the time it says the
    same again, and nothing needs to be shown until it says more.
    """

    def __init__(self, painter: Painter, put: Put, afresh: Callable[[], None]) -> None:
        self._painter = painter
        self._put = put
        self._afresh = afresh
        self._begin()

    def _begin(self) -> None:
        self._reasoning = Strand(self._dimmed, self._put)
        self._content = Strand(self._painter.markdown, self._put)
        self._thinks = True

    def grow(self, reasoning: str, content: str, tallest: int) -> None:
        """Show what there is of the message now."""
        if not (self._reasoning.continues(reasoning) and self._content.continues(content)):
            self._put(self.open())
            self._begin()
            self._afresh()
        if self._thinks:
            self._reasoning.grow(reasoning, tallest)
        if content and self._thinks:
            self._stop_thinking(tallest)
        self._content.grow(content, tallest)

    def finish(self, tallest: int) -> None:
        """The message is complete."""
        if self._thinks:
            self._stop_thinking(tallest)
        self._content.finish(tallest)

    def open(self) -> list[Row]:
        """The rows that may yet change."""
        return self._reasoning.open() if self._thinks else self._content.open()

    def _stop_thinking(self, tallest: int) -> None:
        self._thinks = False
        self._reasoning.finish(tallest)
        if self._reasoning.text.strip():
            self._put([BLANK])

    def _dimmed(self, source: str) -> list[Row]:
        return self._painter.text(source.strip("\n"), "dim italic")
