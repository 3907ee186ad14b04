"""One server of tools, and the task that owns the connection to it: opens it, lists, opens it again, closes it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from server.agents.interface import Tool
from server.agents.mcp.errors import AwayError
from server.agents.mcp.names import tool_names
from server.agents.mcp.settings import McpSettings
from server.agents.mcp.tool import McpTool, spec_of
from server.agents.threads import in_thread
from server.clock import Clock
from server.observe.redact import redact_text

if TYPE_CHECKING:
    from server.agents.mcp.connection import Connection

__all__ = ["Log", "McpServer"]

#: Seconds before it is tried again; the last one repeats.
_PAUSES: Final = (0.2, 1.0, 5.0, 15.0, 60.0)
#: What closing may take: a program gets two seconds each to end by itself, on SIGTERM, and on SIGKILL.
_CLOSE_PATIENCE: Final = 10.0
_STOP_PATIENCE: Final = _CLOSE_PATIENCE + 5.0
#: How often the list of a server elsewhere is read again, which also tells whether it is still there.
_REFRESH: Final = 60.0
#: How often a server that goes on announcing changes is listened to.
_BREATH: Final = 1.0

_log: Final = structlog.get_logger(__name__)


class Log(Protocol):
    """Where it is told what becomes of the connection."""

    def debug(self, event: str, **values: Any) -> Any:
        """What helps to find a mistake."""

    def info(self, event: str, **values: Any) -> Any:
        """What is in order."""

    def warning(self, event: str, **values: Any) -> Any:
        """What is not."""

    def error(self, event: str, **values: Any) -> Any:
        """What should not be possible."""


class McpServer:
    """Keeps a connection, and the tools that the server offers over it.

    `start()` returns at once, and a server that cannot be had is tried again for ever. `stop()` is over when the
    connection is closed and a program that was started is gone. Both may be called again.
    """

    def __init__(self, name: str, settings: McpSettings, base: Path, clock: Clock, log: Log = _log) -> None:
        self.name = name
        self.settings = settings
        #: Why there is no connection, if there is none.
        self.problem: str | None = "it has not been tried yet"
        #: Tools that it has and that cannot be offered, and why.
        self.left_out: Mapping[str, str] = {}
        self._log = log
        self._base = base
        self._clock = clock
        self._tools: Mapping[str, Tool] = MappingProxyType({})
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._opening: asyncio.Timeout | None = None
        self._stopping = asyncio.Event()
        self._ready = asyncio.Event()
        self._tried = asyncio.Event()
        self._news = asyncio.Event()
        self._gone = False
        self._changed = False
        self._last_words = ""

    @property
    def tools(self) -> Mapping[str, Tool]:
        """What it offers, by our names; a connection that is just being opened again takes none away."""
        return self._tools

    # --- life

    def start(self) -> None:
        """Begin to open the connection."""
        if self._task is None:
            self._stopping.clear()
            self._task = asyncio.create_task(self._own(), name=f"mcp-{self.name}")

    async def stop(self) -> None:
        """Close it."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        self._news.set()
        if self._connection is None and self._opening is not None:
            # Nothing but the end of its time ends an opening in order.
            self._opening.reschedule(asyncio.get_running_loop().time())
        await asyncio.wait({task}, timeout=_STOP_PATIENCE)
        if not task.done():
            self._log.error("mcp_stop_failed", server=self.name)
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
        self._tools = MappingProxyType({})

    async def tried(self) -> None:
        """Return when the first attempt has come to its end, whatever it was."""
        await self._tried.wait()

    async def connection(self, patience: float) -> Connection:
        """The connection, once there is one; raises AwayError when there is none within so many seconds."""
        try:
            async with asyncio.timeout(patience):
                while self._connection is None or self._gone:
                    self._ready.clear()
                    await self._ready.wait()
        except TimeoutError:
            raise AwayError(began=False) from None
        return self._connection

    # --- the owner

    async def _own(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                opened = await self._serve()
            except Exception as error:  # noqa: BLE001 - whatever the client raises: it is told, and tried again
                opened = self.problem is None
                self._failed(error)
            failures = 0 if opened else failures + 1
            if not opened:
                self._tools = MappingProxyType({})
            self._tried.set()
            await self._pause(_PAUSES[min(failures, len(_PAUSES) - 1)])

    async def _serve(self) -> bool:
        """Hold a connection until it is gone, or no longer wanted; whether there was one."""
        wire = await in_thread(lambda: importlib.import_module("server.agents.mcp.connection"))
        events = wire.Events(gone=self._is_gone, changed=self._has_changed, said=self._says)
        self._gone = self._changed = False
        self._last_words = ""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.settings.start_timeout) as limit:
                self._opening = limit
                async with wire.connected(self.settings, self._base, events) as connection:
                    self._take(await connection.tools())
                    self._opening = None
                    limit.reschedule(None)
                    self._open(connection)
                    try:
                        await self._stay(connection)
                    finally:
                        self._connection = None
                        limit.reschedule(loop.time() + _CLOSE_PATIENCE)
        finally:
            self._opening = None
        if not self._stopping.is_set():
            self._lost("it closed the connection")
        return True

    def _open(self, connection: Connection) -> None:
        self._connection = connection
        self.problem = None
        self._ready.set()
        self._tried.set()
        self._log.info("mcp_connected", server=self.name, tools=len(self._tools))

    async def _stay(self, connection: Connection) -> None:
        """Read the list again whenever it may have changed, until the connection is gone or no longer wanted."""
        while True:
            try:
                async with asyncio.timeout(None if self.settings.url is None else _REFRESH):
                    await self._news.wait()
            except TimeoutError:
                self._changed = True
            self._news.clear()
            if self._stopping.is_set() or self._gone:
                return
            if self._changed:
                self._changed = False
                self._take(await connection.tools())
                await self._pause(_BREATH)

    def _is_gone(self) -> None:
        self._gone = True
        self._news.set()

    def _has_changed(self) -> None:
        self._changed = True
        self._news.set()

    def _says(self, line: str) -> None:
        self._last_words = line
        self._log.debug("mcp_says", server=self.name, line=redact_text(line))

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until it is to stop."""
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({sleeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            stopping.cancel()

    # --- what it offers

    def _take(self, listed: list[Any]) -> None:
        """Make tools of what the server lists."""
        settings = self.settings
        wanted = {tool.name: tool for tool in listed if settings.tools is None or tool.name in settings.tools}
        tools: dict[str, Tool] = {}
        left_out: dict[str, str] = {}
        for theirs, ours in tool_names(self.name, wanted).items():
            spec = spec_of(ours, wanted[theirs], settings)
            if isinstance(spec, str):
                left_out[theirs] = spec
            else:
                tools[ours] = McpTool(spec, theirs, self, settings.timeout)
        for theirs in left_out.keys() - self.left_out.keys():
            self._log.warning("mcp_tool_left_out", server=self.name, tool=theirs, reason=left_out[theirs])
        self._tools, self.left_out = MappingProxyType(tools), left_out

    # --- what went wrong

    def _failed(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        wire = importlib.import_module("server.agents.mcp.connection")
        if isinstance(error, TimeoutError):
            text = f"it did not answer within {self.settings.start_timeout:g} s"
        else:
            text = self._without_secrets(wire.reason_of(error))
        if self._last_words:
            text += f"; its last words: {self._without_secrets(self._last_words)}"
        self._lost(text)

    def _lost(self, reason: str) -> None:
        # Once for each reason, not once for each attempt.
        say = self._log.debug if reason == self.problem else self._log.warning
        say("mcp_away", server=self.name, reason=reason)
        self.problem = reason

    def _without_secrets(self, text: str) -> str:
        secrets = [*self.settings.env.values(), *self.settings.headers.values(), *self.settings.args]
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= 8:
                text = text.replace(secret, "***")
        return redact_text(text)
