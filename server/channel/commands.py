"""What clients ask for, each command to its one service method: the same for every transport."""

from __future__ import annotations

from typing import Protocol, assert_never

from protocol.commands import (
    Cancel,
    Command,
    HitlDecision,
    Ping,
    QueueUpdate,
    RefreshToken,
    RegisterTools,
    SwitchAgent,
    ToolProgress,
    ToolResult,
    UserMessage,
)
from protocol.errors import ParleyError
from protocol.events import Ack
from server.auth.roles import permit
from server.turns.service import Origin
from storage.sessions import Session

__all__ = ["Commands", "Turns"]


class Turns(Protocol):
    """The part of `server.turns.service.TurnService` that commands need."""

    async def user_message(self, session: Session, command: UserMessage, origin: Origin) -> Ack:
        """Say something to an agent."""
        ...

    async def cancel(self, session: Session, command: Cancel, origin: Origin) -> Ack:
        """Stop the running turn."""
        ...

    async def switch_agent(self, session: Session, command: SwitchAgent, origin: Origin) -> Ack:
        """Let another agent act."""
        ...

    async def tool_result(self, session: Session, command: ToolResult, origin: Origin) -> Ack:
        """Take what a client's tool returned."""
        ...

    async def hitl_decision(self, session: Session, command: HitlDecision, origin: Origin) -> Ack:
        """Take a person's decision."""
        ...

    async def tool_progress(self, session: Session, command: ToolProgress, origin: Origin) -> Ack:
        """Renew a client's lease on a call."""
        ...

    async def queue_update(self, session: Session, command: QueueUpdate, origin: Origin) -> Ack:
        """Reorder or shorten the queue."""
        ...


class Registrar(Protocol):
    """The part of `server.channel.presence.Presence` that commands need."""

    async def register(self, session: Session, command: RegisterTools, client_id: str | None, user_id: str) -> None:
        """Note which tools a client offers."""
        ...


class Refreshing(Protocol):
    """The part of `server.auth.refresh.Refresher` that commands need."""

    async def refresh(self, session: Session, command: RefreshToken, user_id: str, client_id: str | None) -> Ack:
        """Go on with a newer token."""
        ...


class Commands:
    """Hands each command to its service. Holds nothing between two commands."""

    def __init__(self, turns: Turns, presence: Registrar, refresher: Refreshing) -> None:
        self._turns = turns
        self._presence = presence
        self._refresher = refresher

    async def handle(self, session: Session, command: Command, origin: Origin) -> Ack:
        """Carry out a command and return its acknowledgement.

        Raises ParleyError, which carries the command's id; nothing was changed then. FORBIDDEN for what the sender's
        role does not allow.
        """
        try:
            permit(command, origin.role)
            return await self._dispatch(session, command, origin)
        except ParleyError as error:
            if error.id is None:
                error.id = command.id
            raise

    async def _dispatch(self, session: Session, command: Command, origin: Origin) -> Ack:  # noqa: PLR0911 - one a type
        match command:
            case UserMessage():
                return await self._turns.user_message(session, command, origin)
            case Cancel():
                return await self._turns.cancel(session, command, origin)
            case SwitchAgent():
                return await self._turns.switch_agent(session, command, origin)
            case QueueUpdate():
                return await self._turns.queue_update(session, command, origin)
            case ToolResult():
                return await self._turns.tool_result(session, command, origin)
            case HitlDecision():
                return await self._turns.hitl_decision(session, command, origin)
            case ToolProgress():
                return await self._turns.tool_progress(session, command, origin)
            case RegisterTools():
                await self._presence.register(session, command, origin.client_id, origin.user_id)
                return Ack(id=command.id, status="accepted")
            case Ping():
                return Ack(id=command.id, status="accepted")
            case RefreshToken():
                return await self._refresher.refresh(session, command, origin.user_id, origin.client_id)
        assert_never(command)
