"""What prompt_toolkit lacks to draw below text that scrolls: steps that reach the terminal as one, and resizes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Size
from prompt_toolkit.output.vt100 import Vt100_Output

__all__ = ["Canvas", "Drawing"]


class Drawing(Application[None]):
    """prompt_toolkit's, which finds the beginning of what it drew also where a terminal has wrapped it anew."""

    _columns = 0

    def drawn_on(self, size: Size) -> None:
        """It was drawn on a terminal of this size."""
        self._columns = size.columns

    @property
    def is_resized(self) -> bool:
        """Whether the terminal's width is another than when it was drawn on."""
        return self._columns != self.output.get_size().columns

    def redraw(self) -> None:
        """Draw now instead of soon."""
        self._redraw()

    def erase(self) -> None:
        """Take away what was drawn; the cursor stands where it began."""
        drawn = self.renderer.last_rendered_screen
        if drawn is not None and self.is_resized and _rewraps():
            columns = self.output.get_size().columns
            cursor = drawn.get_cursor_position(self.layout.current_window)
            heights = (_height(drawn.data_buffer[y], columns) for y in range(cursor.y))
            self.output.cursor_up(sum(heights) + cursor.x // columns - cursor.y)
        self.renderer.erase(leave_alternate_screen=False)

    def _on_resize(self) -> None:
        self._redraw()


class Canvas(Vt100_Output):
    """A terminal that can be told to wait, so that several steps reach it as one."""

    def __init__(self) -> None:
        # Asking where the cursor is would let us draw at the bottom of the screen; answers that come late are text.
        super().__init__(sys.stdout, _size, term=os.environ.get("TERM"), enable_cpr=False)
        self._holds = 0
        #: What was answered last to who asked for the size: a renderer asks once, before it draws.
        self.asked_size = Size(rows=24, columns=80)

    def get_size(self) -> Size:
        """How large the terminal is now."""
        self.asked_size = super().get_size()
        return self.asked_size

    @contextmanager
    def held(self) -> Iterator[None]:
        """Write nothing inside, and leave it to the next flush after it."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    def flush(self) -> None:
        """Write what has gathered, unless it is held."""
        if not self._holds:
            super().flush()


def _height(row: dict[int, Any], columns: int) -> int:
    """The rows that a drawn row takes in a terminal of another width."""
    width = max((x + char.width for x, char in row.items() if char.char != " "), default=0)
    return max(-(-width // columns), 1)


def _rewraps() -> bool:
    """Whether the terminal wraps its rows anew when its width changes. Nearly all do; these are known not to."""
    environment = os.environ
    if "TMUX" in environment:
        return True
    term = environment.get("TERM", "")
    return not (
        "XTERM_VERSION" in environment
        or "STY" in environment
        or term.startswith(("linux", "st-", "rxvt", "vt", "screen."))
    )


def _size() -> Size:
    try:
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, rows = 0, 0
    return Size(rows=rows or 24, columns=columns or 80)
