"""Calls that a client was given, and what it remembers of those that are over."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from protocol.client.tools import CallContext, Outcome
from protocol.durable import ToolDispatched
from protocol.envelope import Envelope
from protocol.errors import ParleyError
from protocol.ids import parse_timestamp

__all__ = ["Call", "Done", "lease_of"]

#: Calls that are remembered, and bytes of their results that are kept for those who ask again.
_MOST_DONE: Final = 100_000
_MOST_KEPT_BYTES: Final = 8 << 20


class Call:
    """A call that this client has."""

    def __init__(self, event: ToolDispatched, key: str, size: int, lease: float | None) -> None:
        self.event = event
        #: What the journal calls it.
        self.key = key
        self.size = size
        #: Seconds for which it is ours without a sign of life; None without an end.
        self.lease = lease
        #: Somebody else settled it, or it was taken back.
        self.resolved = False
        self.outcome: Outcome | None = None
        self.task: asyncio.Task[None] | None = None
        self.context = CallContext(event.call_id, event.name, event.turn_id, self.report)
        self.message: str | None = None
        self.fraction: float | None = None
        #: There is progress to tell.
        self.news = asyncio.Event()

    def report(self, message: str | None, fraction: float | None) -> None:
        """Have it told how far it is."""
        self.message, self.fraction = message, fraction
        self.news.set()

    def give_up(self) -> None:
        """Nobody wants its result any more."""
        self.resolved = self.context.cancelled = True
        if self.task is not None:
            self.task.cancel()


class Done:
    """The calls that are over. The newest results are kept; of the others it is known that they were run."""

    def __init__(self) -> None:
        self._calls: OrderedDict[str, Outcome | None] = OrderedDict()
        self._kept = 0

    def outcome(self, call_id: str) -> Outcome | None:
        """What to answer for a call that was run before; None for one that was not."""
        if call_id not in self._calls:
            return None
        return self._calls[call_id] or Outcome.failed(
            "this client ran the call before, and does not have its result any more"
        )

    def add(self, call_id: str, outcome: Outcome | None) -> None:
        """A call is over; `outcome` is None where it was given up."""
        before = self._calls.pop(call_id, None)
        self._kept += _size(outcome) - _size(before)
        self._calls[call_id] = outcome
        for oldest, kept in self._calls.items() if self._kept > _MOST_KEPT_BYTES else ():
            self._kept -= _size(kept)
            self._calls[oldest] = None
            if self._kept <= _MOST_KEPT_BYTES:
                break
        if len(self._calls) > _MOST_DONE:
            _, forgotten = self._calls.popitem(last=False)
            self._kept -= _size(forgotten)


def _size(outcome: Outcome | None) -> int:
    return 0 if outcome is None else outcome.size


def lease_of(envelope: Envelope, event: ToolDispatched) -> float | None:
    """How long the call is ours, in seconds, by the server's clock alone: ours may be wrong."""
    try:
        if event.deadline is None:
            return None
        seconds = (parse_timestamp(event.deadline) - parse_timestamp(envelope.timestamp)).total_seconds()
    except ParleyError:
        return None
    return max(seconds, 0.0)
