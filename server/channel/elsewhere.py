"""What other processes say, brought to the channels of this one; nothing of it is said again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

from protocol.events import MessageDelta, Payload
from server.channel.channel import Channel
from server.channel.follow import Follower
from server.channel.tasks import Tasks

__all__ = ["Elsewhere"]

#: A hint that lies further ahead than this is looked into before it is believed: anybody can say a number.
_PLAUSIBLE: Final = 10_000


class Elsewhere:
    """The hub's ear on the bus (`server.bus.Ear`)."""

    def __init__(self, channels: Mapping[UUID, Channel], follower: Follower, tasks: Tasks) -> None:
        self._channels = channels
        self._follower = follower
        self._tasks = tasks

    def on_hint(self, session_id: UUID, seq: int) -> None:
        """Events up to `seq` exist (0: some more than before): those that are missing here are read from the log."""
        channel = self._heard(session_id)
        if channel is None:
            return
        if seq and seq - channel.head < _PLAUSIBLE:
            channel.expect(seq)
        else:
            self._follower.look(session_id)

    def on_delta(self, session_id: UUID, delta: MessageDelta) -> bool:
        """A piece of a message that another process writes; False when what lies before it is not known here."""
        channel = self._heard(session_id)
        return channel is None or channel.delta_elsewhere(delta)

    def on_closed(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        """Another process has given up a message in this attempt."""
        channel = self._heard(session_id)
        if channel is not None:
            channel.live.close_there(message_id, attempt)

    def on_transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        """Something that is true only now."""
        channel = self._heard(session_id)
        if channel is not None:
            channel.transient(event_type, payload)

    def on_missed(self) -> None:
        """Something may have been said that was not heard: compare all heads with the log's once."""
        self._tasks.run(self._follower.poll(), "look at everything")

    def follows(self, session_id: UUID) -> bool:
        """Whether anybody here listens to the session."""
        return self._heard(session_id) is not None

    def writing(self) -> Collection[UUID]:
        """The sessions in which this process itself is writing a message."""
        return [session_id for session_id, channel in self._channels.items() if channel.live.merged(here=True)]

    def texts(self, session_id: UUID) -> Sequence[MessageDelta]:
        """What this process itself is writing in the session."""
        channel = self._channels.get(session_id)
        return () if channel is None else channel.live.merged(here=True)

    def _heard(self, session_id: UUID) -> Channel | None:
        channel = self._channels.get(session_id)
        return channel if channel is not None and channel.is_heard else None
