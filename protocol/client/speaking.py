"""Everything that can be said in a session: a method for each command."""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias
from uuid import UUID

from protocol.commands import (
    Cancel,
    Command,
    HitlDecision,
    OnBusy,
    Ping,
    QueueUpdate,
    Remember,
    SwitchAgent,
    UserMessage,
)
from protocol.events import Ack

__all__ = ["Remembered", "Speaker", "new_id", "rule_of"]

#: What is made of a decision for later: a rule, or a rule about the whole tool for this session, or for all of yours.
Remembered: TypeAlias = Remember | Literal["session", "user"]


class Speaker(ABC):
    """What `Client` can say. All of it raises what `send` raises."""

    @abstractmethod
    async def send(self, command: Command, *, timeout: float | None = 60.0) -> Ack:
        """Send a command until it is acknowledged."""

    async def say(self, content: str, *, agent_type: str | None = None, on_busy: OnBusy = "enqueue") -> Ack:
        """Say something to the agent; what comes of it is in the events.

        `agent_type` lets another agent answer this once. `on_busy` decides what happens while a turn is running: the
        message waits for its end (`enqueue`), is refused (`reject`), stops it and comes next (`interrupt`), or is read
        by the agent before its next step (`steer`).
        """
        return await self.send(UserMessage(id=new_id(), content=content, agent_type=agent_type, on_busy=on_busy))

    async def cancel(self, turn_id: UUID | None = None) -> Ack:
        """Stop the running turn, or only if it is this one."""
        return await self.send(Cancel(id=new_id(), turn_id=turn_id))

    async def switch_agent(self, agent_type: str, reason: str | None = None) -> Ack:
        """Let another agent answer from the next turn on."""
        return await self.send(SwitchAgent(id=new_id(), agent_type=agent_type, reason=reason))

    async def reorder(self, message_ids: Sequence[UUID]) -> Ack:
        """Put the messages that wait for their turn into this order; it names all of them."""
        return await self.send(QueueUpdate(id=new_id(), order=list(message_ids)))

    async def withdraw(self, message_id: UUID) -> Ack:
        """Take back a message that waits for its turn."""
        return await self.send(QueueUpdate(id=new_id(), remove=message_id))

    async def approve(self, call_id: str, *, remember: Remembered | None = None) -> Ack:
        """Let a call run as it was asked for.

        With `remember`, others like it need no decision any more: calls of the same tool in this `session`, in all of
        yours (`user`), or what a `Remember` says.

        Deciding raises ParleyError: ALREADY_RESOLVED when somebody was quicker, NOT_A_DECISION where the call does not
        allow this one.
        """
        return await self.send(
            HitlDecision(id=new_id(), call_id=call_id, decision="approve", remember=rule_of(remember))
        )

    async def edit(self, call_id: str, arguments: Mapping[str, Any]) -> Ack:
        """Let a call run with these arguments instead of its own; they have to fit the tool's schema."""
        return await self.send(
            HitlDecision(id=new_id(), call_id=call_id, decision="edit", modified_arguments=dict(arguments))
        )

    async def reject(self, call_id: str, feedback: str | None = None, *, remember: Remembered | None = None) -> Ack:
        """Do not let a call run; `feedback` tells the agent why. With `remember`, so for others like it."""
        return await self.send(
            HitlDecision(id=new_id(), call_id=call_id, decision="reject", feedback=feedback, remember=rule_of(remember))
        )

    async def respond(self, call_id: str, text: str) -> Ack:
        """Answer in the tool's place: the text becomes the call's result, and nothing runs."""
        return await self.send(HitlDecision(id=new_id(), call_id=call_id, decision="respond", feedback=text))

    async def ping(self) -> float:
        """How many seconds a question and its answer take."""
        began = asyncio.get_running_loop().time()
        await self.send(Ping(id=new_id()))
        return asyncio.get_running_loop().time() - began


def rule_of(remember: Remembered | None) -> Remember | None:
    """The rule that is meant."""
    return Remember(scope=remember) if isinstance(remember, str) else remember


def new_id() -> str:
    """An id for a command."""
    return secrets.token_hex(16)
