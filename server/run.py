"""The server as a process: a listener in front of the application, until a signal or a failure ends it."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog
from aiohttp import web

from server.app import LIFECYCLE, build, create_app
from server.config import Config, ServerSettings
from server.observe.access import AccessLog
from server.services import Services
from server.tls.certificates import Certificates

__all__ = ["ListenError", "listen", "make_runner", "run", "settle"]

_log: Final = structlog.stdlib.get_logger(__name__)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

#: What stopping may take beyond `shutdown_timeout`, which is for requests alone: streams, turns, pool and PostgreSQL
#: each have a bound of their own, and this is more than all of them together. Seconds.
_STOP_MARGIN: Final = 60.0
#: What stopping may still take once it is hurried, or over time.
_HURRIED_MARGIN: Final = 10.0
#: Objects that may have come into being, and not gone, before the collector looks at them.
_GARBAGE: Final = 20_000
#: How long tasks that are cancelled once more, at the very end, may take. Seconds.
_LEAVE_PATIENCE: Final = 2.0


class ListenError(Exception):
    """The address cannot be listened on; the text says why and what to do."""


async def run(config: Config, announce: Callable[[str, Services], object]) -> int:
    """Serve until SIGINT or SIGTERM; 0, or 1 when a part of the server failed for good.

    `announce` is called with the address and the services once the listener is there. A second signal cuts what the
    first one let finish, and SIGHUP has certificates looked at. Raises ConfigError, ListenError, EmbeddedError and
    StoreError when the server cannot start.
    """
    services = await build(config)
    certificates = Certificates(config, services.clock) if config.tls.enabled else None
    app = create_app(services)
    runner = make_runner(app, config.server)
    stop = _Stop()
    app[LIFECYCLE].on_failure = stop.failed
    with stop.on_signals(None if certificates is None else certificates.look):
        try:
            await runner.setup()
            address = await listen(runner, config.server, certificates)
            settle()
            announce(address, services)
            await stop.asked.wait()
            _log.info("stopping", reason=stop.reason)
        finally:
            await _take_down(runner, stop, config.server.shutdown_timeout + _STOP_MARGIN)
            await app[LIFECYCLE].stop()
            if certificates is not None:
                await certificates.stop()
    await _leave(stop.exit_code)
    return stop.exit_code


class _Stop:
    """Why and how fast the server is to stop."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.reason = ""
        self.exit_code = 0

    def failed(self, error: Exception) -> None:
        _log.error("server_failed", reason=str(error))
        self.exit_code = 1
        self._ask("failure")

    @contextmanager
    def on_signals(self, hang_up: Callable[[], object] | None) -> Iterator[None]:
        """Ask to stop on SIGINT and SIGTERM, and call `hang_up`, if given, on SIGHUP, within the block."""
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], object]] = {
            each: partial(self._ask, each.name) for each in _SIGNALS
        }
        if hang_up is not None:
            handlers[signal.SIGHUP] = hang_up
        for each, handler in handlers.items():
            loop.add_signal_handler(each, handler)
        try:
            yield
        finally:
            for each in handlers:
                loop.remove_signal_handler(each)

    def _ask(self, reason: str) -> None:
        if self.asked.is_set():
            self.hurried.set()
        self.reason = self.reason or reason
        self.asked.set()


def make_runner(app: web.Application, settings: ServerSettings) -> web.AppRunner:
    """What the application runs in, set up as it must be for streams."""
    return web.AppRunner(
        app,
        access_log=logging.getLogger("server.access"),
        access_log_class=AccessLog,
        # A stream's handler has to end with its client, not with the next write that fails.
        handler_cancellation=True,
        keepalive_timeout=settings.keepalive_timeout,
        shutdown_timeout=settings.shutdown_timeout,
    )


def settle() -> None:
    """Tell the collector of cyclic garbage what is there for good, and to look less often: called when all is set up.

    Commands leave no cycles, but have so many objects under way at once that its default (700 more than before) finds
    itself called for all the time, to find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE, 10, 10)


async def listen(runner: web.AppRunner, settings: ServerSettings, certificates: Certificates | None = None) -> str:
    """Open the listener, with certificates for HTTPS alone; the address under which this machine reaches it.

    Raises ListenError.
    """
    context = None if certificates is None else certificates.context
    site = web.TCPSite(runner, settings.host, settings.port, reuse_address=True, backlog=1024, ssl_context=context)
    try:
        await site.start()
    except OSError as error:
        raise ListenError(_why_not(error, f"{settings.host} port {settings.port}")) from error
    host = settings.host.strip("[]")
    # Everywhere includes here, and only here is certain to be a name that a browser can be given.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    if certificates is not None:
        certificates.start()
    return f"http{'' if certificates is None else 's'}://{f'[{host}]' if ':' in host else host}:{site.port}"


def _why_not(error: OSError, where: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use; choose another with --port, or let --port 0 find a free one"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"{where} may not be used by this user; ports below 1024 are the administrator's"
    return f"cannot listen on {where}: {error.strerror or error}"


async def _leave(exit_code: int) -> None:
    """End what is left of other people's code; what does not end within bounds is left to the end of the process.

    Everything of ours is closed and flushed by now. An agent that swallows its cancellation would keep Python's own
    way out, which waits for every task, waiting for ever.
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=_LEAVE_PATIENCE)
    if left:
        _log.error("tasks_left_behind", tasks=sorted(task.get_name() for task in left))
        logging.shutdown()
        sys.stdout.flush()
        os._exit(exit_code)


async def _take_down(runner: web.AppRunner, stop: _Stop, bound: float) -> None:
    """Stop in order and in bounded time: let things finish; when hurried or over time, cut them."""
    ending = asyncio.create_task(runner.cleanup(), name="cleanup")
    hurried = asyncio.create_task(stop.hurried.wait(), name="hurried")
    try:
        await asyncio.wait({ending, hurried}, timeout=bound, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            _log.warning("stopping_hurried", reason="second signal" if hurried.done() else "over time")
            if runner.server is not None:
                await runner.server.shutdown(0)
            await asyncio.wait({ending}, timeout=_HURRIED_MARGIN)
        if not ending.done():
            _log.error("stopping_abandoned")
            ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        if not ending.cancelled() and (error := ending.exception()) is not None:
            _log.error("cleanup_failed", exc_info=error)
    finally:
        hurried.cancel()
        await asyncio.gather(hurried, return_exceptions=True)
