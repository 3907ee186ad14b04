"""What goes over the bus: items, several of them in one payload.

A payload is `[origin, [item, item, ...]]` in JSON, an item an array that begins with its tag. Whoever can reach the
database can say anything here, so everything is checked as if a stranger had said it; items that are not known (a newer
version's) are passed over one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta, Raw, Struct

from protocol.delta import utf16_len
from protocol.events import EVENTS, MessageDelta, Part, Payload

__all__ = [
    "Bye",
    "Closed",
    "Fragment",
    "Hello",
    "Hint",
    "Item",
    "Look",
    "Packet",
    "Piece",
    "Stir",
    "Transient",
    "Want",
    "Writing",
    "decode_item",
    "decode_packet",
    "encode_item",
    "pack",
    "payload_of",
    "pieces",
]

Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]

#: Characters of text in one piece: with every one escaped (6 bytes) it still fits into a payload of 8,000 bytes.
_PIECE_CHARS: Final = 1_200
#: Characters of an item that is cut up: at most four bytes each, or two where they are escaped once more.
_FRAGMENT_CHARS: Final = 1_800


class Packet(Struct, array_like=True, frozen=True):
    """One payload: who says it, and what, not looked at yet."""

    origin: UUID
    items: list[Raw]


class Hint(Struct, array_like=True, frozen=True, tag="h"):
    """Events of a session up to `seq` exist (0: some more)."""

    session_id: UUID
    seq: Number


class Piece(Struct, array_like=True, frozen=True, tag="d"):
    """A piece of a message that is being written."""

    session_id: UUID
    message_id: UUID
    attempt: Number
    part: Part
    call_id: Annotated[str, Meta(max_length=256)] | None
    offset: Number
    text: str

    def delta(self) -> MessageDelta:
        """As clients get it."""
        return MessageDelta(
            message_id=self.message_id,
            attempt=self.attempt,
            part=self.part,
            call_id=self.call_id,
            offset=self.offset,
            text=self.text,
        )


class Closed(Struct, array_like=True, frozen=True, tag="c"):
    """A message is written no longer in this attempt, and not complete."""

    session_id: UUID
    message_id: UUID
    attempt: Number


class Transient(Struct, array_like=True, frozen=True, tag="t"):
    """Something that is true only now."""

    session_id: UUID
    event_type: str
    payload: Raw

    @classmethod
    def of(cls, session_id: UUID, event_type: str, payload: Payload) -> Transient:
        """With its payload encoded."""
        return cls(session_id, event_type, Raw(_encoder.encode(payload)))


class Stir(Struct, array_like=True, frozen=True, tag="s"):
    """A turn has news."""

    turn_id: UUID


class Want(Struct, array_like=True, frozen=True, tag="w"):
    """The sender has listeners on the session: it wants what is written there; with `text`, from the beginning."""

    session_id: UUID
    text: bool


class Writing(Struct, array_like=True, frozen=True, tag="p"):
    """The sender writes a message in the session, and knows of nobody who wants it."""

    session_id: UUID


class Hello(Struct, array_like=True, frozen=True, tag="+"):
    """The sender listens from now on."""


class Bye(Struct, array_like=True, frozen=True, tag="-"):
    """The sender is about to end."""


class Look(Struct, array_like=True, frozen=True, tag="l"):
    """The sender had more to say than it could: look at everything."""


class Fragment(Struct, array_like=True, frozen=True, tag="f"):
    """A part of an item that is too large for one payload; they come in order, `last` says that it is whole."""

    text: str
    last: bool


Item: TypeAlias = Hint | Piece | Closed | Transient | Stir | Want | Writing | Hello | Bye | Look | Fragment

_encoder: Final = msgspec.json.Encoder()
_packets: Final = msgspec.json.Decoder(Packet)
_items: Final[msgspec.json.Decoder[Item]] = msgspec.json.Decoder(Item)

_TRANSIENTS: Final = {name: row.payload for name, row in EVENTS.items() if row.kind == "transient"}


def encode_item(item: Item) -> bytes:
    """An item on its way into a payload."""
    return _encoder.encode(item)


def decode_packet(payload: str) -> Packet | None:
    """Who says what; None when it is none of ours."""
    try:
        return _packets.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def decode_item(item: Raw | str) -> Item | None:
    """An item; None when it is not known, or not well-formed."""
    try:
        return _items.decode(item)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def payload_of(item: Transient) -> Payload | None:
    """The payload of a transient event; None when there is no such event, or it looks different."""
    kind = _TRANSIENTS.get(item.event_type)
    if kind is None:
        return None
    try:
        payload: Payload = msgspec.json.decode(item.payload, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return payload


def pieces(session_id: UUID, delta: MessageDelta) -> Iterator[Piece]:
    """A delta in pieces that fit into payloads, in order."""
    offset = delta.offset
    for first in range(0, len(delta.text), _PIECE_CHARS):
        text = delta.text[first : first + _PIECE_CHARS]
        yield Piece(session_id, delta.message_id, delta.attempt, delta.part, delta.call_id, offset, text)
        offset += utf16_len(text)


def pack(origin: UUID, items: Iterable[bytes], max_bytes: int) -> Iterator[str]:
    """Encoded items put together to payloads, as many as fit into each, in order; those too large are cut up."""
    head = b'["%s",[' % str(origin).encode()
    room = max_bytes - len(head) - 2
    filled: list[bytes] = []
    size = 0
    for item in _fitting(items, room):
        if filled and size + len(item) + 1 > room:
            yield _payload(head, filled)
            filled, size = [], 0
        filled.append(item)
        size += len(item) + 1
    if filled:
        yield _payload(head, filled)


def _payload(head: bytes, items: list[bytes]) -> str:
    return (head + b",".join(items) + b"]]").decode()


def _fitting(items: Iterable[bytes], room: int) -> Iterator[bytes]:
    for item in items:
        if len(item) < room:
            yield item
            continue
        text = item.decode()
        for first in range(0, len(text), _FRAGMENT_CHARS):
            part: Any = text[first : first + _FRAGMENT_CHARS]
            yield encode_item(Fragment(part, first + _FRAGMENT_CHARS >= len(text)))
