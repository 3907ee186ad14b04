"""Sessions and agents as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.table import Table
from rich.text import Text

from protocol.client import AgentInfo, SessionInfo
from protocol.ids import parse_timestamp
from server.cli.text import one_line

__all__ = ["agents_text", "ago", "name_of", "sessions_table"]

#: Columns from which on a table shows everything.
_WIDE: Final = 80
#: Columns that are taken by what is in them; a title is given at least so many.
_AGENT: Final = 14
_MESSAGES: Final = 8
_USED: Final = 11
_TITLE: Final = 8


def name_of(session: SessionInfo) -> str:
    """What to call a session in a command: its user's own name for it, or its id."""
    return session.alias or str(session.id)


def sessions_table(sessions: Sequence[SessionInfo], width: int, now: datetime | None = None) -> Table:
    """A row a session. Names are whole, so that they can be copied; a narrow terminal is shown fewer columns."""
    now = now or datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    wide = width >= _WIDE
    others = _USED + 2 + (_AGENT + _MESSAGES + 4 if wide else 0)
    longest = max(map(len, ("session", *map(name_of, sessions))))
    name = min(longest, max(width - others - 2 - _TITLE, _TITLE))
    table.add_column("session", overflow="fold", style="cyan", width=name)
    table.add_column("title", no_wrap=True, overflow="ellipsis", max_width=max(width - name - 2 - others, _TITLE))
    if wide:
        table.add_column("agent", no_wrap=True, overflow="ellipsis", max_width=_AGENT)
        table.add_column("messages", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True, min_width=_USED)
    for session in sessions:
        more = (one_line(session.current_agent), str(session.message_count)) if wide else ()
        used = ago(session.last_activity, now) if session.is_active else "deleted"
        cells = (one_line(name_of(session)), one_line(session.title or "", 200), *more, used)
        table.add_row(*map(Text, cells))
    return table


def agents_text(agents: Sequence[AgentInfo], acting: str) -> str:
    """A line an agent; the acting one is marked."""
    width = max((len(agent.type) for agent in agents), default=0)
    lines = []
    for agent in agents:
        mark = "*" if agent.type == acting else " "
        lines.append(f"{mark} {one_line(agent.type).ljust(width)}  {one_line(agent.description)}")
    return "\n".join(lines)


def ago(timestamp: str, now: datetime) -> str:
    """How long ago something was, roughly."""
    seconds = (now - parse_timestamp(timestamp)).total_seconds()
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return "just now"
