"""Sessions and agents as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from rich.table import Table
from rich.text import Text

from protocol.client import AgentInfo, SessionInfo
from protocol.ids import parse_timestamp
from server.cli.text import one_line

__all__ = ["agents_text", "ago", "name_of", "sessions_table"]


def name_of(session: SessionInfo) -> str:
    """What to call a session in a command: its user's own name for it, or its id."""
    return session.alias or str(session.id)


def sessions_table(sessions: Sequence[SessionInfo], titles: Mapping[UUID, str], now: datetime | None = None) -> Table:
    """A row a session. `titles` are what stands for those that have none."""
    now = now or datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("session", no_wrap=True, overflow="fold")
    table.add_column("what it is about", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("agent", no_wrap=True, overflow="ellipsis", max_width=14)
    table.add_column("messages", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for session in sessions:
        title = session.title or titles.get(session.id, "")
        used = ago(session.last_activity, now) + ("" if session.is_active else ", deleted")
        table.add_row(
            Text(one_line(name_of(session)), "cyan"),
            Text(one_line(title, 200), "" if session.title else "dim"),
            Text(one_line(session.current_agent)),
            str(session.message_count),
            used,
        )
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
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            amount = int(seconds // length)
            return f"{amount} {unit}{'' if amount == 1 else 's'} ago"
    return "just now"
