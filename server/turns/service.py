"""What clients ask of turns, one method a command: prepared, stored in one statement, shown, begun."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from protocol.codec import command_hash
from protocol.commands import (
    Cancel,
    Command,
    HitlDecision,
    QueueUpdate,
    SwitchAgent,
    ToolProgress,
    ToolResult,
    UserMessage,
)
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack, QueueChanged
from protocol.parts import SessionRole
from server.agents.interface import AgentDefinition
from server.turns import records
from server.turns.answers import Answers
from server.turns.begun import Begun, first_claim
from server.turns.engine import Engine
from server.turns.message import Message
from storage.commands import CommandHead, Commands, Reply, StaleError
from storage.ids import new_id
from storage.pool import Database
from storage.sessions import Session

__all__ = ["Origin", "TurnService"]

#: A command is prepared from what the session looked like; when that has changed it is prepared again, so often.
_PREPARATIONS: Final = 8
_REMEMBERED_SESSIONS: Final = 10_000


class Origin(Struct, frozen=True):
    """Who sent a command: the user and his role on the session, his client if it named itself, and the transport.

    `tell`, if there is one, is called with the acknowledgement of a stored command in the very turn of the loop in
    which its events are emitted, so that both can go out in one write; it is returned as well.
    """

    user_id: str
    client_id: str | None
    transport: str
    role: SessionRole = "owner"
    tell: Callable[[Ack], None] | None = None


class TurnService:
    """The commands that concern turns. All raise ParleyError, and then nothing was changed.

    Once the statement is sent it is seen through, with the emission of its events, even if the caller is cancelled.
    """

    def __init__(self, database: Database, engine: Engine) -> None:
        self._commands = Commands(database)
        self._gates = database.gates
        self._engine = engine
        self._answers = Answers(engine, self._commands)
        # The acting agents of the sessions last heard of: right most of the time, and checked by every statement.
        self._agents: OrderedDict[UUID, str] = OrderedDict()
        # Sessions whose turn another process seemed to run when they were last heard of.
        self._busy_elsewhere: OrderedDict[UUID, None] = OrderedDict()

    async def start(self) -> None:
        """Begin to run turns, those first that a former process left."""
        await self._engine.start()

    async def stop(self) -> None:
        """Stop running turns; whoever starts next goes on with them."""
        await self._engine.stop()

    async def user_message(self, session: Session, command: UserMessage, origin: Origin) -> Ack:
        """Say something to the session's agent, or to the one that the message names."""
        return await self._store(session, command, origin, lambda: self._user_message(session, command, origin))

    async def cancel(self, session: Session, command: Cancel, origin: Origin) -> Ack:
        """Stop the running turn."""
        return await self._store(session, command, origin, lambda: self._cancel(session, command, origin))

    async def switch_agent(self, session: Session, command: SwitchAgent, origin: Origin) -> Ack:
        """Let another agent act from the next turn on."""
        return await self._store(session, command, origin, lambda: self._switch_agent(session, command, origin))

    async def tool_result(self, session: Session, command: ToolResult, origin: Origin) -> Ack:
        """Take what a client's tool returned."""
        return await self._store(session, command, origin, lambda: self._tool_result(session, command, origin))

    async def hitl_decision(self, session: Session, command: HitlDecision, origin: Origin) -> Ack:
        """Take a person's decision about a call."""
        return await self._store(session, command, origin, lambda: self._decide(session, command, origin))

    async def tool_progress(self, session: Session, command: ToolProgress, origin: Origin) -> Ack:
        """Renew a client's lease on a call that it runs."""
        await self._answers.progress(session, command, origin)
        return Ack(id=command.id, status="accepted")

    async def client_joined(self, session_id: UUID, client_id: str) -> None:
        """A client is on the session (again): its calls stay with it."""
        await self._answers.client_joined(session_id, client_id)

    async def client_left(self, session_id: UUID, client_id: str) -> None:
        """A client is gone: its calls are kept for it for a while."""
        await self._answers.client_left(session_id, client_id)

    async def tools_registered(self, session_id: UUID, client_id: str, names: Sequence[str]) -> None:
        """A client offers tools: calls that waited for one go on."""
        del client_id
        await self._answers.tools_registered(session_id, names)

    async def queue_update(self, session: Session, command: QueueUpdate, origin: Origin) -> Ack:
        """Reorder the waiting messages, or take one back."""
        return await self._store(session, command, origin, lambda: self._queue_update(session, command, origin))

    # --- how each is prepared, stored and shown

    async def _user_message(self, session: Session, command: UserMessage, origin: Origin) -> Reply:
        direct = command.agent_type is not None
        agent = await self._agent(session, command.agent_type or self._acting_agent(session), command)
        head = self._head(session, command, origin)
        message = Message(command, origin.client_id, agent, head.now, self._engine)
        try:
            reply = await self._send(session, command, head, message)
            self._show(session, reply)
            self._note_busy(session.session_id, reply)
        finally:
            message.settled()
        if not direct:
            self._remember(session, agent.type)
        start = message.started
        if start is not None and reply.turn_id == start.turn_id:
            begun = Begun(
                turn_id=start.turn_id,
                message_id=message.message_id,
                answer_id=start.answer_id,
                agent_type=agent.type,
                now=head.now,
            )
            self._engine.begin(first_claim(self._engine.worker_id, session.session_id, session.owner, begun))
        return reply

    async def _send(self, session: Session, command: UserMessage, head: CommandHead, message: Message) -> Reply:
        """Store the message: it begins a turn, waits for one, or makes the running one end."""
        if command.on_busy != "interrupt":
            return await self._begin_or_wait(session, command, head, message)
        turn_id = self._engine.active_turn(session.session_id) or session.active_turn
        idle = turn_id is None
        for _ in range(_PREPARATIONS):
            try:
                if idle:
                    return await self._begin_or_wait(session, command, head, message)
                return await self._interrupt(session, command, head, message, turn_id)
            except StaleError as stale:
                if idle and stale.active_turn is None and message.mistakes_agent(stale.current_agent):
                    raise
                # Without a turn either nothing is there, or messages wait for their turn to begin.
                idle = stale.active_turn is None and not idle
                turn_id = stale.active_turn
        raise _unsettled(command)

    async def _begin_or_wait(
        self, session: Session, command: UserMessage, head: CommandHead, message: Message
    ) -> Reply:
        return await self._commands.user_message(
            head,
            message.plan(),
            seems_busy=self._seems_busy(session.session_id),
            on_busy=command.on_busy,
            most_waiting=self._engine.settings.queue_limit,
        )

    async def _interrupt(
        self, session: Session, command: UserMessage, head: CommandHead, message: Message, turn_id: UUID | None
    ) -> Reply:
        """Put the message before all others, and let the running turn end. Raises StaleError when it is another."""
        plan = message.plan()
        events = [plan.waits()]
        if turn_id is not None:
            events.append(records.task_cancelling(turn_id, command, head.client_id))
        reply = await self._commands.interrupt(head, plan, turn_id, events, self._engine.settings.queue_limit)
        if reply.commit is not None and turn_id is not None:
            self._cancelled(session, reply, turn_id)
        return reply

    def _cancelled(self, session: Session, reply: Reply, turn_id: UUID) -> None:
        """The session's turns are to end: those that waited go on here to do so, the others are told."""
        for claim in reply.claims:
            self._engine.begin(claim)
        self._engine.cancel(session.session_id, turn_id)

    async def _cancel(self, session: Session, command: Cancel, origin: Origin) -> Reply:
        turn_id = command.turn_id or self._engine.active_turn(session.session_id) or session.active_turn
        reply: Reply | None = None
        for _ in range(_PREPARATIONS):
            # With no turn known the statement says which one runs, or that none does.
            events = [records.task_cancelling(turn_id, command, origin.client_id)] if turn_id is not None else []
            try:
                reply = await self._commands.cancel(self._head(session, command, origin), turn_id or new_id(), events)
                break
            except StaleError as stale:
                if command.turn_id is not None:
                    raise ParleyError(
                        ErrorCode.NO_ACTIVE_TURN, "that turn is not running", path="$.turn_id", id=command.id
                    ) from stale
                turn_id = stale.active_turn
        if reply is None:
            raise _unsettled(command)
        self._show(session, reply)
        if reply.commit is not None and reply.turn_id is not None:
            self._cancelled(session, reply, reply.turn_id)
        return reply

    async def _switch_agent(self, session: Session, command: SwitchAgent, origin: Origin) -> Reply:
        target = await self._agent(session, command.agent_type, command)
        acting = self._acting_agent(session)
        events = [records.agent_switched(acting, target.type, command.reason, command.id, command.confidence)]
        reply = await self._commands.switch_agent(
            self._head(session, command, origin),
            (acting, target.type),
            events,
            reason=command.reason,
            confidence=command.confidence,
        )
        self._show(session, reply)
        if reply.commit is not None:
            self._remember(session, target.type)
        return reply

    async def _tool_result(self, session: Session, command: ToolResult, origin: Origin) -> Reply:
        row = await self._answers.find(session, command.call_id, command.id)
        head = self._head(session, command, origin)
        with self._engine.expecting(row.turn_id):
            return self._heard(session, await self._answers.tool_result(row, command, head, origin))

    async def _decide(self, session: Session, command: HitlDecision, origin: Origin) -> Reply:
        row = await self._answers.find(session, command.call_id, command.id)
        head = self._head(session, command, origin)
        with self._engine.expecting(row.turn_id):
            return self._heard(session, await self._answers.decide(row, command, head, origin))

    def _heard(self, session: Session, reply: Reply) -> Reply:
        """An answer was taken: its turn goes on."""
        self._show(session, reply)
        if reply.commit is not None:
            self._engine.news(reply, session.session_id)
        return reply

    async def _queue_update(self, session: Session, command: QueueUpdate, origin: Origin) -> Reply:
        head = self._head(session, command, origin)
        if command.remove is not None:
            change = QueueChanged(
                change="removed", message_id=command.remove, command_id=command.id, client_id=origin.client_id
            )
            reply = await self._commands.remove_queued(head, command.remove, [records.queue_changed(change)])
        else:
            order = command.order or []
            change = QueueChanged(change="reordered", order=order, command_id=command.id, client_id=origin.client_id)
            reply = await self._commands.reorder_queue(head, order, [records.queue_changed(change)])
        self._show(session, reply)
        return reply

    # --- what they share

    async def _store(
        self, session: Session, command: _StoredCommand, origin: Origin, attempt: Callable[[], Awaitable[Reply]]
    ) -> Ack:
        return await self._engine.shielded(self._attempts(session, command, origin, attempt))

    async def _attempts(
        self, session: Session, command: _StoredCommand, origin: Origin, attempt: Callable[[], Awaitable[Reply]]
    ) -> Ack:
        async with self._gates.hold(session.session_id):
            for _ in range(_PREPARATIONS):
                try:
                    reply = await attempt()
                except StaleError as stale:
                    self._remember(session, stale.current_agent)
                else:
                    ack = _ack(command, reply)
                    if origin.tell is not None:
                        origin.tell(ack)
                    return ack
        raise _unsettled(command)

    def _show(self, session: Session, reply: Reply) -> None:
        """Emit what was committed. Still behind the session's gate, so that it is in order without waiting."""
        if reply.commit is not None:
            self._engine.outlet.commit(reply.commit)

    def _head(self, session: Session, command: _StoredCommand, origin: Origin) -> CommandHead:
        return CommandHead(
            session_id=session.session_id,
            owner=session.owner,
            command_id=command.id,
            body_hash=command_hash(command),
            user_id=origin.user_id,
            client_id=origin.client_id,
            n=command.n,
            now=self._engine.now(),
            worker_id=self._engine.worker_id,
            transport=origin.transport,
        )

    async def _agent(self, session: Session, agent_type: str, command: Command) -> AgentDefinition:
        try:
            return (await self._engine.agent_of(session.session_id, agent_type)).definition
        except ParleyError as error:
            error.id = command.id
            raise

    def _acting_agent(self, session: Session) -> str:
        return self._agents.get(session.session_id, session.current_agent)

    def _seems_busy(self, session_id: UUID) -> bool:
        """Whether a turn runs in the session, as far as this process knows: a guess, which the statement checks."""
        return self._engine.active_turn(session_id) is not None or session_id in self._busy_elsewhere

    def _note_busy(self, session_id: UUID, reply: Reply) -> None:
        if reply.commit is None:
            # A repeat says how it was then.
            return
        if reply.status == "queued" and self._engine.active_turn(session_id) is None:
            self._busy_elsewhere[session_id] = None
            if len(self._busy_elsewhere) > _REMEMBERED_SESSIONS:
                self._busy_elsewhere.popitem(last=False)
        else:
            self._busy_elsewhere.pop(session_id, None)

    def _remember(self, session: Session, agent_type: str) -> None:
        self._agents[session.session_id] = agent_type
        self._agents.move_to_end(session.session_id)
        if len(self._agents) > _REMEMBERED_SESSIONS:
            self._agents.popitem(last=False)


_StoredCommand = UserMessage | ToolResult | SwitchAgent | HitlDecision | Cancel | QueueUpdate


def _ack(command: _StoredCommand, reply: Reply) -> Ack:
    return Ack(
        id=command.id,
        status="queued" if reply.status == "queued" else "accepted",
        seq=reply.seq,
        message_id=reply.message_id,
        turn_id=reply.turn_id,
    )


def _unsettled(command: _StoredCommand) -> ParleyError:
    return ParleyError(ErrorCode.UNAVAILABLE, "the session changes too fast; try again", retry_after=0.1, id=command.id)
