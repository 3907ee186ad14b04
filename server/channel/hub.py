"""The one place through which events reach connections: all sessions' channels in this process.

    commit, delta, transient  ->  Channel (strict order)  ->  one write a subscriber and turn of the loop

The hub owns what takes time: reading gaps from the log, bringing subscribers to the head, the poll that is the
guarantee behind every notification, and the sweep for lost peers.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog

from protocol.cursor import Cursor
from protocol.errors import ErrorCode
from protocol.events import AgentInfo, ClientInfo, Disconnect, Heartbeat, MessageDelta, Payload
from protocol.lifecycles import SubscriberInput, SubscriberState
from server.bus import Bus, LocalBus
from server.channel.admission import Admission
from server.channel.catchup import CatchUp, Greeting, start_of
from server.channel.channel import Channel, ChannelActions
from server.channel.context import Context
from server.channel.elsewhere import Elsewhere
from server.channel.follow import Follower, Heads
from server.channel.reader import Log, LogReader
from server.channel.reminding import Reminders
from server.channel.settings import ChannelSettings
from server.channel.stats import Counters, HubStats
from server.channel.subscriber import Subscriber
from server.channel.tasks import Tasks
from server.clock import Clock
from storage.commits import Committed
from storage.sessions import Session

__all__ = ["Hub"]

_log: Final = structlog.stdlib.get_logger("server.channel")

#: What a refused client is told while the server stops and nobody said when it will be back, in seconds.
_RETRY_AFTER: Final = 1.0


class Hub:
    """All channels of this process. Synchronous but for `start`, `close`, `stop` and `poll`; belongs to one loop."""

    def __init__(
        self, log: Log, sessions: Heads, clock: Clock, settings: ChannelSettings | None = None, *, version: str = "0"
    ) -> None:
        self.settings = settings or ChannelSettings()
        self.clock = clock
        self.counters = Counters()
        self._channels: dict[UUID, Channel] = {}
        self._homes: dict[Subscriber, Channel] = {}
        self._catching: dict[Subscriber, asyncio.Task[None]] = {}
        self._tasks = Tasks()
        self._started = False
        context = Context(clock, self.settings, self.counters, self._tasks)
        self._admission = Admission(self.settings, self.counters)
        self._reader = LogReader(log, context)
        self._catch_up = CatchUp(self._reader, context, version=version)
        self._follower = Follower(self._channels, sessions, self._reader, context, gone=self.end_session)
        self._bus: Bus = LocalBus()
        self._actions = ChannelActions(
            soon=lambda flush: asyncio.get_running_loop().call_soon(flush),
            gap=self._follower.fill,
            behind=self._read_to,
            now=clock.now,
        )

    def connect(self, bus: Bus, reminders: Reminders | None = None) -> None:
        """Tell other processes what happens here, and show what they tell; before anybody listens.

        `reminders` says what a client that joins has to do about the turn that is under way.
        """
        self._bus = bus
        self._catch_up.reminders = reminders
        bus.attach(Elsewhere(self._channels, self._follower, self._tasks))

    # --- life

    async def start(self) -> None:
        """Begin to poll and to sweep. Idempotent."""
        if not self._started:
            self._started = True
            self._tasks.run(self._follower.run(), "follow")
            self._tasks.run(self._watch(), "watch")

    async def close(
        self, code: ErrorCode = ErrorCode.SHUTDOWN, reason: str | None = None, retry_after: float | None = None
    ) -> None:
        """End all streams with an in-band `disconnect`, and take no new ones; returns when they have ended.

        `retry_after` is in seconds. Clients are told times spread evenly between it and its double, so that they do
        not come back as one. What does not end within `close_timeout` is left to the transport, which cuts it.
        """
        self._admission.close(_RETRY_AFTER if retry_after is None else retry_after)
        for channel in list(self._channels.values()):
            channel.flush()
        subscribers = list(self._homes)
        for place, subscriber in enumerate(subscribers):
            spread = None if retry_after is None else retry_after * (1 + place / len(subscribers))
            self._end(subscriber, code, reason, spread)
        try:
            async with asyncio.timeout(self.settings.close_timeout + 1.0):
                await self._admission.emptied()
        except TimeoutError:
            _log.warning("streams did not end", count=len(self._admission))

    async def stop(self) -> None:
        """Close, and end every task of the hub. Idempotent; over when it returns."""
        await self.close()
        await self._tasks.stop()
        await self._reader.close()

    # --- what happened

    def commit(self, committed: Committed, closes: UUID | None = None) -> None:
        """Emit the events of a committed transaction; `closes` is the message being written that they complete.

        May be called in any order and more than once: events go out strictly by `seq`, each once, and a gap is read
        from the log at once. Other processes are told that there are events.
        """
        if committed.events:
            self._bus.hint(committed.session_id, committed.events[-1].seq)
            self.counters.published += len(committed.events)
            self.counters.last_published = committed.events[-1].created_at
        channel = self._channels.get(committed.session_id)
        if channel is None:
            return
        if channel.is_heard and channel.epoch != committed.epoch:
            self._evict(channel)
        channel.stored(committed.events)
        if closes is not None:
            channel.live.close_here(closes)
            self._forget_idle(channel)

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        """Stream a piece of a message that is being written here; kept until the message is closed."""
        self._channel(session_id).delta(delta)
        self._bus.delta(session_id, delta)

    def close_message(self, session_id: UUID, message_id: UUID) -> None:
        """Forget the text of a message that was being written here: it goes on elsewhere, or was given up."""
        channel = self._channels.get(session_id)
        if channel is not None:
            attempt = channel.live.close_here(message_id)
            if attempt is not None:
                self._bus.closed(session_id, message_id, attempt)
            self._forget_idle(channel)

    def transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        """Tell those who are live now, at whatever process, something that is true only now."""
        self._bus.transient(session_id, event_type, payload)
        channel = self._channels.get(session_id)
        if channel is not None:
            channel.transient(event_type, payload)

    def wake(self, session_id: UUID) -> None:
        """Something was committed whose events are not at hand: read them from the log, if anybody listens."""
        self._bus.hint(session_id, 0)
        channel = self._channels.get(session_id)
        if channel is not None and channel.is_heard:
            self._follower.look(session_id)

    def live(self, session_id: UUID) -> list[MessageDelta]:
        """The texts of the session's messages being written, one merged delta a part."""
        channel = self._channels.get(session_id)
        return [] if channel is None else channel.live.merged()

    def end_session(self, session_id: UUID, code: ErrorCode = ErrorCode.SESSION_GONE) -> None:
        """End all streams of a session, as when it was deleted."""
        channel = self._channels.get(session_id)
        if channel is not None:
            channel.flush()
            for subscriber in channel.subscribers:
                self._end(subscriber, code)

    # --- who listens

    def enter(self, session_id: UUID) -> None:
        """Take a place for a stream, before its transport is set up.

        Raises ParleyError: RATE_LIMITED when there are too many streams, SHUTDOWN while the hub closes.
        """
        self._admission.enter(session_id)

    def leave(self, session_id: UUID) -> None:
        """Give the place back, once the transport has ended; `close` waits for it."""
        self._admission.leave(session_id)

    def subscribe(
        self,
        session: Session,
        subscriber: Subscriber,
        after: Cursor | int | None,
        agent: AgentInfo,
        clients: Sequence[ClientInfo] = (),
    ) -> None:
        """Let a connection hear a session from `after` on (None: from now), then live, without a gap or a repeat.

        `session` is what the database said a moment ago, `agent` who acts in it, `clients` who else is there. Nothing
        is waited for: the opening frames are written at once, and a task of the hub reads to the subscriber until it
        is live.
        """
        channel = self._channel(session.session_id)
        if channel.is_heard and channel.epoch != session.epoch:
            self._evict(channel)
            channel = self._channel(session.session_id)
        first = not channel.is_heard
        channel.begin(session.epoch, session.seq)
        channel.add(subscriber)
        self._homes[subscriber] = channel
        if first:
            channel.heartbeat_at = self.clock.monotonic() + self.settings.heartbeat_interval
            # Between the reading of the session and this moment nobody listened to its commits.
            self._follower.look(channel.session_id)
            self._bus.follow(channel.session_id)
        channel.expect(session.seq)
        subscriber.remind = session.active_turn is not None
        self._catch_up.greet(channel, subscriber, Greeting(session, agent, clients, start_of(after, channel)))
        self._read_to(channel, subscriber)
        if self._admission.closed:
            self._end(subscriber, ErrorCode.SHUTDOWN)

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forget a connection; once more is harmless."""
        subscriber.advance(SubscriberInput.LOSE)
        self._leave(subscriber)

    def reply(self, subscriber: Subscriber, payload: Payload) -> None:
        """Say something to one connection alone (`ack`, `command_error`), after all that was emitted before."""
        channel = self._homes.get(subscriber)
        if channel is not None:
            channel.control(subscriber, payload)

    def end(self, subscriber: Subscriber, code: ErrorCode, reason: str | None = None) -> None:
        """Close one connection, after all that was emitted before; the `disconnect` event tells why."""
        channel = self._homes.get(subscriber)
        if channel is not None:
            channel.flush()
            self._end(subscriber, code, reason)

    def listeners(self) -> list[tuple[UUID, Subscriber]]:
        """All connections, each with its session."""
        return [(channel.session_id, subscriber) for subscriber, channel in self._homes.items()]

    def listeners_of(self, session_id: UUID) -> list[Subscriber]:
        """The connections of one session."""
        channel = self._channels.get(session_id)
        return [] if channel is None else channel.subscribers

    def refuse(self, session_id: UUID, client_id: str) -> None:
        """End the connections of a client whose name on the session is another user's."""
        channel = self._channels.get(session_id)
        for subscriber in [] if channel is None else channel.subscribers:
            if subscriber.client_id == client_id:
                self.end(subscriber, ErrorCode.FORBIDDEN, "another user has a client of this name on the session")

    # --- how it is

    def stats(self) -> HubStats:
        """Connections by transport, what was sent, and what went wrong how often."""
        here = list(self._homes)
        total = self.counters
        return HubStats(
            connections=dict(Counter(subscriber.transport.name for subscriber in here)),
            sessions_with_subscribers=sum(1 for channel in self._channels.values() if channel.is_heard),
            messages_being_written=sum(len(channel.live) for channel in self._channels.values()),
            catching_up=sum(1 for subscriber in here if subscriber.state is SubscriberState.CATCHING_UP),
            buffered_bytes=sum(subscriber.buffered() for subscriber in here),
            connections_opened=total.connections_opened,
            connections_refused=total.refused,
            events_sent=total.events_sent,
            bytes_sent=total.bytes_sent,
            framings=total.framings,
            fell_behind=total.fell_behind,
            catch_ups=total.catch_ups,
            log_reads=total.log_reads,
            read_failures=total.read_failures,
            commands=total.commands,
            malformed_commands=total.malformed,
            command_timeouts=total.command_timeouts,
            closed=dict(total.closed),
        )

    def sweep(self) -> None:
        """Look at every connection once: lost, stuck or silent ones are ended; heartbeats go out where they are due."""
        now, today = self.clock.monotonic(), self.clock.now()
        for channel in list(self._channels.values()):
            if channel.is_heard and now >= channel.heartbeat_at:
                channel.heartbeat_at = now + self.settings.heartbeat_interval
                channel.heartbeat(channel.event(Heartbeat()))
            for subscriber in channel.subscribers:
                if subscriber.lost():
                    self.unsubscribe(subscriber)
                    subscriber.transport.end(ErrorCode.STALE, Disconnect.of(ErrorCode.STALE))
                elif subscriber.grant.expired(today):
                    self._end(subscriber, ErrorCode.TOKEN_EXPIRED)
                elif (verdict := subscriber.verdict(now)) is not None:
                    self._end(subscriber, verdict)

    async def poll(self) -> None:
        """Compare all heads with the log's once, as happens every `poll_interval`, and let be read what is missing."""
        await self._follower.poll()

    # --- inside

    def _channel(self, session_id: UUID) -> Channel:
        channel = self._channels.get(session_id)
        if channel is None:
            channel = self._channels[session_id] = Channel(
                session_id, settings=self.settings, counters=self.counters, actions=self._actions
            )
        return channel

    def _forget_idle(self, channel: Channel) -> None:
        if channel.idle:
            self._channels.pop(channel.session_id, None)

    def _evict(self, channel: Channel) -> None:
        """Send away everybody who follows an epoch that is over; they come back and are told to start afresh."""
        for subscriber in channel.subscribers:
            self._end(subscriber, ErrorCode.STALE, "the session's log was restored from a backup")

    def _leave(self, subscriber: Subscriber) -> None:
        channel = self._homes.pop(subscriber, None)
        if channel is None:
            return
        catching = self._catching.pop(subscriber, None)
        if catching is not None and catching is not asyncio.current_task():
            catching.cancel()
        channel.remove(subscriber)
        self._forget_idle(channel)

    def _end(
        self, subscriber: Subscriber, code: ErrorCode, reason: str | None = None, retry_after: float | None = None
    ) -> None:
        channel = self._homes.get(subscriber)
        if channel is None:
            return
        farewell = Disconnect.of(code, reason, retry_after)
        if not subscriber.congested():
            channel.tell(subscriber, [channel.event(farewell)])
        self.counters.closed[code.code] = self.counters.closed.get(code.code, 0) + 1
        subscriber.advance(SubscriberInput.CLOSE)
        self._leave(subscriber)
        subscriber.transport.end(code, farewell)

    def _read_to(self, channel: Channel, subscriber: Subscriber) -> None:
        self.counters.catch_ups += 1
        self._catching[subscriber] = self._tasks.start(self._bring_up(channel, subscriber), "catch up")

    async def _bring_up(self, channel: Channel, subscriber: Subscriber) -> None:
        try:
            verdict = await self._catch_up.run(channel, subscriber)
        except Exception:  # noqa: BLE001 - logged whole; the client may come back to where it was
            _log.exception("catching up failed", session_id=str(channel.session_id))
            verdict = ErrorCode.INTERNAL
        if self._catching.get(subscriber) is asyncio.current_task():
            del self._catching[subscriber]
        if verdict is not None:
            self._end(subscriber, verdict)

    async def _watch(self) -> None:
        pause = min(self.settings.sweep_interval, self.settings.heartbeat_interval)
        while True:
            await self.clock.sleep(pause)
            try:
                self.sweep()
            except Exception:  # noqa: BLE001 - one bad connection must not end the care for all others
                _log.exception("sweep failed")
