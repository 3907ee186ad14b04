"""Who is on which session, on all processes, and which tools they offer.

    Presence   joins and leaves of this process, written together; who is here and what they offer, on all processes
    Watcher    is told, off everybody's way, what concerns calls that run at clients
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from protocol.commands import RegisterTools, ToolDescription
from protocol.parts import ClientInfo
from storage.sessions import Session

__all__ = ["Offer", "Presence", "Watcher"]


class Offer(Struct, frozen=True, kw_only=True):
    """A client that is on the session now, and the tools that it registered, at `tools_at`."""

    client_id: str
    tools: Sequence[ToolDescription]
    tools_at: datetime


class Watcher(Protocol):
    """Looks after calls that run at clients: `server.turns.service.TurnService`."""

    async def client_joined(self, session_id: UUID, client_id: str) -> None:
        """A client is on the session that was not before, on any process."""

    async def client_left(self, session_id: UUID, client_id: str) -> None:
        """A client's last connection to the session has ended, or its process died."""

    async def tools_registered(self, session_id: UUID, client_id: str, names: Sequence[str]) -> None:
        """A client offers these tools from now on."""


class Presence(Protocol):
    """The part that turns and commands need (becomes the class itself)."""

    async def offers(self, session_id: UUID) -> Sequence[Offer]:
        """Who offers tools on the session, the latest registration first. No read of the database while alone."""

    async def here(self, session_id: UUID) -> Sequence[ClientInfo]:
        """Who is on the session, each client once."""

    async def register(self, session: Session, command: RegisterTools, client_id: str | None, user_id: str) -> None:
        """The client offers these tools in place of those before. Raises ParleyError when it cannot."""
