"""Reading the log for channels: few reads at once, one for all who want the same page, and patience."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol
from uuid import UUID

import structlog

from protocol.envelope import Event
from protocol.errors import ErrorCode, ParleyError
from server.channel.channel import Channel
from server.channel.context import Context
from storage.log import StoredEvent

__all__ = ["Log", "LogReader"]

_log: Final = structlog.stdlib.get_logger("server.channel")

_PAGE_EVENTS: Final = 1_000


class Log(Protocol):
    """The part of `storage.log.EventLog` that the channel needs."""

    async def read(
        self, session_id: UUID, after: int, *, limit: int = 500, max_bytes: int = 1 << 20
    ) -> list[StoredEvent]:
        """The events after `after`, ascending and without a gap, at least one when there is one."""
        ...


class LogReader:
    """Pages of any session's log. A thousand clients that come back at the same place cost one read."""

    def __init__(self, log: Log, context: Context) -> None:
        self._source = log
        self._clock, self._settings, self._counters, _ = context
        self._slots = asyncio.Semaphore(self._settings.log_readers)
        self._reads: dict[tuple[UUID, str, int], asyncio.Task[list[Event]]] = {}

    async def page(self, channel: Channel, after: int) -> list[Event]:
        """The events that follow `after`, about a page's bytes of them; empty when there are none.

        Waits as long as the database is away. Raises only what is no question of waiting.
        """
        pause = self._settings.retry_shortest
        while True:
            try:
                return await asyncio.shield(self._shared(channel, after))
            except (ParleyError, TimeoutError) as error:
                if isinstance(error, ParleyError) and error.code is not ErrorCode.UNAVAILABLE:
                    raise
                self._counters.read_failures += 1
                _log.warning(
                    "the log could not be read; trying again",
                    session_id=str(channel.session_id),
                    after=after,
                    reason=str(error),
                )
            await self._clock.sleep(pause)
            pause = min(2 * pause, self._settings.retry_longest)

    async def close(self) -> None:
        """Give up the reads that are under way."""
        reads = list(self._reads.values())
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)

    def _shared(self, channel: Channel, after: int) -> asyncio.Task[list[Event]]:
        # Shared only while it runs: its result may be older than an event that its next caller knows of.
        key = (channel.session_id, channel.epoch, after)
        read = self._reads.get(key)
        if read is None:
            read = self._reads[key] = asyncio.create_task(self._read(channel, after))
            read.add_done_callback(lambda done: self._ended(key, done))
        return read

    async def _read(self, channel: Channel, after: int) -> list[Event]:
        async with self._slots:
            self._counters.log_reads += 1
            async with asyncio.timeout(self._settings.read_timeout):
                stored = await self._source.read(
                    channel.session_id, after, limit=_PAGE_EVENTS, max_bytes=self._settings.page_bytes
                )
        return channel.events_of(stored)

    def _ended(self, key: tuple[UUID, str, int], read: asyncio.Task[list[Event]]) -> None:
        self._reads.pop(key, None)
        if not read.cancelled():
            # Whoever waited has it; when nobody waits any more, it must not be reported as forgotten.
            read.exception()
