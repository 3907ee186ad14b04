"""The bus as the rest of the server knows it, whatever carries it.

    Bus   says something to the other processes: never waits, never fails, may lose what it was given
    Ear   is told what the other processes said

The log is the truth, and polling it the guarantee; a bus makes it quick. Nothing breaks when it is away: events are
found by the poll, texts are healed by their offsets and by the durable message, turns look after themselves in their
pulse. So nobody asks whether a message arrived, and nobody handles an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal, Protocol, TypeAlias
from uuid import UUID

from msgspec import Struct

from protocol.events import MessageDelta, Payload

__all__ = ["Bus", "BusState", "BusStats", "Ear"]

#: `alone`: no other process is there, nothing is sent. `connected`: others are there and are heard. `away`: nobody can
#: be heard at the moment.
BusState: TypeAlias = Literal["alone", "connected", "away"]


class Ear(Protocol):
    """Whom a bus tells what it heard. Called from the loop; nothing in here waits or fails."""

    def on_hint(self, session_id: UUID, seq: int) -> None:
        """Events of the session up to `seq` exist (0: some more than before)."""

    def on_delta(self, session_id: UUID, delta: MessageDelta) -> bool:
        """A piece of a message that another process writes; False when what lies before it is not known here."""

    def on_closed(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        """Another process has stopped writing a message in this attempt, and what it wrote counts no longer."""

    def on_transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        """Something that is true only now."""

    def on_missed(self) -> None:
        """Something may have been said that nobody here heard: look at everything once."""

    def follows(self, session_id: UUID) -> bool:
        """Whether anybody here listens to the session."""

    def writing(self) -> Collection[UUID]:
        """The sessions in which this process itself is writing a message."""

    def texts(self, session_id: UUID) -> Sequence[MessageDelta]:
        """What this process itself is writing in the session, one delta a part."""


class Bus(Protocol):
    """Tells other processes. What is said before `start`, while alone, or while away, is dropped."""

    #: Called with a turn that has news of which the process that runs it may not know.
    on_stir: Callable[[UUID], None]

    def attach(self, ear: Ear) -> None:
        """Whom to tell what is heard; before `start`."""

    async def start(self) -> None:
        """Begin to listen. Returns at once, also when nobody can be reached yet. Idempotent."""

    async def stop(self) -> None:
        """Say good-bye and end every task. Idempotent; over when it returns."""

    @property
    def state(self) -> BusState:
        """How it is at this moment."""

    @property
    def alone(self) -> bool:
        """Whether no other process is there, as far as is known."""

    def stats(self) -> BusStats:
        """What was said and heard since the start."""

    def hint(self, session_id: UUID, seq: int) -> None:
        """Events up to `seq` were committed (0: some were)."""

    def delta(self, session_id: UUID, delta: MessageDelta) -> None:
        """A piece of a message that is being written here."""

    def closed(self, session_id: UUID, message_id: UUID, attempt: int) -> None:
        """This process writes the message no longer, and it is not complete."""

    def transient(self, session_id: UUID, event_type: str, payload: Payload) -> None:
        """Something that is true only now."""

    def stir(self, turn_id: UUID) -> None:
        """A turn that another process may run has news: a cancel, a result, a decision."""

    def follow(self, session_id: UUID) -> None:
        """Somebody here listens to the session from now on: what is being written in it elsewhere is wanted."""


class BusStats(Struct, frozen=True, kw_only=True):
    """A picture of the bus: how it is, how many other processes there are, then totals since the process began.

    `sent` and `heard` are messages (a hint, a piece of text), `payloads` what they were put together to. `dropped` were
    given up because nobody was reached or too much was waiting; `foreign` payloads were none of ours.
    """

    state: BusState
    peers: int = 0
    sent: int = 0
    payloads: int = 0
    heard: int = 0
    dropped: int = 0
    foreign: int = 0
    reconnects: int = 0
