"""The tools that `parley chat` runs on its user's machine: in one folder, by the parameters that the agents know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Struct

from protocol.client import CallContext, ClientTool
from protocol.commands import ToolDescription
from protocol.tools import ToolError
from server.agents.client_tools import (
    CLIENT_TOOLS,
    AskFollowupQuestion,
    AttemptCompletion,
    CreateDirectory,
    DeleteFile,
    ExecuteCommand,
    ListFiles,
    MoveFile,
    ReadFile,
    SearchInCode,
    WriteFile,
)
from server.cli.tools import files, running
from server.cli.tools.workspace import Workspace

__all__ = ["READING", "User", "Workspace", "tools_of"]

A = TypeVar("A", bound=Struct)

#: Nothing of the user's is changed by these.
READING: Final = frozenset(name for name, spec in CLIENT_TOOLS.items() if spec.read_only)


class User(Protocol):
    """Who sits at the terminal, if anybody does."""

    async def present(self, result: str, command: str | None) -> None:
        """Show what was done."""

    async def ask(self, question: str, options: list[str]) -> str:
        """Their answer. Raises ToolError when there is nobody to answer."""


def tools_of(workspace: Workspace, user: User) -> list[ClientTool]:
    """All tools, for one folder and its user."""

    def blocking(name: str, kind: type[A], function: Callable[[Workspace, A], Any]) -> ClientTool:
        return _tool(name, lambda given, _: function(workspace, _read(name, kind, given)))

    async def execute(given: dict[str, Any], context: CallContext) -> Any:
        asked = _read("execute_command", ExecuteCommand, given)
        return await running.execute_command(workspace, asked, context.progress)

    async def search(given: dict[str, Any], _: CallContext) -> Any:
        return await running.search_in_code(workspace, _read("search_in_code", SearchInCode, given))

    async def complete(given: dict[str, Any], _: CallContext) -> str:
        asked = _read("attempt_completion", AttemptCompletion, given)
        await user.present(asked.result, asked.command)
        return "The user was shown it."

    async def question(given: dict[str, Any], _: CallContext) -> str:
        asked = _read("ask_followup_question", AskFollowupQuestion, given)
        return await user.ask(asked.question, asked.options)

    return [
        blocking("read_file", ReadFile, files.read_file),
        blocking("write_file", WriteFile, files.write_file),
        blocking("list_files", ListFiles, files.list_files),
        blocking("create_directory", CreateDirectory, files.create_directory),
        blocking("delete_file", DeleteFile, files.delete_file),
        blocking("move_file", MoveFile, files.move_file),
        _tool("execute_command", execute),
        _tool("search_in_code", search),
        _tool("attempt_completion", complete),
        _tool("ask_followup_question", question),
    ]


def _tool(name: str, handler: Callable[[dict[str, Any], CallContext], Any | Awaitable[Any]]) -> ClientTool:
    spec = CLIENT_TOOLS[name]
    about = ToolDescription(
        name=name,
        description=spec.description,
        parameters=spec.parameters,
        read_only=spec.read_only,
        idempotent=spec.idempotent,
    )
    return ClientTool(about, handler)


def _read(name: str, kind: type[A], given: dict[str, Any]) -> A:
    unknown = given.keys() - set(kind.__struct_encode_fields__)
    if unknown:
        raise ToolError(f"invalid arguments for {name}: there is no parameter {', '.join(sorted(unknown))}")
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise ToolError(f"invalid arguments for {name}: {error}") from None
