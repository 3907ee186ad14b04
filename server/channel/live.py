"""The texts of a session's messages that are being written: what lets a client join, or lag, in mid-answer.

A delta is sent once and kept nowhere else, so whoever was not live when it passed gets the text as a merged delta from
here. How far a subscriber has the texts already is its `Marks`; a subscriber that fell behind gets only what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from protocol.delta import split_text, utf16_len
from protocol.events import MessageDelta, Part

__all__ = ["NO_MARKS", "LiveTexts", "Mark", "Marks", "Missing"]

PartKey: TypeAlias = tuple[UUID, Part, str | None]


class Mark(NamedTuple):
    """How much of a part somebody has: `chars` of its text (code points), which are `units` UTF-16 code units."""

    attempt: int
    base: int
    chars: int
    units: int


Marks: TypeAlias = Mapping[PartKey, Mark]

#: The marks of somebody who has nothing, or who is live and needs none: one object for all.
NO_MARKS: Final[Marks] = MappingProxyType({})


class Missing(NamedTuple):
    """What somebody lacks, as deltas; `marks` holds once they were sent, `complete` when nothing is missing then."""

    deltas: list[MessageDelta]
    marks: Marks
    complete: bool


class _Part:
    """One growing text. Pieces are joined only when somebody reads them: appending stays cheap."""

    __slots__ = ("base", "chars", "pieces", "units")

    def __init__(self, base: int) -> None:
        self.base = base
        self.chars = 0
        self.units = 0
        self.pieces: list[str] = []

    def append(self, text: str) -> None:
        self.pieces.append(text)
        self.chars += len(text)
        self.units += utf16_len(text)

    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


class _Message:
    __slots__ = ("attempt", "here", "parts")

    def __init__(self, attempt: int, *, here: bool) -> None:
        self.attempt = attempt
        #: Whether this process writes it.
        self.here = here
        self.parts: dict[tuple[Part, str | None], _Part] = {}


class LiveTexts:
    """The messages being written, by id. Not more than the agents of one session are writing just now."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: dict[UUID, _Message] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def __contains__(self, message_id: UUID) -> bool:
        return message_id in self._messages

    def apply(self, delta: MessageDelta, *, here: bool = True) -> bool:
        """Take in the next delta; one of an older attempt, or wholly known, changes nothing.

        `here`: this process writes the message. False for an older attempt, which nobody needs to see.
        """
        message = self._messages.get(delta.message_id)
        if message is None or delta.attempt > message.attempt:
            message = self._messages[delta.message_id] = _Message(delta.attempt, here=here)
        elif delta.attempt < message.attempt:
            return False
        key = (delta.part, delta.call_id)
        part = message.parts.get(key)
        if part is None or delta.offset > part.base + part.units:
            # What lies before is known to nobody here; the durable message will have the last word.
            part = message.parts[key] = _Part(delta.offset)
        part.append(split_text(delta.text, part.base + part.units - delta.offset)[1])
        return True

    def length(self, delta: MessageDelta) -> int | None:
        """How many UTF-16 code units are known of the text that a delta belongs to; None: of a later attempt."""
        message = self._messages.get(delta.message_id)
        if message is None or delta.attempt > message.attempt:
            return 0
        if delta.attempt < message.attempt:
            return None
        part = message.parts.get((delta.part, delta.call_id))
        return 0 if part is None else part.base + part.units

    def close(self, message_id: UUID | None) -> bool:
        """Forget a message: the durable one has taken its place; whether it was being written."""
        return message_id is not None and self._messages.pop(message_id, None) is not None

    def close_here(self, message_id: UUID) -> int | None:
        """Forget a message if this process writes it; the attempt in which it did."""
        message = self._messages.get(message_id)
        if message is None or not message.here:
            return None
        del self._messages[message_id]
        return message.attempt

    def close_there(self, message_id: UUID, attempt: int) -> None:
        """Forget a message if another process writes it, in this attempt or an earlier one."""
        message = self._messages.get(message_id)
        if message is not None and not message.here and message.attempt <= attempt:
            del self._messages[message_id]

    def close_elsewhere(self) -> None:
        """Forget what other processes write: from now on nobody here is told how it goes on."""
        for message_id in [message_id for message_id, message in self._messages.items() if not message.here]:
            del self._messages[message_id]

    def marks(self) -> Marks:
        """The marks of somebody who has everything."""
        return {key: Mark(attempt, part.base, part.chars, part.units) for key, attempt, part in self._parts()}

    def missing(self, marks: Marks, max_chars: int) -> Missing:
        """What somebody with `marks` lacks, at most `max_chars` of it: one delta a part."""
        deltas: list[MessageDelta] = []
        reached: dict[PartKey, Mark] = {}
        room = max_chars
        complete = True
        for key, attempt, part in self._parts():
            mark = marks.get(key)
            if mark is None or (mark.attempt, mark.base) != (attempt, part.base):
                mark = Mark(attempt, part.base, 0, 0)
            if mark.chars < part.chars and room > 0:
                text = part.text()[mark.chars : mark.chars + room]
                deltas.append(_delta(key, mark, text))
                mark = mark._replace(chars=mark.chars + len(text), units=mark.units + utf16_len(text))
                room -= len(text)
            complete = complete and mark.chars == part.chars
            reached[key] = mark
        return Missing(deltas, reached, complete)

    def merged(self, *, here: bool = False) -> list[MessageDelta]:
        """One delta a part, with all of its text; with `here`, of those messages alone that this process writes."""
        return [
            _delta(key, Mark(attempt, part.base, 0, 0), part.text())
            for key, attempt, part in self._parts()
            if not here or self._messages[key[0]].here
        ]

    def _parts(self) -> Iterator[tuple[PartKey, int, _Part]]:
        for message_id, message in self._messages.items():
            for (name, call_id), part in message.parts.items():
                yield (message_id, name, call_id), message.attempt, part


def _delta(key: PartKey, mark: Mark, text: str) -> MessageDelta:
    message_id, part, call_id = key
    return MessageDelta(
        message_id=message_id,
        attempt=mark.attempt,
        part=part,
        call_id=call_id,
        offset=mark.base + mark.units,
        text=text,
    )
