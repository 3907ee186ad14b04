"""The arguments of a call as a text that a person changes: in their editor, or on a line."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from protocol.durable import ApprovalRequired
from server.agents.arguments import problem

__all__ = ["EditError", "editor", "in_editor", "read", "written"]

_HEAD: Final = "// The arguments of {name}. Save and close to run it with these; leave nothing to change nothing.\n"


class EditError(Exception):
    """The text cannot be the call's arguments; the message says why."""


def editor() -> list[str] | None:
    """The user's editor; None if they have none."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        return shlex.split(command) or None
    except ValueError:
        return None


def written(arguments: Any, *, indent: int | None = None) -> str:
    """The arguments as JSON."""
    return json.dumps(arguments, ensure_ascii=False, indent=indent)


def read(text: str, approval: ApprovalRequired) -> dict[str, Any]:
    """The arguments that a text says. Raises EditError, naming the field and the rule."""
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EditError(f"this is no JSON: {error}") from None
    if not isinstance(arguments, dict):
        raise EditError("arguments are an object: {...}")
    if approval.parameters is not None and (wrong := problem(approval.parameters, arguments)) is not None:
        raise EditError(wrong)
    return arguments


def in_editor(command: list[str], text: str, approval: ApprovalRequired) -> str:
    """The text as the user leaves it in their editor, empty when they want nothing changed. Blocks.

    Raises EditError when the editor cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        # It is for this user's eyes alone: what a tool is to write may be in it.
        file = Path(folder) / "arguments.json"
        file.write_text(_HEAD.format(name=approval.name) + text + "\n", encoding="utf-8")
        try:
            done = subprocess.run([*command, str(file)], check=False)  # noqa: S603 - it is the user's own editor
        except OSError as error:
            raise EditError(f"{command[0]} cannot be started: {error.strerror}") from None
        if done.returncode:
            return ""
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("//")).strip()
