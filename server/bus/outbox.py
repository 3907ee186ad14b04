"""What waits to be said: put together, bounded, and taken out in an order that keeps texts whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final
from uuid import UUID

from protocol.delta import merge
from protocol.events import MessageDelta
from server.bus.packets import Hint, Item, Look, encode_item, pieces

__all__ = ["Outbox"]

#: Sessions with a hint; when there are more, everybody is told to look at everything instead.
_MOST_HINTS: Final = 10_000
#: Items, and bytes of texts, that wait; those beyond are dropped.
_MOST_ITEMS: Final = 10_000
_MOST_TEXT: Final = 4 << 20
#: Characters up to which deltas are merged: one piece on the way.
_MERGED_CHARS: Final = 1_200


class Outbox:
    """What this process has to say to others. `urgent` and `texts` are set when there is something of the kind."""

    def __init__(self) -> None:
        self.urgent = asyncio.Event()
        self.texts = asyncio.Event()
        self.dropped = 0
        self._hints: dict[UUID, int] = {}
        self._items: list[bytes] = []
        self._direct: dict[UUID, list[bytes]] = {}
        self._deltas: dict[UUID, list[MessageDelta]] = {}
        self._text_bytes = 0
        self._overflow = False

    def hint(self, session_id: UUID, seq: int) -> None:
        """For all: events up to `seq` exist."""
        if len(self._hints) >= _MOST_HINTS:
            self._hints.clear()
            self._overflow = True
        if not self._overflow:
            # That there is something of which nobody knows the number is more than any number says.
            known = self._hints.get(session_id, seq)
            self._hints[session_id] = max(seq, known) if seq and known else 0
        self.urgent.set()

    def say(self, item: Item) -> None:
        """For all."""
        if len(self._items) < _MOST_ITEMS:
            self._items.append(encode_item(item))
            self.urgent.set()
        else:
            self.dropped += 1

    def tell(self, peer: UUID, *items: Item) -> None:
        """For one process alone."""
        waiting = self._direct.setdefault(peer, [])
        if len(waiting) + len(items) <= _MOST_ITEMS:
            waiting.extend(encode_item(item) for item in items)
            self.urgent.set()
        else:
            self.dropped += len(items)

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        """For whoever wants to hear the session."""
        if self._text_bytes > _MOST_TEXT:
            # A gap, which its readers notice and have filled.
            self.dropped += 1
            return
        self._text_bytes += len(delta.text)
        waiting = self._deltas.setdefault(session_id, [])
        last = waiting[-1] if waiting else None
        merged = merge(last, delta) if last is not None and len(last.text) < _MERGED_CHARS else None
        if merged is None:
            waiting.append(delta)
        else:
            waiting[-1] = merged
        self.texts.set()

    def take(
        self, wanted_by: Callable[[UUID], Collection[UUID]], *, texts: bool
    ) -> tuple[dict[UUID, list[bytes]], list[bytes]]:
        """What is to be said now: to each process, and to all after that.

        With `texts` the pieces of all messages, else of those sessions alone for which there is a hint: what closes a
        message must not come before its last words.
        """
        direct, self._direct = self._direct, {}
        for session_id in list(self._deltas) if texts else self._hints.keys() & self._deltas.keys():
            deltas = self._deltas.pop(session_id)
            self._text_bytes -= sum(len(delta.text) for delta in deltas)
            peers = wanted_by(session_id)
            encoded = [encode_item(piece) for delta in deltas for piece in pieces(session_id, delta)] if peers else []
            for peer in peers:
                direct.setdefault(peer, []).extend(encoded)
        hints, self._hints = self._hints, {}
        broadcast = [encode_item(Hint(session_id, seq)) for session_id, seq in hints.items()]
        if self._overflow:
            broadcast.append(encode_item(Look()))
        items, self._items = self._items, []
        self._overflow = False
        self.urgent.clear()
        if not self._deltas:
            self.texts.clear()
        return direct, [*broadcast, *items]

    def clear(self) -> None:
        """Nobody is to be told any of it."""
        self.dropped += len(self._hints) + len(self._items) + len(self._deltas) + sum(map(len, self._direct.values()))
        self._hints.clear()
        self._items.clear()
        self._direct.clear()
        self._deltas.clear()
        self._text_bytes = 0
        self._overflow = False
        self.urgent.clear()
        self.texts.clear()
