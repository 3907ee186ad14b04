"""The tools that run at the client (an editor, a script), as the shipped agents know them.

Each is a struct: its fields are the parameters, with types, defaults and limits. A client that registers a tool of the
same name with a schema of its own replaces the specification here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from server.agents.interface import AgentDefinition, ToolSpec
from server.agents.tools import parameters_schema

__all__ = ["CLIENT_TOOLS", "WRITTEN_FILES", "file_refusal"]

#: Characters of a path in a message.
_SHOWN: Final = 200

Path = Annotated[str, Meta(min_length=1, max_length=4096, description="Path in the workspace; forward slashes.")]
Encoding = Annotated[str, Meta(min_length=1, max_length=40, description="Name of the text encoding.")]
Line = Annotated[int, Meta(ge=1, description="Line number, counted from 1, inclusive.")]


class ReadFile(Struct, kw_only=True):
    """Read a text file, whole or from start_line to end_line."""

    path: Path
    encoding: Encoding = "utf-8"
    start_line: Line | None = None
    end_line: Line | None = None


class WriteFile(Struct, kw_only=True):
    """Write a text file whole: it is created, or its content is replaced."""

    path: Path
    content: Annotated[str, Meta(description="The complete new content of the file.")]
    encoding: Encoding = "utf-8"
    create_dirs: Annotated[bool, Meta(description="Create missing folders above the file.")] = False
    backup: Annotated[bool, Meta(description="Keep the previous content beside the file.")] = False


class ListFiles(Struct, kw_only=True):
    """List the files and folders of a folder."""

    path: Path = "."
    recursive: Annotated[bool, Meta(description="Descend into folders.")] = False
    include_hidden: Annotated[bool, Meta(description="List names that start with a dot.")] = False
    pattern: Annotated[str | None, Meta(description="Only names that match, such as *.py.")] = None


class CreateDirectory(Struct, kw_only=True):
    """Create a folder; it is no error if it exists."""

    path: Path
    recursive: Annotated[bool, Meta(description="Create missing folders above it.")] = True


class ExecuteCommand(Struct, kw_only=True):
    """Run a command on the user's machine and return its exit code and output."""

    command: Annotated[str, Meta(min_length=1, description="The command line.")]
    cwd: Annotated[str | None, Meta(description="Folder to run it in; the workspace when missing.")] = None
    timeout: Annotated[int, Meta(ge=1, le=300, description="Seconds after which it is stopped.")] = 60
    shell: Annotated[bool, Meta(description="Let the user's shell interpret pipes and variables.")] = False


class SearchInCode(Struct, kw_only=True):
    """Search the files of the workspace for a text or a regular expression; returns file, line and text."""

    query: Annotated[str, Meta(min_length=1, description="What to search for.")]
    path: Path = "."
    file_pattern: Annotated[str | None, Meta(description="Only files that match, such as *.py.")] = None
    case_sensitive: bool = False
    regex: Annotated[bool, Meta(description="The query is a regular expression.")] = False
    max_results: Annotated[int, Meta(ge=1, le=1000, description="Most matches returned.")] = 100


class DeleteFile(Struct, kw_only=True):
    """Delete a file."""

    path: Path


class MoveFile(Struct, kw_only=True):
    """Move or rename a file."""

    source: Path
    destination: Path
    overwrite: Annotated[bool, Meta(description="Replace an existing destination.")] = False


class AttemptCompletion(Struct, kw_only=True):
    """Present the finished work to the user: what was done, and how to see it."""

    result: Annotated[str, Meta(min_length=1, description="What was done, in a few sentences.")]
    command: Annotated[str | None, Meta(description="A command that shows the result.")] = None


class AskFollowupQuestion(Struct, kw_only=True):
    """Ask the user one question whose answer is needed to go on."""

    question: Annotated[str, Meta(min_length=1)]
    options: Annotated[list[str], Meta(max_length=10, description="Answers to choose from.")] = []


def _spec(name: str, arguments: type[Struct], *, read_only: bool = False, idempotent: bool = False) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=arguments.__doc__ or "",
        parameters={**parameters_schema(arguments), "additionalProperties": False},
        executor="client",
        read_only=read_only,
        idempotent=idempotent or read_only,
    )


CLIENT_TOOLS: Mapping[str, ToolSpec] = {
    spec.name: spec
    for spec in (
        _spec("read_file", ReadFile, read_only=True),
        _spec("write_file", WriteFile, idempotent=True),
        _spec("list_files", ListFiles, read_only=True),
        _spec("create_directory", CreateDirectory, idempotent=True),
        _spec("execute_command", ExecuteCommand),
        _spec("search_in_code", SearchInCode, read_only=True),
        _spec("delete_file", DeleteFile),
        _spec("move_file", MoveFile),
        _spec("attempt_completion", AttemptCompletion, read_only=True),
        _spec("ask_followup_question", AskFollowupQuestion, read_only=True),
    )
}
"""Every client tool by name."""

WRITTEN_FILES: Mapping[str, tuple[str, ...]] = {
    "write_file": ("path",),
    "create_directory": ("path",),
    "delete_file": ("path",),
    "move_file": ("source", "destination"),
}
"""For each tool that changes files, the parameters that name them: what an agent's ``file_patterns`` apply to."""


def file_refusal(definition: AgentDefinition, tool_name: str, arguments: Mapping[str, Any]) -> str | None:
    """Why the agent may not change the files that this call would change, for the model; ``None`` when it may.

    Ask before the call is stored or anybody is asked to approve it.
    """
    if definition.file_patterns is None:
        return None
    for parameter in WRITTEN_FILES.get(tool_name, ()):
        path = arguments.get(parameter)
        if not isinstance(path, str) or not definition.allows_file(path):
            patterns = ", ".join(definition.file_patterns)
            said = repr(path[:_SHOWN]) if isinstance(path, str) else "no text"
            return (
                f"the {definition.type} agent may change only files of the workspace that match {patterns}; "
                f"{parameter} is {said}"
            )
    return None
