"""Keeping channels level with the log: gaps are read at once, and a poll finds what nobody told us of.

A notification is a hint; the poll is the guarantee. It covers commits of other processes, and those whose reply was
lost on the way back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol
from uuid import UUID

import structlog

from protocol.errors import ParleyError
from server.channel.channel import Channel
from server.channel.context import Context
from server.channel.reader import LogReader

__all__ = ["Follower", "Heads"]

_log: Final = structlog.stdlib.get_logger("server.channel")

#: Sessions asked for in one statement of the poll.
_POLL_SESSIONS: Final = 2_000


class Heads(Protocol):
    """The part of `storage.sessions.Sessions` that the channel needs."""

    async def heads(self, session_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The number of the last event of each session that exists."""
        ...


class Follower:
    """Reads what channels lack. At most one task a channel, and one statement a poll for all of them."""

    def __init__(
        self,
        channels: Mapping[UUID, Channel],
        heads: Heads,
        reader: LogReader,
        context: Context,
        gone: Callable[[UUID], None],
    ) -> None:
        """`gone` is told of a session that has listeners here and was deleted, by whatever process and whenever."""
        self._gone = gone
        self._channels = channels
        self._heads = heads
        self._reader = reader
        self._clock, self._settings, self._counters, self._tasks = context
        self._filling: set[Channel] = set()
        self._looks: dict[UUID, None] = {}
        self._away = False

    async def run(self) -> None:
        """Poll for ever."""
        while True:
            await self._clock.sleep(self._settings.poll_interval)
            try:
                await self.poll()
            except Exception:  # noqa: BLE001 - the poll is the guarantee: whatever this one met, there is a next one
                _log.exception("poll failed")

    async def poll(self) -> None:
        """Compare all heads with the log's once, and let be read what is missing."""
        await self._compare_all([channel.session_id for channel in self._channels.values() if channel.is_heard])

    def look(self, session_id: UUID) -> None:
        """Compare one session's head soon; all that are asked for in one turn of the loop share a statement."""
        if not self._looks:
            self._tasks.run(self._look(), "look")
        self._looks[session_id] = None

    def fill(self, channel: Channel) -> None:
        """Read the events that a channel waits for."""
        if channel not in self._filling:
            self._filling.add(channel)
            self._tasks.run(self._fill(channel), "fill")

    async def _fill(self, channel: Channel) -> None:
        pause = self._settings.retry_shortest
        try:
            while channel.wanted > channel.head and channel.is_heard:
                page = await self._reader.page(channel, channel.head)
                if page:
                    channel.take(page)
                    pause = self._settings.retry_shortest
                else:
                    await self._clock.sleep(pause)
                    pause = min(2 * pause, self._settings.retry_longest)
        finally:
            self._filling.discard(channel)

    async def _look(self) -> None:
        asked, self._looks = list(self._looks), {}
        await self._compare_all(asked)

    async def _compare_all(self, session_ids: Sequence[UUID]) -> None:
        for first in range(0, len(session_ids), _POLL_SESSIONS):
            await self._compare(session_ids[first : first + _POLL_SESSIONS])

    async def _compare(self, session_ids: Sequence[UUID]) -> None:
        try:
            async with asyncio.timeout(self._settings.read_timeout):
                heads = await self._heads.heads(session_ids)
        except (ParleyError, TimeoutError) as error:
            self._counters.read_failures += 1
            if not self._away:
                _log.warning("the log is out of reach; streams stay open and wait", reason=str(error))
            self._away = True
            return
        if self._away:
            _log.info("the log is back")
        self._away = False
        for session_id in session_ids:
            channel = self._channels.get(session_id)
            if channel is None or not channel.is_heard:
                continue
            seq = heads.get(session_id)
            if seq is None:
                self._gone(session_id)
            else:
                channel.expect(seq)
