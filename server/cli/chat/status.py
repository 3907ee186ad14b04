"""The line under the input: how one is connected, to what, and what is going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from prompt_toolkit.formatted_text import StyleAndTextTuples
from rich.cells import cell_len

from protocol.client import Status
from server.cli.text import one_line, shorten

__all__ = ["TRANSPORTS", "View", "status_line"]

#: What people call them.
TRANSPORTS: Final = {"ws": "WebSocket", "websocket": "WebSocket", "sse": "SSE", "ndjson": "NDJSON"}
_BETWEEN: Final = " · "
_LONGEST_NAME: Final = 24


class View(NamedTuple):
    """What the line tells of.

    `busy` is how long the agent has been answering, in seconds; None when it does not. `asked` is how many decisions
    and answers of the user are waited for.
    """

    status: Status
    session: str
    agent: str
    activity: str = ""
    busy: float | None = None
    stopping: bool = False
    waiting: int = 0
    asked: int = 0


class _Part(NamedTuple):
    rank: int
    style: str
    text: str


def status_line(view: View, width: int) -> StyleAndTextTuples:
    """The line, as much of it as fits: where there is little room, what matters less is left out."""
    parts = [part for part in _parts(view) if part.text]
    while len(parts) > 1 and _width(parts) > width:
        parts.remove(max(parts, key=lambda part: part.rank))
    line: StyleAndTextTuples = []
    for part in parts:
        if line:
            line.append(("ansibrightblack", _BETWEEN))
        line.append((part.style, shorten(part.text, width)))
    return line


def _width(parts: Sequence[_Part]) -> int:
    return sum(cell_len(part.text) for part in parts) + len(_BETWEEN) * (len(parts) - 1)


def _parts(view: View) -> list[_Part]:
    dim = "ansibrightblack"
    waiting = f"{view.waiting} waiting" if view.waiting else ""
    hint = "/help" if view.busy is None else "Ctrl-C stops"
    name = one_line(view.session)
    # An id says no more by its whole length than by its end.
    name = name if len(name) <= _LONGEST_NAME else f"…{name[-12:]}"
    return [
        _connection(view.status),
        _Part(3, dim, name),
        _Part(4, dim, one_line(view.agent, _LONGEST_NAME)),
        _Part(1, "ansiyellow" if view.stopping else "ansicyan", _activity(view)),
        _Part(1, "ansiyellow", f"{view.asked} for you to decide" if view.asked else ""),
        _Part(2, "ansiyellow", waiting),
        _Part(5, dim, hint),
    ]


def _connection(status: Status) -> _Part:
    match status.state:
        case "open":
            return _Part(0, "ansigreen", f"● {TRANSPORTS.get(status.transport or '', '?')}")
        case "closed":
            return _Part(0, "ansired", "✗ disconnected")
        case "connecting":
            return _Part(0, "ansiyellow", "○ connecting")
        case _:
            return _Part(0, "ansiyellow", "○ reconnecting")


def _activity(view: View) -> str:
    if view.busy is None:
        return ""
    doing = (
        "stopping"
        if view.stopping
        else {"thinking": "thinking", "tools": "running tools", "waiting": "waiting"}.get(view.activity)
    )
    return f"{doing or 'answering'} {view.busy:.0f} s"
