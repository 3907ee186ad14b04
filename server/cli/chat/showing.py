"""What a call would do, shown to whoever decides about it: the change of a file, a command, arguments."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from protocol.durable import ApprovalRequired
from server.cli.chat.deciding import FollowUp
from server.cli.text import one_line, plain, shorten
from server.cli.tools import Workspace
from server.cli.tools.files import text_of

__all__ = ["Line", "lines_of", "question_lines"]

#: Lines of a change, or of arguments, that are shown; longer texts are no difference that anybody reads.
_MOST_LINES: Final = 60
_LONGEST_LINE: Final = 400
_LARGEST: Final = 200_000
#: Characters of arguments that are shown on one line.
_SHORT: Final = 72


class Line(NamedTuple):
    """A line to be shown, and how."""

    text: str
    style: str = ""


def lines_of(approval: ApprovalRequired, workspace: Workspace | None) -> list[Line]:
    """What is asked, why, and what would happen. Blocks, where there is a file to be read."""
    who = f"{one_line(approval.agent_type, 40)} wants" if approval.agent_type else "the agent wants"
    lines = [Line(f"? {who} to call {one_line(approval.name, 60)}", "bold yellow")]
    why = "; ".join(
        one_line(text, 200) for text in (approval.reason, approval.rule and f"rule: {approval.rule}") if text
    )
    if why:
        lines.append(Line(f"  {why}", "dim"))
    return lines + _bounded(_details(approval, workspace))


def question_lines(question: FollowUp) -> list[Line]:
    """A question of an agent's, and the answers to choose from."""
    asked = [Line(shorten(line, _LONGEST_LINE), "bold yellow") for line in plain(f"? {question.question}").splitlines()]
    options = [Line(f"  {number}. {one_line(option, 200)}") for number, option in enumerate(question.options, start=1)]
    return asked[:_MOST_LINES] + options


def _details(approval: ApprovalRequired, workspace: Workspace | None) -> list[Line]:
    arguments = approval.arguments
    if not isinstance(arguments, dict):
        return [Line(f"  {shorten(plain(repr(arguments)), _LONGEST_LINE)}")]
    match approval.name, arguments:
        case "write_file", {"path": str() as path, "content": str() as content}:
            rest = {name: value for name, value in arguments.items() if name not in {"path", "content"}}
            return [Line(f"  {one_line(path, 200)}{_rest(rest)}"), *_change(path, content, rest, workspace)]
        case "execute_command", {"command": str() as command}:
            rest = {name: value for name, value in arguments.items() if name != "command"}
            said = plain(command).splitlines() or [""]
            return [Line(f"  $ {said[0]}{_rest(rest)}"), *(Line(f"    {line}") for line in said[1:])]
        case _:
            text = json.dumps(arguments, ensure_ascii=False)
            if len(text) > _SHORT:
                text = json.dumps(arguments, ensure_ascii=False, indent=2)
            return [Line(f"  {line}") for line in plain(text[:_LARGEST]).splitlines()]


def _rest(arguments: dict[str, Any]) -> str:
    said = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return f"   ({one_line(said, 200)})" if said else ""


def _change(path: str, content: str, rest: dict[str, Any], workspace: Workspace | None) -> list[Line]:
    encoding = rest.get("encoding")
    before = None if workspace is None else text_of(workspace, path, encoding if isinstance(encoding, str) else "utf-8")
    if before is None or len(before) + len(content) > _LARGEST:
        return [Line(f"  + {line}", "green") for line in plain(content[:_LARGEST]).splitlines()]
    if before == content:
        return [Line("  (the file says that already)", "dim")]
    return list(_differences(plain(before).splitlines(), plain(content).splitlines()))


def _differences(before: list[str], after: list[str]) -> Iterator[Line]:
    styles = {"+": "green", "-": "red", "@": "cyan"}
    for number, line in enumerate(difflib.unified_diff(before, after, n=2, lineterm="")):
        if number >= 2:  # the names of the files
            yield Line(f"  {line}", styles.get(line[:1], "dim"))


def _bounded(lines: list[Line]) -> list[Line]:
    shown = [Line(shorten(line.text.expandtabs(4), _LONGEST_LINE), line.style) for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(Line(f"  … {len(lines) - _MOST_LINES} more lines", "dim"))
    return shown
