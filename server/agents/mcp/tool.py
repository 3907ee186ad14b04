"""A tool of another server as one of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog

from server.agents.bounded import within
from server.agents.interface import ToolContext, ToolSpec
from server.agents.mcp.errors import AwayError, RefusedError
from server.agents.mcp.results import result_of
from server.agents.mcp.settings import McpSettings
from server.agents.tools import ToolError, is_being_cancelled

if TYPE_CHECKING:
    from mcp import types

    from server.agents.mcp.connection import Connection

__all__ = ["McpTool", "Owner", "spec_of"]

#: Seconds that a call may take beyond its time-out before it is given up here, whatever the server does.
_MARGIN: Final = 5.0
#: How long a call waits for a server that is just being started anew, in seconds.
_PATIENCE: Final = 10.0
_DESCRIPTION: Final = 8_192

_log: Final = structlog.get_logger(__name__)


class Owner(Protocol):
    """The server that a tool belongs to."""

    @property
    def name(self) -> str:
        """What it is called."""

    async def connection(self, patience: float) -> Connection:
        """The connection, once there is one; raises AwayError when there is none in that time."""
        ...


class McpTool:
    """Calls one tool of a server, as long as it takes and no longer than it may."""

    def __init__(self, spec: ToolSpec, theirs: str, owner: Owner, timeout: float) -> None:
        self.spec = spec
        #: What the server calls it.
        self.theirs = theirs
        self._owner = owner
        self._timeout = timeout

    async def call(self, arguments_json: str, context: ToolContext) -> Any:
        """Run it there; raises ToolError for whatever goes wrong. Cancelling this is told to the server."""
        del context
        name, timeout = self.spec.name, self._timeout
        try:
            called = await within(timeout + _MARGIN, self._called(_decoded(name, arguments_json)), name)
            return result_of(name, called)
        except TimeoutError:
            raise ToolError(f"{name} took longer than {timeout:g} s and was stopped") from None
        except AwayError as error:
            state = "went away while it ran; it may or may not have taken effect" if error.began else "is away"
            raise ToolError(f"the server {self._owner.name} of {name} {state}") from None
        except RefusedError as error:
            raise ToolError(f"{name} failed: {error}") from None
        except ToolError:
            raise
        except Exception as error:
            if is_being_cancelled(error):
                raise
            # As with our own tools: what it says may hold secrets.
            _log.exception("tool_failed", tool=name)
            raise ToolError(f"{name} failed ({type(error).__name__})") from error

    async def _called(self, arguments: dict[str, Any]) -> types.CallToolResult:
        connection = await self._owner.connection(min(self._timeout, _PATIENCE))
        try:
            return await connection.call(self.theirs, arguments, self._timeout)
        except AwayError as error:
            if error.began:
                raise
        # It was started anew and has not seen the call.
        connection = await self._owner.connection(min(self._timeout, _PATIENCE))
        return await connection.call(self.theirs, arguments, self._timeout)


def spec_of(name: str, tool: types.Tool, settings: McpSettings) -> ToolSpec | str:
    """The tool as agents see it, or why it cannot be offered.

    What a server says of its tools counts only where the configuration trusts it.
    """
    from server.agents.schemas import schema_problem

    schema = {**tool.input_schema, "type": tool.input_schema.get("type", "object")}
    if problem := schema_problem(schema):
        return f"its schema is not usable: {problem}"
    hints = tool.annotations if settings.trust else None
    read_only = tool.name in settings.read_only or bool(
        hints is not None and hints.read_only_hint and not hints.destructive_hint
    )
    return ToolSpec(
        name=name,
        description=(tool.description or tool.title or tool.name)[:_DESCRIPTION],
        parameters=schema,
        executor="server",
        read_only=read_only,
        idempotent=read_only or bool(hints is not None and hints.idempotent_hint),
        extra=True,
        agents=settings.agents,
    )


def _decoded(name: str, arguments_json: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(arguments_json.strip() or "{}", type=dict[str, Any])
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ToolError(f"the arguments for {name} are no JSON object: {error}") from None
