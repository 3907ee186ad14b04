"""Arithmetic of streamed text: how deltas are cut, merged and put together again.

Every delta says where its text begins, in UTF-16 code units, as JavaScript and the Language Server Protocol count. So
deltas may be dropped, repeated, merged and reordered on the way: a reader takes what continues its text, sees when it
missed something, and is healed by the next merged delta or by the durable message.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias
from uuid import UUID

from msgspec.structs import replace

from protocol.events import MessageCreated, MessageDelta, Part

__all__ = ["Applied", "MessageText", "TextCounter", "merge", "split", "split_text", "tail", "utf16_len"]

Applied: TypeAlias = Literal["appended", "ignored", "gap", "restarted"]

_UTF16: Final = "utf-16-le"


def utf16_len(text: str) -> int:
    """The length of a text in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode(_UTF16, "surrogatepass")) // 2


def split_text(text: str, units: int) -> tuple[str, str]:
    """Cut a text after `units` UTF-16 code units, or one earlier where that would part a surrogate pair."""
    units = max(units, 0)
    if text.isascii():
        return text[:units], text[units:]
    head = text.encode(_UTF16, "surrogatepass")[: 2 * units].decode(_UTF16, "surrogatepass")
    if not text.startswith(head):
        head = head[:-1]  # half a pair: the tail begins with the whole character
    return head, text[len(head) :]


def split(delta: MessageDelta, units: int) -> tuple[MessageDelta, MessageDelta]:
    """Cut a delta into one of at most `units` UTF-16 code units and the rest; merging them gives it back.

    `units` is at least 2 where every head must hold something, as one character may need two.
    """
    head, rest = split_text(delta.text, units)
    return replace(delta, text=head), replace(delta, offset=delta.offset + utf16_len(head), text=rest)


def tail(delta: MessageDelta, length: int) -> MessageDelta | None:
    """What a reader that has `length` code units of the text lacks of it; None if nothing, or if there is a gap."""
    lacking = _beyond(delta, length)
    return replace(delta, offset=length, text=lacking) if lacking else None


def _beyond(delta: MessageDelta, length: int) -> str:
    """The text of a delta from `length` on; empty where the delta does not continue a text of that length."""
    if not delta.offset <= length < delta.offset + utf16_len(delta.text):
        return ""
    head, rest = split_text(delta.text, length - delta.offset)
    # Inside of a pair nothing can be continued; only a sender that counts wrongly leads here.
    return rest if delta.offset + utf16_len(head) == length else ""


def merge(a: MessageDelta, b: MessageDelta) -> MessageDelta | None:
    """One delta that says what both say, in either order; None unless they touch or overlap in one part's text."""
    if (a.message_id, a.attempt, a.part, a.call_id) != (b.message_id, b.attempt, b.part, b.call_id):
        return None
    first, second = (a, b) if a.offset <= b.offset else (b, a)
    end = first.offset + utf16_len(first.text)
    if second.offset > end:
        return None
    if second.offset + utf16_len(second.text) <= end:
        return first
    lacking = _beyond(second, end)
    return replace(first, text=first.text + lacking) if lacking else None


class TextCounter:
    """Counts a text in UTF-16 code units while it grows, for the offsets of its deltas."""

    __slots__ = ("length",)

    def __init__(self, length: int = 0) -> None:
        self.length = length

    def add(self, text: str) -> int:
        """Count a piece; gives the offset at which it begins."""
        offset = self.length
        self.length += utf16_len(text)
        return offset


class _PartText:
    """One part of a message: its pieces, its length, and how far it is known to reach."""

    __slots__ = ("counter", "pieces", "reach")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.counter = TextCounter()
        self.reach = 0

    def text(self) -> str:
        # Joined now and then instead of at each delta: a long text would be copied with every token.
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


class MessageText:
    """A message that is being written, put together from its deltas as a client does.

    `attempt` is the one that is being read, None before the first delta; `closed` says that the durable message came.
    """

    def __init__(self, message_id: UUID) -> None:
        self.message_id = message_id
        self.attempt: int | None = None
        self.closed = False
        self._parts: dict[tuple[Part, str | None], _PartText] = {}

    @property
    def gap(self) -> bool:
        """Whether text is missing that is known to exist."""
        return any(part.counter.length < part.reach for part in self._parts.values())

    def text(self, part: Part = "content", call_id: str | None = None) -> str:
        """What is there of a part, from its beginning without a hole."""
        found = self._parts.get((part, call_id))
        return "" if found is None else found.text()

    def length(self, part: Part = "content", call_id: str | None = None) -> int:
        """The same in UTF-16 code units."""
        found = self._parts.get((part, call_id))
        return 0 if found is None else found.counter.length

    def apply(self, delta: MessageDelta) -> Applied:
        """Take what a delta adds.

        `appended`: it continued the text. `ignored`: nothing new, an older attempt, or the message is closed. `gap`:
        it lies beyond the text; the next merged delta or the durable message heals that. `restarted`: it belongs to a
        newer attempt, and what was there of the older one is gone.
        """
        if delta.message_id != self.message_id:
            raise ValueError(f"a delta of {delta.message_id} was applied to {self.message_id}")
        if self.closed or (self.attempt is not None and delta.attempt < self.attempt):
            return "ignored"
        restarted = self.attempt is not None and delta.attempt > self.attempt
        if restarted:
            self._parts.clear()
        self.attempt = delta.attempt
        applied = self._append(delta)
        return "restarted" if restarted and applied != "gap" else applied

    def _append(self, delta: MessageDelta) -> Applied:
        part = self._parts.setdefault((delta.part, delta.call_id), _PartText())
        part.reach = max(part.reach, delta.offset + utf16_len(delta.text))
        lacking = _beyond(delta, part.counter.length)
        if lacking:
            part.pieces.append(lacking)
            part.counter.add(lacking)
            return "appended"
        return "gap" if delta.offset > part.counter.length else "ignored"

    def close(self, message: MessageCreated) -> None:
        """Take the durable message: it has the last word."""
        self.closed = True
        self._parts.clear()
        self._set("content", None, message.content)
        if message.reasoning is not None:
            self._set("reasoning", None, message.reasoning)
        for call in message.tool_calls or ():
            self._set("arguments", call.call_id, call.arguments)

    def _set(self, name: Part, call_id: str | None, text: str) -> None:
        part = self._parts[name, call_id] = _PartText()
        part.pieces.append(text)
        part.counter.add(text)
        part.reach = part.counter.length

    def deltas(self) -> list[MessageDelta]:
        """All that is there, as one delta a part: what somebody who comes late is given."""
        return [
            MessageDelta(
                message_id=self.message_id,
                attempt=self.attempt or 0,
                part=name,
                call_id=call_id,
                offset=0,
                text=part.text(),
            )
            for (name, call_id), part in self._parts.items()
            if part.counter.length
        ]
