"""A connection to one server, by the protocol's official client: the only module that imports it.

Importing it takes most of a second, so it is imported where a server is configured, and in a thread.

A connection belongs to the task that opens it and must be closed by the same one, as what the client does beneath is
bound to tasks. Other tasks may call tools over it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from mcp import Client, MCPError, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from server.agents.mcp.errors import AwayError, RefusedError
from server.agents.mcp.saying import read_lines
from server.agents.mcp.settings import McpSettings
from server.version import VERSION

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

__all__ = ["Connection", "Events", "connected", "reason_of"]

#: Pages of a list of tools, and tools of one server, beyond which somebody means no good.
_MOST_PAGES: Final = 100
_MOST_TOOLS: Final = 500
_MOST_ERROR: Final = 2_000
_LISTEN_AGAIN: Final = (1.0, 5.0, 30.0)

T = TypeVar("T")
Streams: TypeAlias = "AbstractAsyncContextManager[TransportStreams]"

# What it says of each request, and of each line of a program's that is no message, is not for our log; what becomes of
# a connection, its owner logs.
for _name in ("mcp", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Events:
    """Whom a connection tells what: that it is gone, that the tools are others now, a line of a program's own log."""

    gone: Callable[[], None]
    changed: Callable[[], None]
    said: Callable[[str], None]


class Connection:
    """What can be asked of a server; any task may."""

    def __init__(self, client: Client, events: Events) -> None:
        self._client = client
        self._events = events

    async def tools(self) -> list[types.Tool]:
        """All tools that it offers now, page by page. Raises RefusedError, AwayError, TimeoutError."""
        found: list[types.Tool] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._asked(self._client.list_tools(cursor=cursor, cache_mode="bypass"))
            found += page.tools
            cursor = page.next_cursor
            if not cursor or len(found) >= _MOST_TOOLS:
                break
        return found[:_MOST_TOOLS]

    async def call(self, name: str, arguments: dict[str, Any], timeout: float) -> types.CallToolResult:
        """Call one. Cancelling this, or its time-out, is told to the server. Raises as `tools` does."""
        request = self._client.call_tool(name, arguments, read_timeout_seconds=timeout)
        return await self._asked(request)

    async def _asked(self, request: Coroutine[Any, Any, T]) -> T:
        try:
            return await request
        except MCPError as error:
            if error.code == types.REQUEST_TIMEOUT:
                raise TimeoutError from None
            if error.code == types.CONNECTION_CLOSED:
                self._events.gone()
                raise AwayError(began=True) from None
            if error.code == types.INVALID_REQUEST and error.message == "Session terminated":
                # It was started anew, and knows nothing of us: nothing has been done.
                self._events.gone()
                raise AwayError(began=False) from None
            raise RefusedError(error.message[:_MOST_ERROR]) from None


@asynccontextmanager
async def connected(settings: McpSettings, base: Path, events: Events) -> AsyncGenerator[Connection, None]:
    """A connection as long as the block lasts; the program, where it is one, is started and ended with it.

    `base` is where relative paths start. Raises OSError for a program that cannot be started, and whatever the client
    raises (`reason_of` puts it in words), in groups as it may be.
    """
    streams = _program(settings, base, events) if settings.command is not None else _address(settings)

    async def heard(message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            events.changed()

    client = Client(
        _Watched(streams, events.gone),
        message_handler=heard,
        client_info=types.Implementation(name="parley", version=VERSION),
        read_timeout_seconds=settings.timeout,
        cache=None,
    )
    async with client:
        listening = asyncio.create_task(_listen(client, events.changed)) if _must_listen(client) else None
        try:
            yield Connection(client, events)
        finally:
            if listening is not None:
                listening.cancel()
                await asyncio.wait({listening})


@asynccontextmanager
async def _program(settings: McpSettings, base: Path, events: Events) -> AsyncGenerator[TransportStreams, None]:
    parameters = StdioServerParameters(
        command=settings.command or "",
        args=list(settings.args),
        env=dict(settings.env),
        cwd=None if settings.cwd is None else base / settings.cwd,
    )
    async with read_lines(events.said) as errors, stdio_client(parameters, errlog=errors) as streams:
        # It has its own by now. While we hold ours, nobody can tell that it has ended.
        errors.close()
        yield streams


@asynccontextmanager
async def _address(settings: McpSettings) -> AsyncGenerator[TransportStreams, None]:
    async with (
        create_mcp_http_client(headers=dict(settings.headers)) as http,
        streamable_http_client(settings.url or "", http_client=http) as streams,
    ):
        yield streams


def _must_listen(client: Client) -> bool:
    offered = client.server_capabilities.tools
    # Before these versions servers announce changes to everybody.
    modern = client.protocol_version in MODERN_PROTOCOL_VERSIONS
    return modern and offered is not None and bool(offered.list_changed)


async def _listen(client: Client, changed: Callable[[], None]) -> None:
    """Hear of changes of the list, and look at it again whenever some may have been missed."""
    tries = 0
    while True:
        try:
            async with client.listen(tools_list_changed=True) as subscription:
                if not subscription.honored.tools_list_changed:
                    return
                tries = 0
                changed()
                async for _ in subscription:
                    changed()
        except (MCPError, RuntimeError, TimeoutError):
            tries += 1
        await asyncio.sleep(_LISTEN_AGAIN[min(tries, len(_LISTEN_AGAIN) - 1)])


class _Watched:
    """A transport that tells when nothing more comes from the other side, which the client itself tells nobody."""

    def __init__(self, inner: Streams, ended: Callable[[], None]) -> None:
        self._inner = inner
        self._ended = ended

    async def __aenter__(self) -> Any:
        read, write = await self._inner.__aenter__()
        return _WatchedStream(read, self._ended), write

    async def __aexit__(self, *error: object) -> bool | None:
        return await self._inner.__aexit__(*error)  # type: ignore[arg-type] # the three of the protocol


class _WatchedStream:
    def __init__(self, inner: Any, ended: Callable[[], None]) -> None:
        self._inner = inner
        self._ended = ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._inner.__anext__()
        except Exception:
            self._ended()
            raise

    async def __aenter__(self) -> Any:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await self._inner.__aexit__(*error)


def reason_of(error: BaseException) -> str:
    """What went wrong, in a line: of a group, the first of what it holds."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, AwayError):
        return "it closed the connection"
    text = str(error).partition("\n")[0].strip()
    return text[:_MOST_ERROR] if text else f"the connection broke ({type(error).__name__})"
