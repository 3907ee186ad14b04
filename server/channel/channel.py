"""One session's channel: what was emitted, in which order, and to whom.

Events come in from commits, in any order and more than once, and from the log; they go out strictly by `seq`. What a
turn of the event loop emits is framed once for each wire in use and written once to each live subscriber.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from protocol.cursor import Cursor
from protocol.delta import merge, tail
from protocol.envelope import Event, payload_json
from protocol.events import EVENT_NAMES, MessageCreated, MessageDelta, Payload
from protocol.ids import format_timestamp
from protocol.lifecycles import SubscriberInput, SubscriberState
from server.channel.group import Group, Outbox
from server.channel.live import NO_MARKS, LiveTexts
from server.channel.ring import Ring
from server.channel.settings import ChannelSettings
from server.channel.stats import Counters
from server.channel.subscriber import Subscriber, Wire
from storage.log import StoredEvent

__all__ = ["Channel", "ChannelActions"]

#: Pieces of others' messages that wait for events; those beyond are dropped, and asked for later.
_MOST_HELD: Final = 256

#: Messages that are known to be over: more than can be under way at once.
_MOST_OVER: Final = 8

_MESSAGE: Final = EVENT_NAMES[MessageCreated]

#: A WebSocket ping without a payload (RFC 6455, section 5.5.2): browsers answer it by themselves.
_PING: Final = b"\x89\x00"

#: Deltas are merged up to this many characters, so that no event grows without a bound.
_MERGED_CHARS: Final = 16_384


class _Identified(Struct):
    """All that is read of a message that is over."""

    message_id: UUID | None = None


_identified: Final = msgspec.json.Decoder(_Identified)


def _message_id(event: Event) -> UUID | None:
    return _identified.decode(event.payload).message_id


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

    __slots__ = (
        "_actions",
        "_counters",
        "_early",
        "_groups",
        "_held",
        "_outbox",
        "_over",
        "_settings",
        "_text_id",
        "epoch",
        "head",
        "heartbeat_at",
        "live",
        "ring",
        "session_id",
        "wanted",
    )

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
        self.heartbeat_at = 0.0
        self._text_id = str(session_id)
        self._settings = settings
        self._counters = counters
        self._actions = actions
        self._early: dict[int, Event] = {}
        #: Messages that were being written, and are complete since a short while ago.
        self._over: tuple[UUID, ...] = ()
        #: Pieces of others' messages that wait for events.
        self._held: Sequence[MessageDelta] = ()
        #: One a wire in use: seldom two, never more than there are wires.
        self._groups: list[Group] = []
        #: Nothing, most of the time: an idle channel is as small as it can be.
        self._outbox: Outbox | None = None

    @property
    def subscribers(self) -> list[Subscriber]:
        """All who listen."""
        return [subscriber for group in self._groups for subscriber in group]

    @property
    def is_heard(self) -> bool:
        """Whether anybody listens."""
        return bool(self._groups)

    @property
    def idle(self) -> bool:
        """Whether nobody listens and nothing is being written: the channel may be forgotten."""
        return not self._groups and not self.live

    # --- events come in

    def begin(self, epoch: str, seq: int) -> None:
        """The session was read from the database in this state; called before a subscriber is added."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.head = self.wanted = seq
            self._forget()
        elif not self._groups:
            self.head = self.wanted = max(self.head, seq)
            self._forget()
        else:
            self.expect(seq)

    def expect(self, seq: int) -> None:
        """An event with this number exists; it is read from the log unless it has come already."""
        self.wanted = max(self.wanted, seq)
        if self.wanted > self.head and self._groups:
            self._actions.gap(self)

    def stored(self, events: Iterable[StoredEvent]) -> None:
        """Take in committed events, in any order, known ones too."""
        if not self._groups:
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

    def delta(self, delta: MessageDelta, *, here: bool = True) -> None:
        """A piece of a message; pieces of one turn of the loop that fit together go out as one."""
        if delta.message_id in self._over or not self.live.apply(delta, here=here):
            # Whoever writes it was paused, and somebody else has the message by now: it will find out.
            return
        if not self._anybody_live:
            return
        items = self._out().items
        last = items[-1] if items else None
        if isinstance(last, MessageDelta) and len(last.text) < _MERGED_CHARS:
            merged = merge(last, delta)
            if merged is not None:
                items[-1] = merged
                return
        items.append(delta)

    def delta_elsewhere(self, delta: MessageDelta) -> bool:
        """A piece of a message that another process writes; False when what lies before it is not known here."""
        if self.head < self.wanted:
            # It may follow on events that are being read: an answer must not come before its question.
            if len(self._held) < _MOST_HELD:
                self._held = [*self._held, delta]
            return True
        known = self.live.length(delta)
        if known is None:
            return True
        if delta.offset > known:
            return False
        lacking = tail(delta, known)
        if lacking is not None and (delta.message_id in self.live or not self._is_over(delta.message_id)):
            self.delta(lacking, here=False)
        return True

    def transient(self, event_type: str, payload: Payload) -> None:
        """Something that is true only now; who is not live at this moment never hears of it."""
        if self._anybody_live:
            self._out().items.append(self.event(payload, event_type))

    def control(self, subscriber: Subscriber, payload: Payload) -> None:
        """Something for one subscriber alone, after everything that was emitted before."""
        self._out().controls.setdefault(subscriber, []).append(self.event(payload))

    def heartbeat(self, event: Event) -> None:
        """A sign of life for everybody whose socket takes it; whose does not sees bytes move anyway."""
        outbox = self._out()
        outbox.ping = True
        if self._anybody_live:
            outbox.items.append(event)
        for subscriber in self.subscribers:
            if subscriber.state is SubscriberState.CATCHING_UP and not subscriber.buffered():
                outbox.controls.setdefault(subscriber, []).append(event)

    def event(self, payload: Payload, event_type: str | None = None) -> Event:
        """An event of this session that is not stored."""
        name = event_type or EVENT_NAMES[type(payload)]
        return Event(name, self._text_id, format_timestamp(self._actions.now()), payload_json(payload))

    # --- subscribers

    def add(self, subscriber: Subscriber) -> None:
        """A new subscriber, which catches up first."""
        group = next((group for group in self._groups if group.wire == subscriber.wire), None)
        if group is None:
            group = Group(subscriber.wire, self._settings)
            self._groups.append(group)
        group.add(subscriber)

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber, which is here."""
        if self._outbox is not None:
            self._outbox.controls.pop(subscriber, None)
        group = self._group(subscriber)
        group.remove(subscriber)
        if not group:
            self._groups.remove(group)
        if not self._groups:
            self._forget()

    def join(self, subscriber: Subscriber) -> None:
        """Make live a subscriber that has everything up to `head` and in `live`: called in the step that found so."""
        assert subscriber.position == self.head, "a subscriber goes live at the head"
        # What was emitted and not written yet is for the others only: this one has read it from the ring.
        self.flush()
        subscriber.advance(SubscriberInput.CATCH_UP)
        subscriber.marks = NO_MARKS
        self._group(subscriber).wake(subscriber)

    def fall_behind(self, subscriber: Subscriber) -> None:
        """Stop writing to a live subscriber, which has everything that was emitted until now."""
        subscriber.advance(SubscriberInput.FALL_BEHIND)
        subscriber.position = self.head
        subscriber.marks = self.live.marks()
        self._group(subscriber).rest(subscriber)
        self._counters.fell_behind += 1

    # --- events go out

    def flush(self) -> None:
        """Write everything that was emitted, once to each subscriber."""
        outbox, self._outbox = self._outbox, None
        if outbox is None:
            return
        behind: list[Subscriber] = []
        events = [self.event(item) if isinstance(item, MessageDelta) else item for item in outbox.items]
        for group in self._groups:
            if events and group.live:
                behind += self._write(group, events, outbox)
        for subscriber, own in outbox.controls.items():
            if self.tell(subscriber, own, ping=outbox.ping) and subscriber.state is SubscriberState.LIVE:
                behind.append(subscriber)
        for subscriber in behind:
            self.fall_behind(subscriber)
            self._actions.behind(self, subscriber)

    def tell(self, subscriber: Subscriber, events: Sequence[Event], *, ping: bool = False) -> bool:
        """Write events to one subscriber alone, at once; whether its socket takes less than we write."""
        data = self._frame(subscriber.wire, events, ping=ping)
        self._counters.sent(len(events), len(data))
        return subscriber.write(data)

    def _write(self, group: Group, events: Sequence[Event], outbox: Outbox) -> Sequence[Subscriber]:
        """Write events to a group, and in the same write what there is for one of them alone; who takes too little."""
        controls = outbox.controls
        own = {subscriber: controls.pop(subscriber) for subscriber in list(controls) if group.is_live(subscriber)}
        tails = {subscriber: self._frame(group.wire, told) for subscriber, told in own.items()}
        data = self._frame(group.wire, events, ping=outbox.ping)
        self._counters.sent(group.live * len(events), group.live * len(data))
        self._counters.sent(sum(map(len, own.values())), sum(map(len, tails.values())))
        return group.write(data, tails)

    def _frame(self, wire: Wire, events: Sequence[Event], *, ping: bool = False) -> bytes:
        """Events as bytes; every call is counted, as there should be one a wire and not one a subscriber."""
        self._counters.framings += 1
        data = wire.frame(events)
        return data + _PING if ping and wire.is_websocket else data

    def _emit(self, event: Event | None) -> None:
        """Let out the next event, and those that were waiting for it."""
        while event is not None:
            self.head += 1
            self._early.pop(self.head, None)
            self.ring.append(event)
            if self.live and event.event_type == _MESSAGE:
                # Whoever wrote it, here or elsewhere: the durable message has the last word.
                message_id = _message_id(event)
                if message_id is not None and self.live.close(message_id):
                    self._over = (*self._over, message_id)[-_MOST_OVER:]
            if self._anybody_live:
                self._out().items.append(event)
            event = self._early.pop(self.head + 1, None)
        if self._held and self.head >= self.wanted:
            held, self._held = self._held, ()
            for delta in held:
                # What does not fit is noticed, and asked for, with the next one.
                self.delta_elsewhere(delta)

    @property
    def _anybody_live(self) -> bool:
        return any(group.live for group in self._groups)

    def _out(self) -> Outbox:
        """What is written when this turn of the loop is over."""
        if self._outbox is None:
            self._outbox = Outbox()
            self._actions.soon(self.flush)
        return self._outbox

    def _group(self, subscriber: Subscriber) -> Group:
        return next(group for group in self._groups if subscriber in group)

    def _is_over(self, message_id: UUID) -> bool:
        """Whether a message was completed a short while ago: what is still on its way then is not shown."""
        return any(event.event_type == _MESSAGE and _message_id(event) == message_id for event in self.ring)

    def _forget(self) -> None:
        self.ring.clear()
        self.live.close_elsewhere()
        self._early.clear()
        self._held = ()
        if self._outbox is not None:
            self._outbox.items.clear()
