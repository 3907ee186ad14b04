"""Answers from the session's own history; the message that asks is never part of the answer."""

from __future__ import annotations

from collections import Counter

from server.agents.interface import HistoryMessage
from server.agents.offline.scene import Scene
from server.agents.offline.tokens import shorten

__all__ = ["count", "first", "last", "search", "summary"]

_SHOWN = 12
_LINE = 120


def first(scene: Scene) -> str:
    """The user's first message."""
    said = _said(scene)
    return f"First you said:{_quote(said[0])}" if said else "This is your first message in this session."


def last(scene: Scene) -> str:
    """The user's message before this one."""
    said = _said(scene)
    return f"Before this you said:{_quote(said[-1])}" if said else "You have said nothing before this."


def count(scene: Scene) -> str:
    """The number of messages by role, this one included."""
    roles = Counter(message.role for message in scene.before)
    roles["user"] += 1
    calls = sum(len(message.tool_calls) for message in scene.before)
    return (
        f"There are {_number(sum(roles.values()), 'message')} with this one: {roles['user']} from you, "
        f"{roles['assistant']} from agents and {_number(roles['tool'], 'tool result')}. "
        f"Tools were called {_number(calls, 'time')}."
    )


def summary(scene: Scene) -> str:
    """What was said so far, a line a message of the user's, and who and what took part."""
    said = _said(scene)
    if not said:
        return "There is nothing to summarise yet: this is your first message."
    lines = [f"{count(scene)} You said:", ""]
    if len(said) > _SHOWN:
        lines.append(f"- ({_number(len(said) - _SHOWN, 'earlier message')})")
    lines += [f"- {shorten(message.content, _LINE)}" for message in said[-_SHOWN:]]
    agents = sorted({message.agent_type for message in scene.before if message.agent_type})
    tools = sorted({call.name for message in scene.before for call in message.tool_calls})
    if agents:
        lines += ["", f"Agents: {', '.join(agents)}."]
    if tools:
        lines += ["", f"Tools: {', '.join(tools)}."]
    return "\n".join(lines)


def search(scene: Scene, words: str) -> str:
    """The messages that hold the words, in any case, numbered from the session's start."""
    wanted = words.strip(" ?.!\"'“”`").casefold()
    numbered = enumerate((m for m in scene.before if m.role in {"user", "assistant"}), start=1)
    found = [(number, message) for number, message in numbered if wanted in message.content.casefold()]
    if not wanted or not found:
        return f"No earlier message holds `{wanted}`."
    more = f", the last {_SHOWN} of them" if len(found) > _SHOWN else ""
    lines = [f"{_number(len(found), 'message')} with `{wanted}`{more}:", ""]
    lines += [f"{n}. {_who(message)}: {shorten(message.content, _LINE)}" for n, message in found[-_SHOWN:]]
    return "\n".join(lines)


def _said(scene: Scene) -> list[HistoryMessage]:
    return [message for message in scene.before if message.role == "user"]


def _who(message: HistoryMessage) -> str:
    return "you" if message.role == "user" else message.agent_type or "assistant"


def _quote(message: HistoryMessage) -> str:
    return "\n\n" + "\n".join(f"> {line}".rstrip() for line in message.content.splitlines())


def _number(amount: int, what: str) -> str:
    return f"{amount} {what}" + ("" if amount == 1 else "s")
