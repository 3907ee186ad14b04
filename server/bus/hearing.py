"""What is made of the payloads that come in: each item to whom it concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, assert_never
from uuid import UUID

import structlog

from server.bus.interface import Ear
from server.bus.packets import (
    Bye,
    Closed,
    Fragment,
    Hello,
    Hint,
    Item,
    Look,
    Piece,
    Stir,
    Transient,
    Want,
    Writing,
    decode_item,
    decode_packet,
    payload_of,
    pieces,
)

__all__ = ["Hearing", "Mouth"]

_log: Final = structlog.stdlib.get_logger("server.bus")

#: Characters of an item that comes in parts; none is nearly so large.
_MOST_CHARS: Final = 1 << 20
#: Processes of which one is under way.
_MOST_ORIGINS: Final = 1_000


class Mouth(Protocol):
    """The other half of the bus: what it has to know, and through which it answers."""

    on_stir: Callable[[UUID], None]

    def came(self, peer: UUID) -> bool:
        """Something was heard of a process; whether it is new."""

    def went(self, peer: UUID) -> None:
        """A process said good-bye."""

    def wanted(self, session_id: UUID, peer: UUID) -> None:
        """A process wants to hear a session."""

    def tell(self, peer: UUID, *items: Item) -> None:
        """Say something to one process alone."""

    def asked(self, session_id: UUID, peer: UUID) -> None:
        """A process asks who wants to hear a session, and somebody listens to it here."""

    def hears(self, session_id: UUID, peer: UUID) -> None:
        """A piece was heard of a session that is listened to here."""

    def lacks(self, session_id: UUID, peer: UUID) -> None:
        """A piece was heard that continues nothing known here."""

    def echoed(self) -> None:
        """Something that we said to all came back to us."""


class Hearing:
    """Takes payloads; what is none of ours is ignored, and mentioned once."""

    def __init__(self, me: UUID, ear: Ear, mouth: Mouth) -> None:
        self.heard = 0
        self.foreign = 0
        self._me = me
        self._ear = ear
        self._mouth = mouth
        self._fragments: dict[UUID, list[str]] = {}

    def take(self, payload: str) -> None:
        """One payload, from whomever."""
        packet = decode_packet(payload)
        if packet is None:
            self.foreign += 1
            if self.foreign == 1:
                _log.warning("bus_foreign_payload", size=len(payload))
            return
        if packet.origin == self._me:
            self._mouth.echoed()
            return
        new = self._mouth.came(packet.origin)
        if new:
            self._ear.on_missed()
        for raw in packet.items:
            item = decode_item(raw)
            if item is not None:
                self._take_item(packet.origin, item, new=new)

    def _take_item(self, origin: UUID, item: Item, *, new: bool = False) -> None:
        try:
            self.heard += 1
            self._handle(origin, item, new=new)
        except Exception:  # noqa: BLE001 - one strange item must not silence those after it
            _log.exception("bus_item_failed", item=type(item).__name__)

    def _handle(self, origin: UUID, item: Item, *, new: bool) -> None:
        match item:
            case Hint() | Piece() | Closed() | Transient() | Stir():
                self._news(origin, item)
            case Want() | Writing():
                self._wish(origin, item)
            case Hello() | Bye() | Look():
                self._life(origin, item, new=new)
            case Fragment():
                self._put_together(origin, item)
            case _:
                assert_never(item)

    def _news(self, origin: UUID, item: Hint | Piece | Closed | Transient | Stir) -> None:
        match item:
            case Hint(session_id, seq):
                self._ear.on_hint(session_id, seq)
            case Piece():
                self._piece(origin, item)
            case Closed(session_id, message_id, attempt):
                self._ear.on_closed(session_id, message_id, attempt)
            case Transient(session_id, event_type):
                payload = payload_of(item)
                if payload is not None:
                    self._ear.on_transient(session_id, event_type, payload)
            case Stir(turn_id):
                self._mouth.on_stir(turn_id)
            case _:
                assert_never(item)

    def _wish(self, origin: UUID, item: Want | Writing) -> None:
        session_id = item.session_id
        if isinstance(item, Writing):
            if self._ear.follows(session_id):
                self._mouth.asked(session_id, origin)
            return
        self._mouth.wanted(session_id, origin)
        if item.text:
            texts = self._ear.texts(session_id)
            self._mouth.tell(origin, *(piece for delta in texts for piece in pieces(session_id, delta)))

    def _life(self, origin: UUID, item: Hello | Bye | Look, *, new: bool) -> None:
        if isinstance(item, Bye):
            self._mouth.went(origin)
            return
        if not new:
            self._ear.on_missed()
        if isinstance(item, Hello):
            # What was said to it before it did not hear; it may want to hear it now.
            self._mouth.tell(origin, *(Writing(session_id) for session_id in self._ear.writing()))

    def _piece(self, origin: UUID, piece: Piece) -> None:
        if not self._ear.follows(piece.session_id):
            return
        if not self._ear.on_delta(piece.session_id, piece.delta()):
            self._mouth.lacks(piece.session_id, origin)
        self._mouth.hears(piece.session_id, origin)

    def _put_together(self, origin: UUID, fragment: Fragment) -> None:
        if origin not in self._fragments and len(self._fragments) >= _MOST_ORIGINS:
            return
        parts = self._fragments.setdefault(origin, [])
        parts.append(fragment.text)
        if sum(map(len, parts)) > _MOST_CHARS:
            del self._fragments[origin]
        elif fragment.last:
            del self._fragments[origin]
            item = decode_item("".join(parts))
            if item is not None and not isinstance(item, Fragment):
                self._take_item(origin, item)
