"""Events on their way from the connection to the caller: bounded, each once for everybody who listens."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Self
from uuid import UUID
from weakref import WeakSet

from msgspec import Struct
from msgspec.structs import replace

from protocol.client.settings import Timings
from protocol.delta import MessageText
from protocol.envelope import Envelope
from protocol.events import MessageCreated, MessageDelta, Payload, ResyncRequired

__all__ = ["Events", "Feed", "Received"]

#: Messages that are being written, and those whose end is remembered, so that a late delta does not begin them again.
_OPEN: Final = 256
_CLOSED: Final = 256


class Received(Struct, frozen=True):
    """An event.

    `payload` is one of `parley.events`; None for an event that this version does not know or cannot read. `raw` is the
    whole as it came, JSON unless the client asked for MessagePack. `text` is, for a `MessageDelta`, all that is there
    by now of the part which it continues, and for a `MessageCreated` its content.
    """

    envelope: Envelope
    payload: Payload | None
    raw: bytes
    text: str = ""

    @property
    def event_type(self) -> str:
        """The event's name on the wire."""
        return self.envelope.event_type

    @property
    def cursor(self) -> str | None:
        """Where a durable event stands in the log."""
        return self.envelope.cursor


class Feed:
    """What was received and not yet taken, in order.

    Whoever takes an event takes it for all that listen at that time; while nobody listens nothing is taken. So nothing
    is lost between one iteration and the next, and two at a time see the same.
    """

    def __init__(self, timings: Timings, after: str | None) -> None:
        #: After the last durable event that was taken.
        self.cursor = after
        #: The texts of the messages that are being written, up to what was taken.
        self.texts: dict[UUID, MessageText] = {}
        self.ended = False
        self.failure: Exception | None = None
        #: Set while what comes has to wait for somebody to take what came before.
        self.stalled = asyncio.Event()
        self._timings = timings
        self._waiting: deque[Received] = deque()
        self._bytes = 0
        self._closed: dict[UUID, None] = {}
        self._listeners: WeakSet[Events] = WeakSet()
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether the next event has to wait."""
        return len(self._waiting) >= self._timings.waiting_events or self._bytes >= self._timings.waiting_bytes

    async def put(self, event: Received) -> None:
        """Add an event as soon as there is room for it."""
        while self.full:
            self._room.clear()
            self.stalled.set()
            await self._room.wait()
        self.stalled.clear()
        self._waiting.append(event)
        self._bytes += len(event.raw)
        self._news.set()

    def end(self, failure: Exception | None = None) -> None:
        """There will be no more, because of `failure` if there is one. The first end counts."""
        if not self.ended:
            self.ended, self.failure = True, failure
        self._news.set()

    def listen(self) -> Events:
        """An iteration that begins at the first event which nobody has taken."""
        events = Events(self, self._timings.waiting_events)
        self._listeners.add(events)
        return events

    def ignore(self, events: Events) -> None:
        """Forget an iteration."""
        self._listeners.discard(events)

    async def wait(self) -> None:
        """Until there may be something to take."""
        self._news.clear()
        await self._news.wait()

    def take(self) -> bool:
        """Hand the next event to all that listen; False if there is none."""
        if not self._waiting:
            return False
        event = self._waiting.popleft()
        self._bytes -= len(event.raw)
        self._room.set()
        self.cursor = event.cursor or self.cursor
        event = self._with_text(event)
        for events in self._listeners:
            events.give(event)
        # Those who wait for it know now.
        self._news.set()
        return True

    def _with_text(self, event: Received) -> Received:
        match event.payload:
            case MessageDelta(message_id=message_id, part=part, call_id=call_id) as delta:
                if message_id in self._closed:
                    return event
                text = self.texts.setdefault(message_id, MessageText(message_id))
                if len(self.texts) > _OPEN:
                    del self.texts[next(iter(self.texts))]
                text.apply(delta)
                return replace(event, text=text.text(part, call_id))
            case MessageCreated(message_id=message_id, content=content):
                self.texts.pop(message_id, None)
                self._closed[message_id] = None
                if len(self._closed) > _CLOSED:
                    del self._closed[next(iter(self._closed))]
                return replace(event, text=content)
            case ResyncRequired(cursor=cursor):
                self.texts.clear()
                self._closed.clear()
                self.cursor = cursor
            case _:
                pass
        return event


class Events:
    """One iteration over a session's events; made by iterating over a client."""

    def __init__(self, feed: Feed, most: int) -> None:
        self._feed = feed
        self._most = most
        self._given: deque[Received] = deque()
        self._lagged = False
        self._left = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        while not self._given:
            if self._left:
                raise StopAsyncIteration
            if self._lagged:
                raise RuntimeError("this iteration was not read while others went on, and too much waits for it")
            if self._feed.take():
                continue
            if self._feed.ended:
                if self._feed.failure is not None:
                    raise self._feed.failure
                raise StopAsyncIteration
            await self._feed.wait()
        return self._given.popleft()

    def give(self, event: Received) -> None:
        """Keep an event for this iteration. One that lags goes without deltas first, and is given up in the end."""
        if self._lagged:
            return
        if len(self._given) >= self._most:
            self._given = deque(kept for kept in self._given if kept.envelope.seq is not None)
            if len(self._given) >= self._most:
                self._lagged = True
                self._given.clear()
                return
        self._given.append(event)

    def skip(self) -> None:
        """Pass over what is there already."""
        while self._feed.take():
            pass
        self._given.clear()

    def close(self) -> None:
        """Take nothing any more."""
        self._left = True
        self._feed.ignore(self)
        self._given.clear()
