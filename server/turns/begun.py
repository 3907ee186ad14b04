"""Turns that a statement has just created for this worker, and their first claims."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from storage.claims import Claim

__all__ = ["Begun", "TurnBegun", "first_claim"]


class TurnBegun(Protocol):
    """A turn that a statement has created."""

    @property
    def turn_id(self) -> UUID:
        """The new turn."""

    @property
    def message_id(self) -> UUID:
        """The user's message, or the task."""

    @property
    def answer_id(self) -> UUID:
        """The agent's first message."""

    @property
    def agent_type(self) -> str:
        """Who acts in it."""

    @property
    def now(self) -> datetime:
        """When it began."""


class Begun(Struct, frozen=True, kw_only=True):
    """The same, put together."""

    turn_id: UUID
    message_id: UUID
    answer_id: UUID
    agent_type: str
    now: datetime


def first_claim(worker_id: UUID, session_id: UUID, owner: str, start: TurnBegun) -> Claim:
    """The first step of a turn that a statement has just created for this worker."""
    return Claim(
        session_id=session_id,
        turn_id=start.turn_id,
        step=1,
        message_id=start.answer_id,
        state="running",
        worker_id=worker_id,
        attempt=1,
        agent_type=start.agent_type,
        user_message_id=start.message_id,
        turn_created_at=start.now,
        owner=owner,
    )
