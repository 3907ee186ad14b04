"""Conversations that have become too long for a model: the oldest part is left out, in whole exchanges.

Nobody but the endpoint knows how many tokens fit, and how many a text has. So everything is sent until it refuses;
then half of it, and so on. What is left out moves on in quarters of what fits, not with each message, so that the
beginning of a request stays the same for many of them, as the caches of models want it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Final
from uuid import UUID

from server.agents.interface import HistoryMessage

__all__ = ["Rooms", "fitting", "size"]

_MOST: Final = 4096
#: Characters that a message costs beside its text.
_COST: Final = 32
_PARTS: Final = 4


class Rooms:
    """How many characters of a session a model takes, as far as its refusals have told. Kept by this process only.

    By session, as some languages need five times the tokens of others.
    """

    def __init__(self, most: int = _MOST) -> None:
        """``most``: of how many sessions; the ones that were asked for longest ago are forgotten."""
        self._most = most
        self._rooms: OrderedDict[tuple[UUID, str], int] = OrderedDict()

    def get(self, session_id: UUID, model: str) -> int | None:
        """Characters; None while nothing was refused."""
        key = (session_id, model)
        if key in self._rooms:
            self._rooms.move_to_end(key)
        return self._rooms.get(key)

    def refused(self, session_id: UUID, model: str, characters: int) -> None:
        """So many were too many."""
        self._rooms[session_id, model] = characters // 2
        self._rooms.move_to_end((session_id, model))
        if len(self._rooms) > self._most:
            self._rooms.popitem(last=False)


def fitting(history: Sequence[HistoryMessage], room: int | None) -> Sequence[HistoryMessage]:
    """The end of the history that fits the room: whole exchanges, each beginning with a message of the user's.

    The last exchange, which is the one to be answered, is kept whatever its size.
    """
    starts = [position for position, message in enumerate(history) if message.role == "user"]
    if not starts:
        return history
    # What comes before the first question has lost its own.
    kept = starts[0]
    before = [0, *accumulate(map(size, history))]
    if room is not None and (excess := before[-1] - room) > 0:
        part = max(1, room // _PARTS)
        wanted = -(-excess // part) * part
        kept = next((start for start in starts if before[start] >= wanted), starts[-1])
    return history[kept:]


def size(message: HistoryMessage) -> int:
    """Characters that a message takes of the room, about."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    return _COST + len(message.content) + len(message.reasoning or "") + calls
