"""A terminal, as far as `parley chat` uses one: what is written to it becomes rows, and some scroll away.

It knows what prompt_toolkit and rich send: text, small moves of the cursor, erasing, colours, modes. Whatever else
arrives is kept in `strange`, as nothing that an agent says may reach a terminal as a command. When its width changes it
wraps long rows anew, as nearly all terminals do.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rich.cells import cell_len

_TOKENS = re.compile(
    r"\x1b\[(?P<private>[?>]?)(?P<arguments>[0-9;]*)(?P<final>[ -/]*[@-~])"
    r"|(?P<strange>\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[^\[\]]|\x1b\Z|[\x00-\x07\x0b-\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f])"
    r"|(?P<control>[\b\t\n\r])"
    r"|(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
)
#: A sequence that may go on in what comes next.
_INCOMPLETE = re.compile(r"\x1b(?:\[[?>]?[0-9;]*[ -/]*|\][^\x07\x1b]*)?\Z")
#: Modes that a chat may set: wrapping, the cursor, bracketed paste, blinking, application keys.
_MODES = {"7", "25", "2004", "12", "1"}


class Cell(NamedTuple):
    """A character, and its colours and attributes as they were sent; the second half of a wide one is empty."""

    text: str = " "
    style: str = ""


class Row:
    """A row; `wraps` says that the text goes on in the next one."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.wraps = False

    def put(self, x: int, cell: Cell) -> None:
        self.cells += [Cell()] * (x + 1 - len(self.cells))
        self.cells[x] = cell

    def __str__(self) -> str:
        return "".join(cell.text for cell in self.cells).rstrip()


class Emulator:
    """`feed` it; read `lines`, `screen` and `strange`."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns = columns
        self.rows = rows
        self.strange: list[str] = []
        self._past: list[Row] = []
        self._screen = [Row()]
        self._x = self._y = 0
        self._style = ""
        self._autowrap = True
        self._held = ""

    # --- what is seen

    @property
    def lines(self) -> list[str]:
        """Everything that was printed and not erased: what has scrolled away, and the screen."""
        return [str(row) for row in [*self._past, *self._screen]]

    @property
    def screen(self) -> list[str]:
        """What can be seen now."""
        return [str(row) for row in self._screen]

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(self.lines)

    @property
    def cursor(self) -> tuple[int, int]:
        """The row on the screen, and the column."""
        return self._y, self._x

    def style_of(self, text: str) -> str:
        """The colours and attributes of a text's first character, where the text was printed last."""
        for row in [*self._past, *self._screen][::-1]:
            at = "".join(cell.text or "\0" for cell in row.cells).find(text)
            if at >= 0:
                return row.cells[at].style
        raise AssertionError(f"{text!r} is not in:\n{self.text}")

    # --- what is written

    def feed(self, data: str) -> None:
        """Take what was written to the terminal."""
        data = self._held + data
        incomplete = _INCOMPLETE.search(data)
        self._held = incomplete[0] if incomplete else ""
        data = data.removesuffix(self._held)
        for token in _TOKENS.finditer(data):
            if token["text"] is not None:
                self._write(token["text"])
            elif token["control"] is not None:
                self._control(token["control"])
            elif token["strange"] is not None:
                self.strange.append(token["strange"])
            else:
                self._sequence(token["private"], token["arguments"], token["final"])

    def _write(self, text: str) -> None:
        for character in text:
            width = cell_len(character)
            if width == 0:
                if self._x:
                    cell = self._row.cells[self._x - 1]
                    self._row.cells[self._x - 1] = cell._replace(text=cell.text + character)
                continue
            if self._x + width > self.columns:
                if self._autowrap:
                    self._row.wraps = True
                    self._line_feed()
                    self._x = 0
                else:
                    self._x = self.columns - width
            self._row.put(self._x, Cell(character, self._style))
            if width == 2:
                self._row.put(self._x + 1, Cell("", self._style))
            self._x += width

    @property
    def _row(self) -> Row:
        return self._screen[self._y]

    def _control(self, character: str) -> None:
        match character:
            case "\r":
                self._x = 0
            case "\n":
                self._line_feed()
            case "\b":
                self._x = max(min(self._x, self.columns - 1) - 1, 0)
            case _:
                self._x = min((self._x // 8 + 1) * 8, self.columns - 1)

    def _line_feed(self) -> None:
        self._y += 1
        if self._y == len(self._screen):
            self._screen.append(Row())
        while len(self._screen) > self.rows:
            self._past.append(self._screen.pop(0))
            self._y -= 1

    def _sequence(self, private: str, arguments: str, final: str) -> None:
        amount = int(arguments.partition(";")[0] or 1) if final in "ABCD" else 0
        match private, final:
            case "", "A":
                self._y = max(self._y - amount, 0)
            case "", "B":
                self._y = min(self._y + amount, len(self._screen) - 1)
            case "", "C":
                self._x = min(self._x + amount, self.columns - 1)
            case "", "D":
                self._x = max(min(self._x, self.columns - 1) - amount, 0)
            case "", "J" if arguments in {"", "0"}:
                del self._row.cells[self._x :], self._screen[self._y + 1 :]
                self._row.wraps = False
            case "", "K" if arguments in {"", "0"}:
                del self._row.cells[self._x :]
            case "", "m":
                self._colour(arguments)
            case "?", "h" | "l" if arguments in _MODES:
                if arguments == "7":
                    self._autowrap = final == "h"
            case _:
                self.strange.append(f"\x1b[{private}{arguments}{final}")

    def _colour(self, arguments: str) -> None:
        codes = [code for code in arguments.split(";") if code]
        kept = [] if not codes or codes[0] == "0" else self._style.split(";")
        self._style = ";".join(code for code in [*kept, *codes] if code not in {"", "0"})

    # --- what its user does

    def resize(self, columns: int, rows: int) -> None:
        """Make the window another size."""
        everything = [*self._past, *self._screen]
        at = len(self._past) + self._y
        self.columns, self.rows = columns, rows
        wrapped: list[Row] = []
        place = (0, 0)
        line: list[Cell] = []
        offset: int | None = None
        for index, row in enumerate(everything):
            if index == at:
                offset = len(line) + self._x
            line += row.cells
            if row.wraps:
                continue
            if offset is not None:
                place = (len(wrapped) + offset // columns, offset % columns)
            wrapped += _wrapped(line, columns)
            line, offset = [], None
        cut = max(len(wrapped) - rows, 0)
        self._past, self._screen = wrapped[:cut], wrapped[cut:]
        self._y, self._x = max(place[0] - cut, 0), place[1]
        while self._y >= len(self._screen):
            self._screen.append(Row())


def _wrapped(line: list[Cell], columns: int) -> list[Row]:
    while line and line[-1] == Cell():
        line.pop()
    rows = []
    for start in range(0, max(len(line), 1), columns):
        row = Row()
        row.cells = line[start : start + columns]
        row.wraps = start + columns < len(line)
        rows.append(row)
    return rows
