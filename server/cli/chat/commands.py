"""What begins with a slash in a chat: a table of commands, their completion, and their help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

__all__ = ["Command", "Commands", "is_command", "said"]

#: What completes the argument of a command: a value, and what it means.
Values = Callable[[], Iterable[tuple[str, str]]]


class Command(NamedTuple):
    """`run` gets what stands behind the command's name."""

    name: str
    argument: str
    summary: str
    run: Callable[[str], Awaitable[None]]
    values: Values | None = None


def is_command(text: str) -> bool:
    """Whether a text that was entered is one of these, and not something to be said."""
    return text.startswith("/") and not text.startswith("//")


def said(text: str) -> str:
    """What is to be said: a text that begins with a slash is entered with two."""
    return text[1:] if text.startswith("//") else text


class Commands(Completer):
    """The commands of a chat."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._commands: Mapping[str, Command] = {command.name: command for command in commands}

    async def run(self, text: str) -> str | None:
        """Run what was entered; a sentence where there is no such command."""
        name, _, argument = text[1:].strip().partition(" ")
        command = self._commands.get(name.lower())
        if command is None:
            begun = [one for one in self._commands if name and one.startswith(name.lower())]
            if len(begun) != 1:
                return f"there is no command /{name}; /help lists them. To say it, begin with two slashes: /{text}"
            command = self._commands[begun[0]]
        await command.run(argument.strip())
        return None

    def help(self) -> str:
        """A line for each command."""
        usages = {f"/{command.name} {command.argument}".strip(): command.summary for command in self._commands.values()}
        width = max(map(len, usages))
        return "\n".join(f"{usage.ljust(width)}  {summary}" for usage, summary in usages.items())

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Names of commands, and then what the command may be given."""
        text = document.text_before_cursor
        if not is_command(text) or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for command in self._commands.values():
                if command.name.startswith(name.lower()):
                    yield Completion(f"/{command.name}", -len(text), display_meta=command.summary)
            return
        found = self._commands.get(name.lower())
        for value, meaning in found.values() if found is not None and found.values is not None else ():
            if value.startswith(argument):
                yield Completion(value, -len(argument), display_meta=meaning)


KEYS: Final = """\
Enter       say it                     Alt-Enter, Ctrl-J   a new line
Ctrl-C      stop the answer; leave     Esc                 stop the answer
Ctrl-D      leave                      Up, Down            what you said before"""
