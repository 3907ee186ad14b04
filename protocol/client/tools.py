"""Tools that a client runs: functions with their descriptions, and what becomes of a call."""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias, overload
from uuid import UUID

import msgspec
from msgspec import Struct

from protocol.client.threads import in_thread
from protocol.commands import TOOL_NAME_PATTERN, ToolDescription
from protocol.tools import ToolError, arguments_of, parameters_schema

__all__ = ["CallContext", "ClientTool", "Offered", "Outcome", "as_tool", "client_tool"]

#: Characters of what a model is told of a failure, and people of a progress.
_LONGEST_ERROR: Final = 8000
_LONGEST_MESSAGE: Final = 500
#: What neither JSON nor PostgreSQL can keep, wherever it came from: NUL, lone surrogates.
_UNKEEPABLE: Final = re.compile("[\0\ud800-\udfff]")


class Outcome(Struct, frozen=True, omit_defaults=True):
    """What came of a call: a `result` as JSON, or an `error` that the model reads."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return len(self.result) if self.error is None else len(self.error)

    @property
    def value(self) -> Any:
        """The result as a plain value."""
        return msgspec.json.decode(self.result)

    @classmethod
    def failed(cls, error: str) -> Outcome:
        """A failure, in words that can be sent."""
        return cls(error=_sayable(error, _LONGEST_ERROR) or "it failed")


class CallContext:
    """A call that a tool runs for; a tool gets it by annotating a parameter with this type."""

    def __init__(
        self, call_id: str, name: str, turn_id: UUID, report: Callable[[str | None, float | None], None]
    ) -> None:
        self.call_id = call_id
        self.name = name
        self.turn_id = turn_id
        #: Set when the result is not wanted any more. Async functions are cancelled; others may look here.
        self.cancelled = False
        #: The thread that the call runs in, which may outlive it.
        self.thread: asyncio.Future[Any] | None = None
        self._report = report
        self._loop = asyncio.get_running_loop()

    def progress(self, message: str | None = None, fraction: float | None = None) -> None:
        """Tell everybody in the session how far it is; `fraction` is 0 to 1.

        From whatever thread, as often as you like: what comes too fast is merged. Nobody has to call this to keep the
        call: the client does so by itself.
        """
        message = None if message is None else _sayable(message, _LONGEST_MESSAGE)
        fraction = None if fraction is None or math.isnan(fraction) else min(max(float(fraction), 0.0), 1.0)
        with suppress(RuntimeError):  # the loop is closed: nobody is told anything any more
            self._loop.call_soon_threadsafe(self._report, message, fraction)


#: Runs a call, with its arguments as they came: they were checked by nobody.
Handler: TypeAlias = (
    Callable[[dict[str, Any], CallContext], Any] | Callable[[dict[str, Any], CallContext], Awaitable[Any]]
)


class ClientTool:
    """A tool that this client can run: what models are told of it, and the function that does it.

    `handler` gets the arguments and a `CallContext`; what it returns is the result. A function that is not async runs
    in a thread of its own. ToolError is for what the model should read; of other exceptions it reads type and text.
    """

    def __init__(self, description: ToolDescription, handler: Handler) -> None:
        if re.search(TOOL_NAME_PATTERN, description.name) is None:
            raise ValueError(f"tool name {description.name!r} must be 1-64 characters [A-Za-z0-9_.-]")
        self.description = description
        self._handler = handler

    async def call(self, arguments: Any, context: CallContext) -> Outcome:
        """Run it. Nothing that it does wrong is raised; only being cancelled is."""
        name = self.description.name
        if not isinstance(arguments, dict):
            return Outcome.failed(f"the arguments for {name} are no object")
        try:
            return _outcome(name, await self._run(arguments, context))
        except ToolError as error:
            return Outcome.failed(error.message)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if _is_being_cancelled(error):
                raise
            return Outcome.failed(f"{name} failed: {type(error).__name__}: {error}")

    async def _run(self, arguments: dict[str, Any], context: CallContext) -> Any:
        if inspect.iscoroutinefunction(self._handler):
            return await self._handler(arguments, context)
        context.thread = in_thread(lambda: self._handler(arguments, context))
        # It cannot be cancelled: only the waiting for it can.
        result = await asyncio.shield(context.thread)
        return await result if inspect.isawaitable(result) else result


def _outcome(name: str, result: Any) -> Outcome:
    try:
        return Outcome(msgspec.Raw(msgspec.json.encode(result)))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        return Outcome.failed(f"the result of {name} is no JSON value: {error}")


def _is_being_cancelled(error: BaseException) -> bool:
    """Whether somebody asked this task to end; other people's code raises CancelledError by itself, too."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _sayable(text: str, limit: int) -> str:
    text = _UNKEEPABLE.sub("\ufffd", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


@overload
def client_tool(function: Callable[..., Any], /) -> ClientTool: ...


@overload
def client_tool(
    *,
    name: str | None = None,
    description: str | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    independent: bool = False,
) -> Callable[[Callable[..., Any]], ClientTool]: ...


def client_tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    independent: bool = False,
) -> ClientTool | Callable[[Callable[..., Any]], ClientTool]:
    """Make a tool of a function: its signature is the schema, its docstring what the model reads.

        @client_tool(read_only=True)
        def count_lines(path: str) -> int:
            \"\"\"Count the lines of a file.\"\"\"
            return len(Path(path).read_text().splitlines())

    `read_only`: changes nothing; `idempotent`: a second run changes nothing more; `independent`: may run beside any
    other call of its step. A parameter annotated with `CallContext` is filled in and is no part of the schema.

    Raises TypeError for a parameter that cannot come as JSON, ValueError for a missing docstring or an unusable name.
    """

    def decorate(decorated: Callable[..., Any]) -> ClientTool:
        chosen = name if name is not None else decorated.__name__
        arguments, context_parameter = arguments_of(chosen, decorated, CallContext)
        text = description if description is not None else inspect.getdoc(decorated)
        if not text:
            raise ValueError(f"tool {chosen!r} needs a docstring: it is what the model reads")
        about = ToolDescription(
            name=chosen,
            description=text,
            parameters=parameters_schema(arguments),
            read_only=read_only,
            idempotent=idempotent or read_only,
            independent=independent,
        )
        return ClientTool(about, _handler(decorated, arguments, context_parameter))

    return decorate if function is None else decorate(function)


def _handler(function: Callable[..., Any], arguments: type[Struct], context_parameter: str | None) -> Handler:
    """The function behind a check of its arguments."""

    def checked(given: dict[str, Any], context: CallContext) -> dict[str, Any]:
        try:
            found = msgspec.convert(given, arguments, str_keys=True)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ToolError(f"invalid arguments for {arguments.__name__}: {error}") from None
        named = {field: getattr(found, field) for field in arguments.__struct_fields__}
        return named if context_parameter is None else named | {context_parameter: context}

    if inspect.iscoroutinefunction(function):

        async def waited(given: dict[str, Any], context: CallContext) -> Any:
            return await function(**checked(given, context))

        return waited
    return lambda given, context: function(**checked(given, context))


#: What may be offered: a tool, or a function that becomes one.
Offered: TypeAlias = ClientTool | Callable[..., Any]


def as_tool(offered: Offered) -> ClientTool:
    """The tool. Raises what `client_tool` raises."""
    return offered if isinstance(offered, ClientTool) else client_tool(offered)
