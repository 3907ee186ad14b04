"""The lower end of the terminal: what is being written, the input, and a line about where one is.

Text above it is printed for good and scrolls away like any other. Only the few rows below are drawn again, by
prompt_toolkit, which writes what differs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from prompt_toolkit.application import in_terminal
from prompt_toolkit.application.current import set_app
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
from prompt_toolkit.styles import Style

from server.cli.chat.canvas import Canvas, Drawing
from server.cli.markdown import Row
from server.cli.text import MARK

__all__ = ["Screen"]

T = TypeVar("T")

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
#: Seconds until a key that may begin a longer sequence counts by itself.
_ESCAPE: Final = 0.1
_ENDINGS: Final = (signal.SIGTERM, signal.SIGHUP)


class Screen:
    """Text above, input below. The caller gives what is drawn, and is told what is entered.

    `above` gives the rows over the input, `status` those under it. `enter` is called with each text that is entered,
    `stop` on Ctrl-C (with whether there is a text in the input) and Escape, `leave` on Ctrl-D. `prompt` is what
    stands before the input.
    """

    def __init__(  # noqa: PLR0913 - all that a screen shows and is told
        self,
        *,
        above: Callable[[], Sequence[Row]],
        status: Callable[[], StyleAndTextTuples],
        enter: Callable[[str], None],
        stop: Callable[[], bool],
        leave: Callable[[], None],
        completer: Completer,
        prompt: Callable[[], str] = lambda: MARK,
    ) -> None:
        self._above = above
        self._status = status
        self._enter = enter
        self._stop = stop
        self._leave = leave
        self._prompt = prompt
        #: What is to be printed once the terminal is ours again; None while it is.
        self._held: list[Row] | None = None
        self._output = Canvas()
        self._rows: Sequence[Row] = ()
        self.history = InMemoryHistory()
        self.input = Buffer(
            multiline=True,
            completer=completer,
            complete_while_typing=Condition(lambda: self.input.text.startswith("/")),
            history=self.history,
            accept_handler=self._accept,
        )
        self._app = Drawing(
            layout=self._layout(),
            key_bindings=self._keys(),
            style=_STYLE,
            output=self._output,
            erase_when_done=True,
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
        """Draw and listen until `close`, or until a signal ends it, which would leave the terminal as it is."""
        loop = asyncio.get_running_loop()
        for number in _ENDINGS:
            loop.add_signal_handler(number, self._leave)
        try:
            # At the end of the input there is nobody at the terminal any more.
            with suppress(EOFError):
                await self._app.run_async()
        finally:
            for number in _ENDINGS:
                loop.remove_signal_handler(number)

    def close(self) -> None:
        """Stop drawing; the rows below the text are gone then."""
        if self._app.is_running and not self._app.is_done:
            self._app.exit()

    def put(self, rows: Sequence[Row]) -> None:
        """Print rows above, for good. One write: nothing flickers, and keys pressed meanwhile are not echoed."""
        if not rows:
            return
        if self._held is not None:
            self._held += rows
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

    async def lend(self, work: Callable[[], T]) -> T:
        """Let something else have the terminal; it blocks, in a thread. What is printed meanwhile waits."""
        with set_app(self._app):
            async with in_terminal():
                self._held = []
                try:
                    return await asyncio.to_thread(work)
                finally:
                    held, self._held = self._held, None
                    self._output.write_raw("".join(f"{row.ansi}\r\n" for row in held))

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
            BufferControl(self.input, input_processors=[BeforeInput(self._prompt, style="class:prompt")]),
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
            if self._held is not None:
                return  # it is meant for what has the terminal
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
