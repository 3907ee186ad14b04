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
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack
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

    async def queue_update(self, session: Session, command: QueueUpdate, origin: Origin) -> Ack:
        """Reorder or shorten the queue."""
        ...


class Commands:
    """Hands each command to its service. Holds nothing between two commands."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def handle(self, session: Session, command: Command, origin: Origin) -> Ack:
        """Carry out a command and return its acknowledgement.

        Raises ParleyError, which carries the command's id; nothing was changed then.
        """
        try:
            return await self._dispatch(session, command, origin)
        except ParleyError as error:
            if error.id is None:
                error.id = command.id
            raise

    async def _dispatch(self, session: Session, command: Command, origin: Origin) -> Ack:
        match command:
            case UserMessage():
                return await self._turns.user_message(session, command, origin)
            case Cancel():
                return await self._turns.cancel(session, command, origin)
            case SwitchAgent():
                return await self._turns.switch_agent(session, command, origin)
            case QueueUpdate():
                return await self._turns.queue_update(session, command, origin)
            case Ping():
                return Ack(id=command.id, status="accepted")
            case ToolResult() | HitlDecision():
                # All tools run on the server and need nobody's consent, so no call is ever open to clients.
                raise ParleyError(
                    ErrorCode.NOT_FOUND, f"there is no open call {command.call_id!r} on this session", path="$.call_id"
                )
            case RegisterTools() | ToolProgress():
                raise ParleyError(
                    ErrorCode.NOT_SUPPORTED, "this server does not run tools on its clients", path="$.type"
                )
            case RefreshToken():
                raise ParleyError(
                    ErrorCode.NOT_SUPPORTED, "the tokens of this server do not expire; go on with yours", path="$.type"
                )
        assert_never(command)
