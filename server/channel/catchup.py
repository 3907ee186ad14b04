"""How a subscriber that is new, or behind, is brought to the head of its channel and becomes live there.

It is read to, a page at a time, from the ring or from the log, and each time its socket has drained. The log is the
buffer: what happens meanwhile only moves the head. The step that finds nothing missing makes it live without an await
in between, so nothing is lost between replay and live, and nothing is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from protocol.cursor import Cursor
from protocol.envelope import Event
from protocol.errors import ErrorCode, ParleyError
from protocol.events import AgentInfo, ClientInfo, Connected, Limits, Payload, ResyncRequired, SessionInfo, Sync
from protocol.ids import format_timestamp
from protocol.lifecycles import SubscriberInput
from server.channel.channel import Channel
from server.channel.context import Context
from server.channel.reader import LogReader
from server.channel.reminding import Reminders
from server.channel.subscriber import Subscriber
from storage.sessions import Session

__all__ = ["CatchUp", "Greeting", "Start", "session_info", "start_of"]

#: How often the log may answer "nothing" about events that are known to exist.
_MAX_EMPTY_READS: Final = 5


class Start(NamedTuple):
    """Where a stream begins, and why that is not where its client wanted it, if so."""

    seq: int
    refused: Literal["epoch_changed", "ahead", "trimmed"] | None = None


def start_of(after: Cursor | int | None, channel: Channel) -> Start:
    """Where to begin after a client's cursor.

    Without a cursor the stream begins now. A cursor of another epoch or of the future cannot be served: begin now,
    and say so.
    """
    if after is None:
        return Start(channel.head)
    if isinstance(after, Cursor) and after.epoch != channel.epoch:
        return Start(channel.head, "epoch_changed")
    seq = after.seq if isinstance(after, Cursor) else after
    return Start(seq) if seq <= channel.wanted else Start(channel.head, "ahead")


def session_info(session: Session) -> SessionInfo:
    """A session as its clients see it."""
    return SessionInfo(
        session_id=session.session_id,
        alias=session.alias,
        title=session.title,
        description=session.description,
        current_agent=session.current_agent,
        is_active=session.is_active,
        message_count=session.message_count,
        created_at=format_timestamp(session.created_at),
        last_activity=format_timestamp(session.last_activity),
        active_turn=session.active_turn,
    )


class Greeting(NamedTuple):
    """What a subscriber is told first: the session as it was read, who acts and who is there, where it begins."""

    session: Session
    agent: AgentInfo
    clients: Sequence[ClientInfo]
    start: Start


class CatchUp:
    """Brings subscribers to the head. One coroutine a subscriber that is behind; none for the live ones."""

    def __init__(self, reader: LogReader, context: Context, *, version: str) -> None:
        self._reader = reader
        self._version = version
        self.reminders: Reminders | None = None
        self._clock, self._settings, _, _ = context

    def greet(self, channel: Channel, subscriber: Subscriber, greeting: Greeting) -> None:
        """Write the opening: `connected`, and `resync_required` when the client's cursor could not be served."""
        session, agent, clients, start = greeting
        subscriber.advance(SubscriberInput.OPEN)
        subscriber.position = start.seq
        cursor = str(Cursor(channel.epoch, start.seq))
        connected = Connected(
            client_id=subscriber.client_id,
            cursor=cursor,
            session=session_info(session),
            limits=Limits(max_command_bytes=self._settings.max_command_bytes, max_nesting=self._settings.max_nesting),
            heartbeat_interval_ms=round(self._settings.heartbeat_interval * 1000),
            agent=agent,
            clients=list(clients),
            server_version=self._version,
            role=subscriber.grant.role,
        )
        event = channel.event(connected)
        opening = [Event(event.event_type, event.session_id, event.timestamp, event.payload, sse_id=cursor)]
        if start.refused is not None:
            opening.append(channel.event(ResyncRequired(reason=start.refused, cursor=cursor)))
        channel.tell(subscriber, opening)

    async def run(self, channel: Channel, subscriber: Subscriber) -> ErrorCode | None:
        """Read to the subscriber until it is live or closed; returns a code when it should be closed instead."""
        begin = subscriber.position
        empty_reads = 0
        while not subscriber.closed():
            if subscriber.congested():
                await subscriber.transport.drain()
                if subscriber.lost():
                    return None
                continue
            if subscriber.position != channel.head:
                page = channel.ring.after(subscriber.position, self._settings.page_bytes)
                if page is None:
                    # The client may have heard elsewhere of events that were not emitted here yet.
                    page = await self._reader.page(channel, min(subscriber.position, channel.head))
                    empty_reads = 0 if page else empty_reads + 1
                if empty_reads > _MAX_EMPTY_READS:
                    # A deleted session's log is empty; whoever comes back is told so.
                    return ErrorCode.STALE
                if page:
                    self._replay(channel, subscriber, page)
                else:
                    await self._clock.sleep(self._settings.retry_shortest)
                continue
            if not subscriber.synced:
                subscriber.synced = True
                channel.tell(subscriber, [channel.event(self._sync(channel, begin, subscriber.position))])
                continue
            if subscriber.remind:
                await self._remind(channel, subscriber)
                continue
            if self._complete(channel, subscriber):
                channel.join(subscriber)
                if not subscriber.congested():
                    return None
                channel.fall_behind(subscriber)
        return None

    def _replay(self, channel: Channel, subscriber: Subscriber, page: list[Event]) -> None:
        if subscriber.closed():
            return
        first = page[0].seq
        assert first is not None, "the log holds durable events"
        if first > min(subscriber.position, channel.head) + 1:
            # The log no longer reaches back so far.
            subscriber.position = channel.head
            cursor = str(Cursor(channel.epoch, channel.head))
            channel.tell(subscriber, [channel.event(ResyncRequired(reason="trimmed", cursor=cursor))])
            return
        # The log may be ahead of what was emitted here; the channel learns of it, so the head never lags a position.
        channel.take(page)
        new = [event for event in page if event.seq is not None and event.seq > subscriber.position]
        if new:
            channel.tell(subscriber, new)
            subscriber.position += len(new)

    async def _remind(self, channel: Channel, subscriber: Subscriber) -> None:
        """Say what is open: the approvals of the session, and the calls that this client runs.

        It is read when the subscriber has everything up to here, and what happens meanwhile is read to it afterwards:
        so nothing that is over is told after its end.
        """
        if self.reminders is not None:
            payloads = await self._patiently(self.reminders, channel, subscriber)
            if payloads and not subscriber.closed():
                channel.tell(subscriber, [channel.event(payload) for payload in payloads])
        subscriber.remind = False

    async def _patiently(self, reminders: Reminders, channel: Channel, subscriber: Subscriber) -> Sequence[Payload]:
        """As reading the log: while the database is away it is waited for."""
        pause = self._settings.retry_shortest
        while not subscriber.closed():
            try:
                async with asyncio.timeout(self._settings.read_timeout):
                    return await reminders.of(channel.session_id, subscriber.client_id)
            except (ParleyError, TimeoutError) as error:
                if isinstance(error, ParleyError) and error.code is not ErrorCode.UNAVAILABLE:
                    raise
            await self._clock.sleep(pause)
            pause = min(2 * pause, self._settings.retry_longest)
        return ()

    def _complete(self, channel: Channel, subscriber: Subscriber) -> bool:
        """Write what it lacks of the messages being written; whether it has everything now."""
        missing = channel.live.missing(subscriber.marks, self._settings.page_bytes)
        if missing.deltas:
            channel.tell(subscriber, [channel.event(delta) for delta in missing.deltas])
        subscriber.marks = missing.marks
        return missing.complete

    def _sync(self, channel: Channel, begin: int, through: int) -> Sync:
        return Sync(from_=str(Cursor(channel.epoch, begin)), through=str(Cursor(channel.epoch, through)))
