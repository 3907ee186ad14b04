"""Markdown and styled text as rows of a terminal."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from rich.cells import cell_len
from rich.console import COLOR_SYSTEMS, Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, Markdown, TableElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from server.cli.text import plain

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["Painter", "Row", "parse"]

#: Colours of the terminal's own palette, which its user chose to be readable.
_THEME: Final = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic",
        "markdown.code": "cyan",
        "markdown.code_block": "none",
        "markdown.block_quote": "italic",
        "markdown.item.bullet": "cyan",
        "markdown.item.number": "cyan",
        "markdown.link": "underline",
        "markdown.link_url": "blue underline",
        "markdown.table.header": "bold",
        "markdown.table.border": "dim",
    }
)
_CODE_INDENT: Final = 2
_LONGEST_RULE: Final = 40


class Row(NamedTuple):
    """One row: with its escape sequences, and as what is seen. It may be wider than the terminal, which then wraps."""

    ansi: str
    text: str

    @property
    def width(self) -> int:
        """In cells of the terminal."""
        return cell_len(self.text)


class Painter:
    """Makes rows.

    What it is given comes from elsewhere: control characters are left out, and no markup but Markdown's is looked for.
    """

    def __init__(self, width: int) -> None:
        #: Cells in a row; may be changed at any time.
        self.width = width
        self._console = Console(
            file=io.StringIO(),
            force_terminal=True,
            width=width,
            theme=_THEME,
            legacy_windows=False,
            markup=False,
            emoji=False,
            highlight=False,
        )
        #: What was drawn last: a block that is being written is asked for to be measured, and again to be shown.
        self._newest: tuple[str, int, list[Row]] = ("", 0, [])
        name = self._console.color_system
        self._colors = None if name is None else COLOR_SYSTEMS[name]

    def markdown(self, source: str) -> list[Row]:
        """The rows of a text in Markdown; none for white space."""
        if self._newest[:2] != (source, self.width):
            rows = self.rows(_Document(plain(source)))
            # What is made of blocks begins with the blank row that parts it from a block before it.
            self._newest = source, self.width, list(itertools.dropwhile(lambda row: not row.text, rows))
        return list(self._newest[2])

    def text(self, text: str, style: str = "") -> list[Row]:
        """The rows of a text that is shown as it stands, wrapped at spaces."""
        return self.rows(Text(plain(text).expandtabs(4), style))

    def rows(self, renderable: RenderableType) -> list[Row]:
        """The rows of anything that rich can draw; blanks at their ends are left out."""
        self._console.width = max(self.width, 1)
        return [self._row(line) for line in Segment.split_lines(self._console.render(renderable))]

    def _row(self, line: Iterable[Segment]) -> Row:
        segments = [segment for segment in line if not segment.control]
        while segments and not segments[-1].text.rstrip(" ") and _is_invisible(segments[-1].style):
            segments.pop()
        if segments and _is_invisible(segments[-1].style):
            segments[-1] = Segment(segments[-1].text.rstrip(" "), segments[-1].style)
        ansi = "".join(style.render(text, color_system=self._colors) if style else text for text, style, _ in segments)
        return Row(ansi, "".join(segment.text for segment in segments))


def parse(source: str) -> list[Token]:
    """The blocks of a text in Markdown, as markdown-it's tokens."""
    return Markdown(source).parsed


class _Heading(Heading):
    """A heading where the text begins, not in the middle."""

    LEVEL_ALIGN = dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "left")


class _CodeBlock(CodeBlock):
    """Code that can be copied: no frame, no background, and long lines are left to the terminal to wrap."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        whole = options.max_width == console.width
        code = str(self.text).expandtabs(4)
        text = Syntax("", self.lexer_name, theme=_code_theme(), background_color="default").highlight(code)
        # It always ends with a line break.
        text.right_crop(1)
        text.no_wrap, text.overflow = whole, "ignore" if whole else "fold"
        for line in text.split("\n", allow_blank=True):
            yield Text.assemble(" " * _CODE_INDENT, line, no_wrap=whole, overflow=text.overflow)


class _Rule(HorizontalRule):
    new_line = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(options.max_width, _LONGEST_RULE), "dim")


class _Table(TableElement):
    """A table without blank rows above and below."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            assert isinstance(table, Table)
            table.show_edge = False
            yield table


class _Document(Markdown):
    """Markdown in which nothing that was said is left out: HTML is shown as it stands, links with their address."""

    elements = Markdown.elements | {
        "heading_open": _Heading,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
        "hr": _Rule,
        "table_open": _Table,
    }

    def __init__(self, source: str) -> None:
        super().__init__(source, hyperlinks=False)
        self.parsed = list(_adapted(self.parsed))


def _adapted(tokens: Iterable[Token]) -> Iterator[Token]:
    tokens = list(tokens)
    for index, token in enumerate(tokens):
        match token.type:
            case "html_block":
                yield token.copy(type="fence", tag="code", info="html")
            case "html_inline":
                yield token.copy(type="text", tag="")
            case "softbreak":
                # Models do not wrap their lines: where they begin a new one, they mean it.
                yield token.copy(type="hardbreak")
            case "image":
                yield token.copy(type="text", tag="", children=None, content=_image(token))
            case "link_open" if _says_its_address(tokens, index):
                yield token.copy(type="text", tag="", nesting=0, content="")
            case "link_close" if index >= 2 and _says_its_address(tokens, index - 2):
                yield token.copy(type="text", tag="", nesting=0, content="")
            case _ if token.children:
                yield token.copy(children=list(_adapted(token.children)))
            case _:
                yield token


def _says_its_address(tokens: list[Token], index: int) -> bool:
    """Whether the link that opens here is no more than its address."""
    inner = tokens[index : index + 3]
    if [token.type for token in inner] != ["link_open", "text", "link_close"]:
        return False
    address = str(inner[0].attrs.get("href", ""))
    return inner[1].content in {address, address.removeprefix("mailto:")}


def _image(token: Token) -> str:
    address = str(token.attrs.get("src", ""))
    return f"[image: {token.content}] ({address})" if token.content else f"[image] ({address})"


def _is_invisible(style: Style | None) -> bool:
    """Whether a blank in this style looks like none."""
    return style is None or not (style.reverse or (style.bgcolor is not None and not style.bgcolor.is_default))


def _code_theme() -> str:
    """Some terminals say what their colours are: `foreground;background`, numbers of the palette."""
    background = os.environ.get("COLORFGBG", "").rpartition(";")[2]
    return "ansi_light" if background in {"7", "15"} else "ansi_dark"
