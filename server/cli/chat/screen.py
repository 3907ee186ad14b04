"""The lower end of the terminal: what is being written, the input, and a line about where one is.

Text above it is printed for good and scrolls away like any other. Only the few rows below are drawn again, by
prompt_toolkit, which writes what differs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from prompt_toolkit.application import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import Completer
from prompt_toolkit.data_structures import Size
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.layout import BufferControl, ConditionalContainer, FormattedTextControl, HSplit, Layout, Window
from prompt_toolkit.layout.dimension import Dimension
from prompt_toolkit.layout.menus import CompletionsMenu
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from server.cli.markdown import Row
from server.cli.text import MARK

__all__ = ["Screen"]

_STYLE: Final = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "completion-menu": "noinherit",
        "completion-menu.completion": "noinherit",
        "completion-menu.completion.current": "noinherit reverse",
        "completion-menu.meta.completion": "noinherit ansibrightblack",
        "completion-menu.meta.completion.current": "noinherit reverse",
        "scrollbar": "noinherit",
    }
)
_INPUT_ROWS: Final = 8
_MENU_ROWS: Final = 6
#: Seconds: how often what counts up is drawn; until a key that may begin a longer sequence counts by itself.
_TICK: Final = 0.5
_ESCAPE: Final = 0.1


class Screen:
    """Text above, input below. The caller gives what is drawn, and is told what is entered.

    `above` gives the rows over the input, `status` those under it. `enter` is called with each text that is entered,
    `stop` on Ctrl-C (with whether there is a text in the input) and Escape, `leave` on Ctrl-D.
    """

    def __init__(
        self,
        *,
        above: Callable[[], Sequence[Row]],
        status: Callable[[], StyleAndTextTuples],
        enter: Callable[[str], None],
        stop: Callable[[], bool],
        leave: Callable[[], None],
        completer: Completer,
    ) -> None:
        self._above = above
        self._status = status
        self._enter = enter
        self._stop = stop
        self._leave = leave
        self._output = _Output(sys.stdout, _size, term=os.environ.get("TERM"), enable_cpr=False)
        self._rows: Sequence[Row] = ()
        self.history = InMemoryHistory()
        self.input = Buffer(
            multiline=True,
            completer=completer,
            complete_while_typing=Condition(lambda: self.input.text.startswith("/")),
            history=self.history,
            accept_handler=self._accept,
        )
        self._app = _Application(
            layout=self._layout(),
            key_bindings=self._keys(),
            style=_STYLE,
            output=self._output,
            erase_when_done=True,
            refresh_interval=_TICK,
            before_render=lambda _: self._prepare(),
            after_render=lambda _: self._app.drawn_on(self._output.asked_size),
        )
        self._app.ttimeoutlen = _ESCAPE
        self._app.timeoutlen = _ESCAPE

    @property
    def size(self) -> Size:
        """Rows and columns of the terminal."""
        return self._output.get_size()

    async def run(self) -> None:
        """Draw and listen until `close`."""
        await self._app.run_async()

    def close(self) -> None:
        """Stop drawing; the rows below the text are gone then."""
        if self._app.is_running and not self._app.is_done:
            self._app.exit()

    def put(self, rows: Sequence[Row]) -> None:
        """Print rows above, for good. One write: nothing flickers, and keys pressed meanwhile are not echoed."""
        if not rows:
            return
        text = "".join(f"{row.ansi}\r\n" for row in rows)
        if not self._app.is_running:
            self._output.write_raw(text)
            self._output.flush()
            return
        with self._output.held():
            self._app.erase()
            self._output.write_raw(text)
            self._app.redraw()
        self._output.flush()

    def draw(self) -> None:
        """Draw again what is below."""
        self._app.invalidate()

    # --- what there is

    def _layout(self) -> Layout:
        has_rows = Condition(lambda: bool(self._rows))
        above = Window(
            FormattedTextControl(self._draw_above), wrap_lines=True, dont_extend_height=True, always_hide_cursor=True
        )
        entry = Window(
            BufferControl(self.input, input_processors=[BeforeInput(MARK, style="class:prompt")]),
            height=Dimension(min=1, max=_INPUT_ROWS),
            wrap_lines=True,
            dont_extend_height=True,
        )
        status = Window(FormattedTextControl(self._status), height=1, dont_extend_height=True)
        menu = CompletionsMenu(max_height=_MENU_ROWS)
        blank = Window(height=1, dont_extend_height=True)
        rest = Window()
        return Layout(
            HSplit([ConditionalContainer(above, has_rows), blank, entry, menu, status, rest]), focused_element=entry
        )

    def _draw_above(self) -> StyleAndTextTuples:
        return to_formatted_text(ANSI("\n".join(row.ansi for row in self._rows)))

    def _prepare(self) -> None:
        """Take the rows that are to be drawn; where they cannot be drawn over those before, begin anew."""
        self._rows = self._above()
        drawn = self._app.renderer.last_rendered_screen
        size = self.size
        wanted = self._app.layout.container.preferred_height(size.columns, size.rows).preferred
        if drawn is not None and (min(wanted, size.rows) < drawn.height or self._app.is_resized):
            # What is held goes out with the drawing that follows.
            with self._output.held():
                self._app.erase()

    def _accept(self, buffer: Buffer) -> bool:
        text = buffer.text
        if text.strip():
            self._enter(text)
        return False

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add("escape", "enter")
        @keys.add("c-j")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add("c-c")
        @keys.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            if not self._stop():
                if event.current_buffer.text:
                    event.current_buffer.reset()
                else:
                    self._leave()

        @keys.add("escape", filter=Condition(lambda: self.input.complete_state is None))
        def _(event: KeyPressEvent) -> None:
            self._stop()

        @keys.add("c-d")
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.delete()
            else:
                self._leave()

        @keys.add("c-z")
        def _(event: KeyPressEvent) -> None:
            event.app.suspend_to_background()

        @keys.add("c-l")
        def _(event: KeyPressEvent) -> None:
            event.app.renderer.clear()

        return keys


class _Application(Application[None]):
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


class _Output(Vt100_Output):
    """A terminal that can be told to wait, so that several steps reach it as one."""

    _holds = 0
    #: What was answered last to who asked for the size: a renderer asks once, before it draws.
    asked_size = Size(rows=24, columns=80)

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
