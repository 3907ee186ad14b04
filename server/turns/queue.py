"""The messages that wait for a session: each gets its turn, or joins the one that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from protocol.errors import ErrorCode, ParleyError
from protocol.events import QueueChanged
from server.agents.interface import AgentDefinition
from server.turns import records
from server.turns.begun import first_claim
from storage.claims import Claim
from storage.ids import new_id
from storage.log import NewEvent
from storage.moves import Started, SteerPlan, Waiting

if TYPE_CHECKING:
    from server.turns.engine import Engine

__all__ = ["Queue"]


class Queue:
    """The queues of all sessions whose turns end, or go on, in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def start(self, session_id: UUID) -> None:
        """Begin the turn of the session's first waiting message, if nothing runs there."""
        engine = self._engine

        async def attempt() -> bool:
            waiting = await engine.turns.next_waiting(session_id)
            return waiting is None or await engine.shielded(self._start(session_id, waiting))

        while not await engine.persist(attempt):
            # Somebody changed the session's agent, or took the message back, in between.
            pass

    async def _start(self, session_id: UUID, waiting: Waiting) -> bool:
        engine = self._engine
        agent_type = waiting.agent_type or waiting.current_agent
        try:
            agent = (await engine.agent_of(session_id, agent_type)).definition
        except ParleyError as error:
            if error.code is not ErrorCode.UNKNOWN_AGENT:
                raise
            # The agent was taken out of the configuration since: its turn fails and says so.
            agent = AgentDefinition(type=agent_type, name=agent_type)
        start = self._started(session_id, waiting, agent)
        with engine.expecting(start.turn_id):
            async with engine.gates.hold(session_id):
                commit = await engine.turns.start_waiting(start)
                if commit is None:
                    return False
                engine.outlet.commit(commit)
            engine.begin(first_claim(engine.worker_id, session_id, waiting.owner, start))
        return True

    def _started(self, session_id: UUID, waiting: Waiting, agent: AgentDefinition) -> Started:
        now, turn_id = self._engine.now(), new_id()
        change = QueueChanged(change="started", message_id=waiting.message_id)
        return Started(
            session_id=session_id,
            message_id=waiting.message_id,
            agent_type=waiting.agent_type or waiting.current_agent,
            agent_is_default=waiting.agent_type is None,
            turn_id=turn_id,
            answer_id=new_id(),
            worker_id=self._engine.worker_id,
            now=now,
            events=[
                records.queue_changed(change),
                records.user_message(
                    waiting.message_id,
                    waiting.content,
                    now,
                    turn_id,
                    command_id=waiting.command_id,
                    client_id=waiting.client_id,
                ),
                *records.turn_begins(turn_id, waiting.message_id, agent, direct=waiting.agent_type is not None),
            ],
            message_ordinal=2,
        )

    async def steer(self, claim: Claim) -> None:
        """Take the messages that are to steer the turn into it, before its next step. Raises LostClaimError."""
        engine = self._engine
        # Until nobody took one of them back, or out of its place, in between.
        while waiting := await engine.persist(lambda: engine.turns.steering(claim.session_id)):
            if await engine.shielded(self._steer(claim, self._plan(claim, waiting))):
                return

    def _plan(self, claim: Claim, waiting: list[Waiting]) -> SteerPlan:
        now = self._engine.now()
        events: list[NewEvent] = []
        for message in waiting:
            change = QueueChanged(change="started", message_id=message.message_id, on_busy="steer")
            events.append(records.queue_changed(change))
            events.append(
                records.user_message(
                    message.message_id,
                    message.content,
                    now,
                    claim.turn_id,
                    command_id=message.command_id,
                    client_id=message.client_id,
                )
            )
        # Each message has two events, of which the second one is the message itself.
        ordinals = [(message.message_id, 2 * place) for place, message in enumerate(waiting, start=1)]
        return SteerPlan(messages=ordinals, events=events, now=now)

    async def _steer(self, claim: Claim, plan: SteerPlan) -> bool:
        engine = self._engine

        async def once() -> bool:
            async with engine.gates.hold(claim.session_id):
                steered = await engine.turns.steer(claim, plan)
                if steered is None:
                    return False
                if steered.commit is not None:
                    engine.outlet.commit(steered.commit)
                else:
                    engine.outlet.wake(claim.session_id)
                return True

        return await engine.persist(once)
