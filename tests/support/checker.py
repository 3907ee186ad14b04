"""A checker that knows what each client must have seen.

A `Ledger` holds what is known of one session by anybody: the event behind each number, and what was acknowledged. A
`View` is what one client has been shown so far, over any number of connections. Both fail at once (MismatchError) when
a server shows an event twice, late, out of order or changed, or a text that does not become the final message. Nothing
here uses the server's own arithmetic: texts are kept as UTF-16, where an offset is a place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn

import msgspec

from protocol.envelope import Envelope, decode_event

__all__ = ["Ledger", "MismatchError", "Record", "View"]

_ASIDE: Final = frozenset({"heartbeat", "agent_status_changed", "presence_changed", "warning"})


class MismatchError(AssertionError):
    """A client was shown what it must not have been shown."""


class Record(NamedTuple):
    """A durable event as it must look to everybody: its payload byte for byte."""

    event_type: str
    timestamp: str
    payload: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The payload, decoded."""
        return dict(msgspec.json.decode(self.payload))


class Ledger:
    """What anybody has learnt of one session."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.events: dict[int, Record] = {}
        #: What was sent, by command id, and how it was acknowledged.
        self.sent: dict[str, dict[str, Any]] = {}
        self.acks: dict[str, dict[str, Any]] = {}
        #: When a command whose first answer was lost was sent once more, as an event's time.
        self.resent: dict[str, str] = {}
        #: Messages of which a piece was seen, and the highest attempt that wrote one.
        self.opened: dict[str, int] = {}
        #: The same as it was when the last server ended: whoever goes on with a message must raise its attempt.
        self.buried: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    def server_ended(self) -> None:
        """The server is gone, and nobody is connected to the next one yet."""
        self.buried = dict(self.opened)

    @property
    def head(self) -> int:
        """The highest number that was seen."""
        return max(self.events, default=0)

    def saw(self, seq: int, record: Record) -> None:
        """Somebody was shown an event: the first one tells what it is, all others must have been shown the same."""
        known = self.events.setdefault(seq, record)
        if known != record:
            raise MismatchError(f"{self.session_id}: event {seq} was {known} and is {record}")

    def acknowledged(self, command_id: str, ack: dict[str, Any]) -> None:
        """A command was acknowledged; a repeat must be told the same."""
        known = self.acks.setdefault(command_id, ack)
        if known != ack:
            raise MismatchError(f"{self.session_id}: command {command_id} was answered {known} and then {ack}")


class _Draft:
    """A message that is being written: each part as UTF-16 bytes, two to a unit."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.parts: dict[tuple[str, str | None], bytearray] = {}

    def apply(self, delta: dict[str, Any]) -> str | None:
        """Take a delta of this attempt; returns what is wrong with it."""
        text = self.parts.setdefault((delta["part"], delta.get("call_id")), bytearray())
        piece, place = delta["text"].encode("utf-16-le"), 2 * delta["offset"]
        if place > len(text):
            return f"leaves a gap after {len(text) // 2} units"
        known = text[place : place + len(piece)]
        if known != piece[: len(known)]:
            return "contradicts what was there"
        text[place : place + len(piece)] = piece
        return None


class View:
    """What one client has been shown of a session: `take` gets every frame, `lost` is called when a connection ends.

    `listeners` are called with each frame's type and payload after it was found right.
    """

    def __init__(self, ledger: Ledger, name: str, *, from_start: bool = True) -> None:
        self.ledger = ledger
        self.name = name
        self.cursor: str | None = "0" if from_start else None
        self.seq = 0
        self.connections = 0
        self.listeners: list[Callable[[str, dict[str, Any]], None]] = []
        self._buried: dict[str, int] = {}
        self._epoch: str | None = None
        self._begun: str | None = None
        self._synced = False
        self._drafts: dict[str, _Draft] = {}
        self._live: set[str] = set()
        self._closed: set[str] = set()
        self._moved = asyncio.Event()

    @property
    def unfinished(self) -> set[str]:
        """The messages of which pieces were shown, and the end not yet."""
        return set(self._drafts)

    def lost(self) -> None:
        """The connection ended; the next frame is the first of another one."""
        self._begun = None
        self._synced = False
        self._live.clear()

    async def reached(self, seq: int) -> None:
        """Wait until the event with this number was shown."""
        while self.seq < seq:
            self._moved.clear()
            await self._moved.wait()

    def take(self, frame: bytes | str) -> Envelope:
        """Check one frame; raises MismatchError."""
        event = decode_event(frame)
        if event.session_id != self.ledger.session_id:
            self._fail(f"an event of session {event.session_id}")
        payload: dict[str, Any] = msgspec.json.decode(event.payload)
        if (self._begun is None) != (event.event_type == "connected"):
            self._fail(f"{event.event_type} where it may not be")
        if event.seq is not None:
            self._durable(event, event.seq, payload)
        elif event.event_type == "connected":
            self._connected(payload)
        elif event.event_type == "sync":
            self._sync(payload)
        elif event.event_type == "message_delta":
            self._delta(payload)
        elif event.event_type == "resync_required":
            self._fail(f"its cursor {self.cursor} was refused: {payload}")
        elif event.event_type in _ASIDE:
            self.ledger.counts["transient"] += 1
        for listener in self.listeners:
            listener(event.event_type, payload)
        return event

    def _connected(self, payload: dict[str, Any]) -> None:
        cursor = payload["cursor"]
        epoch, _, number = cursor.rpartition(".")
        if self.cursor is None:
            self.seq = int(number)
        elif int(number) != self.seq or (self._epoch is not None and cursor != self.cursor):
            self._fail(f"asked for {self.cursor}, is given {cursor}")
        self.connections += 1
        self._buried = self.ledger.buried
        self._epoch, self._begun, self.cursor = epoch, cursor, cursor

    def _sync(self, payload: dict[str, Any]) -> None:
        if self._synced or (payload["from"], payload["through"]) != (self._begun, self.cursor):
            self._fail(f"sync {payload} at {self.cursor}, begun at {self._begun}")
        self._synced = True

    def _durable(self, event: Envelope, seq: int, payload: dict[str, Any]) -> None:
        if seq != self.seq + 1 or event.cursor != f"{self._epoch}.{seq}":
            self._fail(f"event {seq} ({event.event_type}, cursor {event.cursor}) follows {self.seq}")
        self.ledger.saw(seq, Record(event.event_type, event.timestamp, bytes(event.payload)))
        self.ledger.counts["durable"] += 1
        self.seq, self.cursor = seq, event.cursor
        self._moved.set()
        if event.event_type == "message_created":
            self._close(payload)

    def _delta(self, delta: dict[str, Any]) -> None:
        message, attempt = delta["message_id"], delta["attempt"]
        self.ledger.counts["delta"] += 1
        if not self._synced:
            self._fail("a delta before the replay was over")
        if message in self._closed:
            self._fail(f"a delta of message {message}, which is complete: {delta}")
        if attempt <= self._buried.get(message, 0):
            self._fail(f"attempt {attempt} of message {message} goes on although its server is gone")
        self.ledger.opened[message] = max(attempt, self.ledger.opened.get(message, 0))
        draft = self._drafts.get(message)
        if draft is None or attempt > draft.attempt:
            draft = self._drafts[message] = _Draft(attempt)
        elif attempt < draft.attempt:
            self._fail(f"attempt {attempt} of message {message} after attempt {draft.attempt}")
        self._live.add(message)
        problem = draft.apply(delta)
        if problem is not None:
            self._fail(f"{delta} {problem}")

    def _close(self, created: dict[str, Any]) -> None:
        message = created["message_id"]
        if message in self._closed:
            self._fail(f"message {message} is complete twice")
        self._closed.add(message)
        draft = self._drafts.pop(message, None)
        if draft is None:
            return
        if draft.attempt > created["attempt"]:
            self._fail(f"message {message} is of attempt {created['attempt']}, attempt {draft.attempt} was shown")
        if draft.attempt < created["attempt"]:
            return  # the later attempt was written while nobody was connected
        texts = _texts(created)
        for part in texts.keys() | draft.parts.keys():
            final, shown = texts.get(part, "").encode("utf-16-le"), draft.parts.get(part, bytearray())
            # Whoever was live until the end has seen all of it, others its beginning.
            if shown != (final if message in self._live else final[: len(shown)]):
                self._fail(f"{part} of message {message} was shown as {shown.decode('utf-16-le')!r}, is {texts}")
        self.ledger.counts["texts"] += 1

    def _fail(self, what: str) -> NoReturn:
        raise MismatchError(f"{self.name} on {self.ledger.session_id}, connection {self.connections}: {what}")


def _texts(created: dict[str, Any]) -> dict[tuple[str, str | None], str]:
    """The parts of a complete message."""
    calls = {("arguments", call["call_id"]): call["arguments"] for call in created.get("tool_calls", ())}
    return {("content", None): created["content"], ("reasoning", None): created.get("reasoning", ""), **calls}
