"""A user message on its way into the log."""

from __future__ import annotations

from datetime import datetime

from protocol.commands import UserMessage, text_of
from server.agents.interface import AgentDefinition
from server.turns import records
from server.turns.engine import Engine
from storage.commands import MessagePlan, TurnStart
from storage.ids import new_id
from storage.log import NewEvent

__all__ = ["Message"]


class Message:
    """A user message on its way into the log. What only one of its outcomes needs is made when that is tried."""

    def __init__(
        self, command: UserMessage, client_id: str | None, agent: AgentDefinition, now: datetime, engine: Engine
    ) -> None:
        self.message_id = new_id()
        self.started: TurnStart | None = None
        self._command = command
        self._content = text_of(command.content)
        self._client_id = client_id
        self._agent = agent
        self._now = now
        self._engine = engine

    def plan(self) -> MessagePlan:
        """What storage is told."""
        return MessagePlan(
            message_id=self.message_id,
            content=self._content,
            title=records.title_of(self._content),
            agent_type=self._agent.type,
            agent_is_default=self._command.agent_type is None,
            start=self._start,
            waits=self._waits,
        )

    def mistakes_agent(self, current_agent: str) -> bool:
        """Whether it is for the session's agent, and that is another one by now."""
        return self._command.agent_type is None and self._agent.type != current_agent

    def settled(self) -> None:
        """Its statements are over, whatever came of them."""
        if self.started is not None:
            self._engine.unexpect(self.started.turn_id)

    def _start(self) -> TurnStart:
        if self.started is None:
            turn_id, direct = new_id(), self._command.agent_type is not None
            message = records.user_message(
                self.message_id,
                self._content,
                self._now,
                turn_id,
                command_id=self._command.id,
                client_id=self._client_id,
            )
            self.started = TurnStart(
                turn_id=turn_id,
                answer_id=new_id(),
                worker_id=self._engine.worker_id,
                events=[message, *records.turn_begins(turn_id, self.message_id, self._agent, direct=direct)],
            )
            self._engine.expect(turn_id)
        return self.started

    def _waits(self) -> NewEvent:
        return records.message_queued(self.message_id, self._content, self._command, self._client_id)
