"""Turning requests into tool calls, and tool results into answers.

A request is a plan: steps separated by "then", calls of one step by "and" or a comma. Every time the agent is called
it makes the next step, until the plan is done; then it reports the results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from server.agents.interface import HistoryMessage, ToolSpec
from server.agents.offline.scene import Call, Reply, Scene, plainly
from server.agents.offline.tokens import clusters

__all__ = ["PHRASES", "Phrase", "next_step", "plan"]

_THEN = re.compile(r"\s*(?:[,;.]\s*)?\b(?:and\s+then|then|after\s+that)\b[\s,]*|\s*;\s*", re.IGNORECASE)
_AND = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+", re.IGNORECASE)
_EXPLICIT = re.compile(
    r"(?:(?:call|use|invoke|run)\s+)?(?:the\s+)?(?P<tool>tool\s+)?(?P<name>[A-Za-z0-9_-]+)(?:\s+tool)?"
    r"(?:\s+(?:with|on|for)\b)?\s*(?P<arguments>.*)",
    re.IGNORECASE | re.DOTALL,
)
_SHOWN = 2000
# Plain words are matched up to this length: people write no more, and the patterns stay cheap.
_PLAIN_WORDS = 1000

Arguments = Mapping[str, Any]


class Phrase(NamedTuple):
    """A way to ask for a tool in plain words."""

    tool: str
    pattern: re.Pattern[str]
    arguments: Callable[[re.Match[str]], Arguments]
    example: str


def _phrase(tool: str, pattern: str, arguments: Callable[[re.Match[str]], Arguments], example: str) -> Phrase:
    return Phrase(tool, re.compile(pattern, re.IGNORECASE | re.DOTALL), arguments, example)


def _groups(match: re.Match[str]) -> Arguments:
    """The named groups that took part, numbers as numbers."""
    found = {name: value.strip() for name, value in match.groupdict().items() if value is not None}
    return {name: int(value) if name.endswith("_line") else value for name, value in found.items()}


_FILE = r"(?:the\s+)?(?:file\s+)?"
_END = r"\s*[.!?]*"

PHRASES = (
    _phrase(
        "clock",
        r"(?:what(?:'s|\s+is)?\s+the\s+(?:time|date|day)|what\s+(?:time|day)\s+is\s+it)"
        r"(?:\s+in\s+(?P<timezone>[\w/+-]+))?(?:\s+(?:now|today))?" + _END,
        _groups,
        "what time is it",
    ),
    _phrase(
        "calculate",
        r"(?:calculate|compute|what(?:'s|\s+is))\s+(?P<expression>[-+(.\s]*\d[\d\s.eE+*/%()^-]*)[=?]*",
        _groups,
        "calculate 6*7",
    ),
    _phrase(
        "read_file",
        rf"(?:read|open|show)\s+{_FILE}(?P<path>[^\s./]*[./]\S*?\w|(?<=file\s)\S+?)"
        r"(?:\s+(?:from\s+)?lines?\s+(?P<start_line>\d{1,7})\s*(?:-|to)\s*(?P<end_line>\d{1,7}))?" + _END,
        _groups,
        "read the file README.md",
    ),
    _phrase(
        "list_files",
        r"(?:list|show)\s+(?:all\s+)?(?:the\s+)?files(?:\s+(?:in|of|under)\s+(?P<path>\S+?))?(?P<deep>\s+recursively)?"
        + _END,
        lambda match: {"path": match["path"] or "."} | ({"recursive": True} if match["deep"] else {}),
        "list files",
    ),
    _phrase(
        "search_in_code",
        r"(?:search\s+(?:in\s+)?(?:the\s+)?(?:code|files|workspace)\s+for|grep)\s+(?P<query>.+)",
        _groups,
        "search the code for main",
    ),
    _phrase(
        "write_file",
        rf"(?:write|create)\s+{_FILE}(?P<path>[^\s.]*\.\S+)\s+(?:with|containing|saying)\s+(?P<content>.+)",
        _groups,
        "write the file notes.md with Hello",
    ),
    _phrase(
        "create_directory",
        r"create\s+(?:a\s+|the\s+)?(?:folder|directory)\s+(?P<path>\S+?)" + _END,
        _groups,
        "create the folder drafts",
    ),
    _phrase("delete_file", rf"delete\s+{_FILE}(?P<path>\S+?)" + _END, _groups, "delete the file old.md"),
    _phrase(
        "move_file",
        rf"(?:move|rename)\s+{_FILE}(?P<source>\S+)\s+to\s+(?P<destination>\S+?)" + _END,
        _groups,
        "move a.md to b.md",
    ),
    _phrase(
        "ask_agent",
        r"ask\s+the\s+(?P<agent_type>[\w-]+?)(?:\s+agent)?(?:\s+to|:)\s+(?P<task>.+)",
        _groups,
        "ask the architect to count to 5",
    ),
    _phrase("ask_followup_question", r"ask\s+me\s+(?P<question>.+)", _groups, "ask me which colour I like"),
    _phrase(
        "handoff",
        r"(?:hand\s+(?:this\s+)?over|hand\s*off|switch)\s+to\s+(?:the\s+)?(?P<agent_type>[\w-]+)(?:\s+agent)?" + _END,
        _groups,
        "hand over to the coder",
    ),
    _phrase(
        "execute_command",
        r"(?:(?:run|execute)\s+(?:the\s+)?(?:command\s+)?|\$\s+)(?P<command>.+)",
        _groups,
        "run ls",
    ),
)
"""Tried in this order, after the explicit `call NAME ...`."""


def plan(scene: Scene) -> list[list[Call]]:
    """The steps that the user's last message asks for; empty when it asks for no tool.

    A separator counts only if a call begins after it, so that "write a.md with this and that" stays one call.
    """
    whole = _call(scene.request, scene)
    if whole is not None and _is_json_object(whole.arguments) and scene.request.endswith("}"):
        return [[whole]]
    if len(scene.request) <= _PLAIN_WORDS:
        steps = [_calls(_AND, step, scene) for step in _fragments(_THEN, scene.request, scene)]
        if all(steps):
            return steps
    return [] if whole is None else [[whole]]


def next_step(scene: Scene, steps: list[list[Call]]) -> Reply:
    """Make the next step of the plan, or report what came of it."""
    done = scene.steps_done
    if done >= len(steps):
        return Reply(text=_report(scene))
    calls = steps[done]
    missing = [call.name for call in calls if call.name not in scene.tools]
    if missing:
        return Reply(text=_refusal(scene, missing))
    *others, last = (f"`{call.name}`" for call in calls)
    names = f"{', '.join(others)} and {last}" if others else last
    return Reply(text=f"{'Next I' if done else 'I'} call {names}.", calls=tuple(calls))


def _fragments(separator: re.Pattern[str], text: str, scene: Scene) -> list[str]:
    """``text`` cut at the separators that a sequence of calls follows; the first fragment may be anything."""
    fragments: list[str] = []
    end = len(text)
    for match in reversed(list(separator.finditer(text))):
        if _calls(_AND, text[match.end() : end], scene):
            fragments.append(text[match.end() : end])
            end = match.start()
    return [text[:end], *reversed(fragments)]


def _calls(separator: re.Pattern[str], text: str, scene: Scene) -> list[Call]:
    """The calls that ``text`` consists of; empty if any part of it is none."""
    calls: list[Call] = []
    end = len(text)
    for match in reversed(list(separator.finditer(text))):
        if call := _call(text[match.end() : end], scene, complete=True):
            calls.append(call)
            end = match.start()
    first = _call(text[:end], scene, complete=True)
    if first is None:
        # What looked like several calls may be the free text of one.
        whole = _call(text, scene, complete=True)
        return [] if whole is None else [whole]
    return [first, *reversed(calls)]


def _call(fragment: str, scene: Scene, *, complete: bool = False) -> Call | None:
    """The call that the whole of ``fragment`` is; ``complete`` refuses half a JSON object as arguments."""
    text = plainly(fragment)
    explicit = _EXPLICIT.fullmatch(text)
    if explicit and (explicit["tool"] or explicit["name"] in scene.tools):
        arguments = _arguments(scene.tools.get(explicit["name"]), explicit["arguments"].strip())
        return None if complete and not _is_json_object(arguments) else Call(explicit["name"], arguments)
    if len(text) > _PLAIN_WORDS:
        return None
    for phrase in PHRASES:
        if match := phrase.pattern.fullmatch(text):
            return Call(phrase.tool, json.dumps(phrase.arguments(match), ensure_ascii=False))
    return None


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _arguments(spec: ToolSpec | None, text: str) -> str:
    """JSON text for what the user wrote after the tool's name: JSON as it is, anything else as the main parameter."""
    if not text:
        return "{}"
    if text.startswith("{") or spec is None:
        return text
    properties: dict[str, Any] = spec.parameters.get("properties", {})
    names = [*spec.parameters.get("required", ()), *properties]
    if not names:
        return "{}"
    value: Any = text
    if properties.get(names[0], {}).get("type") in {"integer", "number", "boolean"}:
        try:
            value = json.loads(text)
        except ValueError:
            # Left as it is: the tool's own validation explains it better.
            value = text
    return json.dumps({names[0]: value}, ensure_ascii=False)


def _refusal(scene: Scene, missing: list[str]) -> str:
    wanted = ", ".join(f"`{name}`" for name in missing)
    there = ", ".join(f"`{name}`" for name in scene.tools) or "none"
    return f"I cannot call {wanted}: the tools that the {scene.context.agent.type} agent has here are {there}."


def _report(scene: Scene) -> str:
    calls = {call.call_id: call for message in scene.since for call in message.tool_calls}
    results = [message for message in scene.since if message.role == "tool"]
    if not results:
        return "The calls have no results yet."
    return "\n\n".join(_result(message, calls.get(message.call_id or "")) for message in results)


def _result(message: HistoryMessage, call: Any) -> str:
    name = message.name or (call.name if call is not None else "the tool")
    content = message.content
    if not content:
        return f"`{name}` returned nothing."
    if "\n" not in content and len(content) <= 200:
        return f"`{name}` returned: {content}"
    shown, note = content, ""
    if len(content) > _SHOWN:
        kept: list[str] = []
        for cluster in clusters(content[: 2 * _SHOWN]):
            if len(kept) == _SHOWN:
                break
            kept.append(cluster)
        shown = "".join(kept)
        note = f"\n\n({len(content)} characters; these are the first {len(shown)}.)"
    # A fence longer than any run of backticks inside (CommonMark, section 4.5).
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    newline = "" if shown.endswith("\n") else "\n"
    return f"`{name}` returned:\n\n{fence}\n{shown}{newline}{fence}{note}"
