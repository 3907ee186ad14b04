"""Tools that the server runs itself, made from Python functions.

::

    @tool(read_only=True)
    async def weather(city: str, days: Annotated[int, Meta(ge=1, le=7)] = 1) -> dict[str, str]:
        \"\"\"Tell the weather of a city for the next days.\"\"\"

The signature is the schema: it becomes a msgspec struct, from which come the JSON Schema that the model reads and the
validation of what the model sends. The docstring is the description. A parameter annotated with ``ToolContext`` is
filled in by the server and is no part of the schema. Synchronous functions run in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Coroutine
from typing import Any, overload

import msgspec
import structlog

from protocol.tools import ToolError, arguments_of, parameters_schema
from server.agents.bounded import within
from server.agents.interface import ToolContext, ToolSpec
from server.agents.threads import TooManyThreadsError, in_thread

__all__ = [
    "DEFAULT_TIMEOUT",
    "MAX_RESULT_BYTES",
    "ServerTool",
    "ToolError",
    "is_being_cancelled",
    "parameters_schema",
    "tool",
]

DEFAULT_TIMEOUT = 60.0
"""Seconds that a tool may take unless it says otherwise."""

MAX_RESULT_BYTES = 256 * 1024
"""Largest result, in bytes of JSON; what is larger belongs in a file that the model reads in pieces."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_log = structlog.get_logger(__name__)


class ServerTool:
    """A Python function as a tool: ``spec`` for the model, ``call`` for the engine."""

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        read_only: bool = False,
        idempotent: bool = False,
        independent: bool = False,
    ) -> None:
        """Read the function's signature and docstring.

        ``timeout`` is in seconds. Raises ``TypeError`` for a signature that has no JSON counterpart (no annotation,
        ``*args``, positional-only) and ``ValueError`` for a missing docstring or a name that models refuse.
        """
        chosen = name if name is not None else function.__name__
        if not _NAME.fullmatch(chosen):
            raise ValueError(f"tool name {chosen!r} must be 1-64 characters [A-Za-z0-9_-]")
        description = inspect.getdoc(function)
        if not description:
            raise ValueError(f"tool {chosen!r} needs a docstring: it is what the model reads")
        self.timeout = timeout
        self._function = function
        self._arguments, self._context_parameter = arguments_of(chosen, function, ToolContext)
        self.spec = ToolSpec(
            name=chosen,
            description=description,
            parameters=parameters_schema(self._arguments),
            executor="server",
            read_only=read_only,
            idempotent=idempotent or read_only,
            independent=independent,
        )

    async def call(self, arguments_json: str, context: ToolContext) -> Any:
        """Validate the arguments, run the function and return its result as a JSON value.

        Raises ``ToolError`` for arguments that do not fit (naming the field), for a result that is too large or no
        JSON, for a time-out, and for whatever the function raised. Cancelling this call cancels an async function at
        once; a synchronous one, and one that swallows its cancellation, is left to finish, and its result is dropped.
        """
        arguments = self._decode(arguments_json)
        if self._context_parameter is not None:
            arguments[self._context_parameter] = context
        return self._encode(await self._run(arguments))

    def _decode(self, arguments_json: str) -> dict[str, Any]:
        try:
            decoded = msgspec.json.decode(arguments_json.strip() or "{}", type=self._arguments)
        except msgspec.ValidationError as error:
            raise ToolError(f"invalid arguments for {self.spec.name}: {error}") from None
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise ToolError(f"the arguments for {self.spec.name} are not valid JSON: {error}") from None
        return {field: getattr(decoded, field) for field in self._arguments.__struct_fields__}

    async def _run(self, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            work = self._function(**arguments)
        else:
            work = in_thread(functools.partial(self._function, **arguments))
        try:
            return await within(self.timeout, self._told(work), self.spec.name)
        except TimeoutError:
            raise ToolError(f"{self.spec.name} took longer than {self.timeout:g} s and was stopped") from None

    async def _told(self, work: Coroutine[Any, Any, Any]) -> Any:
        """What the work returns; what it raises as the model should read it."""
        try:
            return await work
        except ToolError:
            raise
        except TooManyThreadsError:
            raise ToolError(f"{self.spec.name} cannot run now: too many tools are running") from None
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if is_being_cancelled(error):
                raise
            # What the exception says may hold paths and secrets: it is for the log, not for the model.
            _log.exception("tool_failed", tool=self.spec.name)
            raise ToolError(f"{self.spec.name} failed ({type(error).__name__})") from error

    def _encode(self, result: Any) -> Any:
        try:
            encoded = msgspec.json.encode(result)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ToolError(f"the result of {self.spec.name} is no JSON value: {error}") from None
        if len(encoded) > MAX_RESULT_BYTES:
            raise ToolError(
                f"the result of {self.spec.name} has {len(encoded)} bytes, more than the {MAX_RESULT_BYTES} allowed; "
                "ask for less of it"
            )
        if _NUL.search(encoded):
            raise ToolError(f"the result of {self.spec.name} holds a NUL character, which cannot be stored")
        return msgspec.json.decode(encoded)


def is_being_cancelled(error: BaseException) -> bool:
    """Whether the exception is the cancellation that somebody asked of the present task.

    Other people's code also raises CancelledError by itself, as when it awaits a task that it has cancelled, and calls
    `sys.exit`; both are failures of that code and nothing else, and the latter must not take the server along.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


@overload
def tool(function: Callable[..., Any], /) -> ServerTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    timeout: float = ...,
    read_only: bool = False,
    idempotent: bool = False,
    independent: bool = False,
) -> Callable[[Callable[..., Any]], ServerTool]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    read_only: bool = False,
    idempotent: bool = False,
    independent: bool = False,
) -> ServerTool | Callable[[Callable[..., Any]], ServerTool]:
    """Make a server tool from a function; see ``ServerTool`` for the options and for what is refused.

    ``read_only`` tools change nothing and may therefore be run again; ``idempotent`` ones change something, but a
    second run with the same arguments changes nothing more. Everything else is run at most once. ``independent`` ones
    may run beside any other call of their step; without it a call waits for those before it that it may depend on.
    """

    def decorate(decorated: Callable[..., Any]) -> ServerTool:
        return ServerTool(
            decorated,
            name=name,
            timeout=timeout,
            read_only=read_only,
            idempotent=idempotent,
            independent=independent,
        )

    return decorate if function is None else decorate(function)
