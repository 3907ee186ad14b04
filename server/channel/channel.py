"""One session's channel: what was emitted, in which order, and to whom.

Events come in from commits, in any order and more than once, and from the log; they go out strictly by `seq`. What a
turn of the event loop emits is framed once for each wire in use and written once to each live subscriber.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

from protocol.cursor import Cursor
from protocol.delta import merge
from protocol.envelope import Event, payload_json
from protocol.events import EVENT_NAMES, MessageDelta, Payload
from protocol.ids import format_timestamp
from protocol.lifecycles import SubscriberInput, SubscriberState
from server.channel.live import LiveTexts
from server.channel.ring import Ring
from server.channel.settings import ChannelSettings
from server.channel.stats import Counters
from server.channel.subscriber import Subscriber, Wire
from storage.log import StoredEvent

__all__ = ["Channel", "ChannelActions"]

Item: TypeAlias = Event | MessageDelta

#: A WebSocket ping without a payload (RFC 6455, section 5.5.2): browsers answer it by themselves.
_PING: Final = b"\x89\x00"

#: Deltas are merged up to this many characters, so that no event grows without a bound.
_MERGED_CHARS: Final = 16_384


class ChannelActions:
    """What a channel asks of its surroundings: it waits for nothing and starts nothing by itself."""

    __slots__ = ("behind", "gap", "now", "soon")

    def __init__(
        self,
        *,
        soon: Callable[[Callable[[], None]], object],
        gap: Callable[[Channel], None],
        behind: Callable[[Channel, Subscriber], None],
        now: Callable[[], datetime],
    ) -> None:
        #: Call back once this turn of the loop is over.
        self.soon = soon
        #: Events up to `Channel.wanted` exist; read them from the log.
        self.gap = gap
        #: A live subscriber's socket is full; read to it from its position.
        self.behind = behind
        #: The time of day.
        self.now = now


class Channel:
    """The live side of one session. Synchronous throughout: between two awaits of others it is always consistent."""

    def __init__(
        self, session_id: UUID, *, settings: ChannelSettings, counters: Counters, actions: ChannelActions
    ) -> None:
        self.session_id = session_id
        self.epoch = ""
        #: The number of the last event that was emitted.
        self.head = 0
        #: The highest number that is known to exist.
        self.wanted = 0
        self.ring = Ring(settings.ring_bytes)
        self.live = LiveTexts()
        self.subscribers: dict[Subscriber, None] = {}
        self.heartbeat_at = 0.0
        self._text_id = str(session_id)
        self._settings = settings
        self._counters = counters
        self._actions = actions
        self._early: dict[int, Event] = {}
        self._groups: dict[Wire, dict[Subscriber, None]] = {}
        self._pending: list[Item] = []
        self._controls: dict[Subscriber, list[Event]] = {}
        self._ping = False
        self._scheduled = False

    @property
    def idle(self) -> bool:
        """Whether nobody listens and nothing is being written: the channel may be forgotten."""
        return not self.subscribers and not self.live

    # --- events come in

    def begin(self, epoch: str, seq: int) -> None:
        """The session was read from the database in this state; called before a subscriber is added."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.head = self.wanted = seq
            self._forget()
        elif not self.subscribers:
            self.head = self.wanted = max(self.head, seq)
            self._forget()
        else:
            self.expect(seq)

    def expect(self, seq: int) -> None:
        """An event with this number exists; it is read from the log unless it has come already."""
        self.wanted = max(self.wanted, seq)
        if self.wanted > self.head and self.subscribers:
            self._actions.gap(self)

    def stored(self, events: Iterable[StoredEvent]) -> None:
        """Take in committed events, in any order, known ones too."""
        if not self.subscribers:
            self.head = self.wanted = max([self.head, *(event.seq for event in events)])
            return
        self.take(self.events_of(event for event in events if event.seq > self.head))

    def take(self, events: Sequence[Event]) -> None:
        """The same for events that were made by `events_of`."""
        highest = self.wanted
        for event in events:
            assert event.seq is not None, "only durable events are numbered"
            highest = max(highest, event.seq)
            if event.seq == self.head + 1:
                self._emit(event)
            elif event.seq > self.head and len(self._early) < self._settings.reorder_events:
                self._early[event.seq] = event
        self.expect(highest)

    def events_of(self, stored: Iterable[StoredEvent]) -> list[Event]:
        """Events as they go out: the same bytes for the same row, whenever and wherever it is read."""
        return [
            Event(
                row.event_type,
                self._text_id,
                format_timestamp(row.created_at),
                row.body,
                cursor=Cursor(self.epoch, row.seq),
            )
            for row in stored
        ]

    def delta(self, delta: MessageDelta) -> None:
        """A piece of a message; pieces of one turn of the loop that fit together go out as one."""
        self.live.apply(delta)
        if not self._groups:
            return
        last = self._pending[-1] if self._pending else None
        if isinstance(last, MessageDelta) and len(last.text) < _MERGED_CHARS:
            merged = merge(last, delta)
            if merged is not None:
                self._pending[-1] = merged
                return
        self._put(delta)

    def transient(self, event_type: str, payload: Payload) -> None:
        """Something that is true only now; who is not live at this moment never hears of it."""
        if self._groups:
            self._put(self.event(payload, event_type))

    def control(self, subscriber: Subscriber, payload: Payload) -> None:
        """Something for one subscriber alone, after everything that was emitted before."""
        self._controls.setdefault(subscriber, []).append(self.event(payload))
        self._schedule()

    def heartbeat(self, event: Event) -> None:
        """A sign of life for everybody whose socket takes it; whose does not sees bytes move anyway."""
        self._ping = True
        if self._groups:
            self._put(event)
        for subscriber in self.subscribers:
            if subscriber.state is SubscriberState.CATCHING_UP and not subscriber.transport.buffered():
                self._controls.setdefault(subscriber, []).append(event)
        self._schedule()

    def event(self, payload: Payload, event_type: str | None = None) -> Event:
        """An event of this session that is not stored."""
        name = event_type or EVENT_NAMES[type(payload)]
        return Event(name, self._text_id, format_timestamp(self._actions.now()), payload_json(payload))

    # --- subscribers

    def add(self, subscriber: Subscriber) -> None:
        """A new subscriber, which catches up first."""
        self.subscribers[subscriber] = None

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; once more is harmless."""
        self.subscribers.pop(subscriber, None)
        self._controls.pop(subscriber, None)
        self._leave_group(subscriber)
        if not self.subscribers:
            self._forget()

    def join(self, subscriber: Subscriber) -> None:
        """Make live a subscriber that has everything up to `head` and in `live`: called in the step that found so."""
        assert subscriber.position == self.head, "a subscriber goes live at the head"
        # What was emitted and not written yet is for the others only: this one has read it from the ring.
        self.flush()
        subscriber.advance(SubscriberInput.CATCH_UP)
        subscriber.marks = {}
        self._groups.setdefault(subscriber.wire, {})[subscriber] = None

    def fall_behind(self, subscriber: Subscriber) -> None:
        """Stop writing to a live subscriber, which has everything that was emitted until now."""
        subscriber.advance(SubscriberInput.FALL_BEHIND)
        subscriber.position = self.head
        subscriber.marks = self.live.marks()
        self._leave_group(subscriber)
        self._counters.fell_behind += 1

    # --- events go out

    def flush(self) -> None:
        """Write everything that was emitted, once to each subscriber."""
        self._scheduled = False
        items, self._pending = self._pending, []
        controls, self._controls = self._controls, {}
        ping, self._ping = self._ping, False
        behind: list[Subscriber] = []
        if items and self._groups:
            events = [self.event(item) if isinstance(item, MessageDelta) else item for item in items]
            for wire, group in self._groups.items():
                data = self.frame(wire, events)
                if ping and wire.is_websocket:
                    data += _PING
                count = len(events)
                # What stands in this loop is done for each subscriber of each event.
                for subscriber in group:
                    own = controls.pop(subscriber, None) if controls else None
                    if own is None:
                        congested = subscriber.write(data, count)
                    else:
                        congested = subscriber.write(data + self.frame(wire, own), count + len(own))
                    if congested:
                        behind.append(subscriber)
        for subscriber, own in controls.items():
            data = self.frame(subscriber.wire, own)
            congested = subscriber.write(data + _PING if ping and subscriber.wire.is_websocket else data, len(own))
            if congested and subscriber.state is SubscriberState.LIVE:
                behind.append(subscriber)
        for subscriber in behind:
            self.fall_behind(subscriber)
            self._actions.behind(self, subscriber)

    def frame(self, wire: Wire, events: Sequence[Event]) -> bytes:
        """Events as bytes; every call is counted, as there should be one a wire and not one a subscriber."""
        self._counters.framings += 1
        return wire.frame(events)

    def _emit(self, event: Event | None) -> None:
        """Let out the next event, and those that were waiting for it."""
        while event is not None:
            self.head += 1
            self._early.pop(self.head, None)
            self.ring.append(event)
            self._put(event)
            event = self._early.pop(self.head + 1, None)

    def _put(self, item: Item) -> None:
        if self._groups:
            self._pending.append(item)
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._actions.soon(self.flush)

    def _leave_group(self, subscriber: Subscriber) -> None:
        group = self._groups.get(subscriber.wire)
        if group is not None:
            group.pop(subscriber, None)
            if not group:
                del self._groups[subscriber.wire]

    def _forget(self) -> None:
        self.ring.clear()
        self._early.clear()
        self._pending.clear()
