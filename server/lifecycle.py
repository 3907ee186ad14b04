"""Starting and stopping the services, in order, also while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from protocol.errors import ErrorCode, ParleyError
from server.services import Phase, Services

__all__ = ["Lifecycle"]

_log: Final = structlog.stdlib.get_logger(__name__)

#: Seconds between tries to reach a database that is away at the start; the last one repeats.
_PAUSES: Final = (0.2, 0.5, 1.0, 2.0, 5.0)

#: Seconds that servers of tools may take before turns go on without those of them that are late.
_TOOLS_PATIENCE: Final = 3.0


class Lifecycle:
    """Brings the services up and takes them down; every step is idempotent, and stop is over when it returns.

    A database that does not answer is no reason not to start: the server listens, is not ready, and tries until it is.
    `on_failure` is called with a reason when it cannot go on: the embedded PostgreSQL was given up, or the database,
    once it answered, turned out to be unusable.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._waiting: asyncio.Task[None] | None = None
        self._started = False
        self.on_failure: Callable[[Exception], object] = lambda error: _log.error("server_failed", reason=str(error))

    async def start(self) -> None:
        """Start everything but the listener.

        Raises storage.embedded.EmbeddedError or server.store.StoreError when it is pointless to try again.
        """
        if self._started:
            return
        self._started = True
        services = self._services
        try:
            if services.store.embedded is not None:
                services.store.embedded.on_exit = self._failed
            await services.mcp.start()
            await services.store.start()
            await services.hub.start()
            await services.guests.start()
            try:
                await self._open()
            except ParleyError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
                _log.warning("database_away", database=services.store.name)
                self._waiting = asyncio.create_task(self._keep_trying(), name="await-database")
        except BaseException:
            await self.stop()
            raise

    async def drain(self, code: ErrorCode, retry_after: float) -> None:
        """End all streams and be no longer ready; requests that run go on. `retry_after` is in seconds."""
        self._services.phase = Phase.DRAINING
        await self._services.hub.close(code, retry_after=retry_after)

    async def stop(self) -> None:
        """Stop everything; running turns are left where they are, for the next process to go on with."""
        if self._services.phase is Phase.STOPPED:
            return
        self._services.phase = Phase.STOPPED
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
        services = self._services
        # Each in spite of what went wrong with those before: a server that stays behind is worse than an error.
        for name, stop in (
            ("presence", services.presence.stop),
            ("turns", services.turns.stop),
            ("mcp", services.mcp.stop),
            *([] if services.endpoint is None else [("endpoint", services.endpoint.stop)]),
            ("guests", services.guests.stop),
            ("hub", services.hub.stop),
            ("bus", services.bus.stop),
            ("database", services.db.close),
            ("postgres", services.store.stop),
        ):
            try:
                await stop()
            except Exception:  # noqa: BLE001 - it is logged whole, and the others have to be stopped too
                _log.exception("stop_failed", part=name)

    def _failed(self, error: Exception) -> None:
        self.on_failure(error)

    async def _open(self) -> None:
        services = self._services
        for name in await services.store.migrate():
            _log.info("migrated", migration=name)
        await services.db.open(services.store.address)
        # Turns that go on may be in the middle of calling their tools.
        await services.mcp.settled(_TOOLS_PATIENCE)
        await services.turns.start()
        # After the turns: others find this process by its lease, and so does the bus them.
        await services.bus.start()
        await services.presence.start()
        if services.phase is Phase.STARTING:
            services.phase = Phase.SERVING

    async def _keep_trying(self) -> None:
        tries = 0
        while True:
            await self._services.clock.sleep(_PAUSES[min(tries, len(_PAUSES) - 1)])
            tries += 1
            try:
                await self._open()
            except ParleyError as error:
                _log.debug("database_still_away", reason=str(error))
            except Exception as error:  # noqa: BLE001 - whoever runs the server decides, and logs it
                self.on_failure(error)
                return
            else:
                _log.info("database_back", database=self._services.store.name, tries=tries)
                return
