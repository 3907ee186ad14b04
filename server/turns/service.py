"""What clients ask of turns, one method a command: prepared, stored in one statement, shown, begun."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from msgspec import Struct

from protocol.codec import command_hash
from protocol.commands import Cancel, Command, QueueUpdate, SwitchAgent, UserMessage
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack, QueueChanged
from server.agents.interface import AgentDefinition
from server.turns import records
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
    """Who sent a command: the user, his client if it named itself, and the transport it came over.

    `tell`, if there is one, is called with the acknowledgement of a stored command in the very turn of the loop in
    which its events are emitted, so that both can go out in one write; it is returned as well.
    """

    user_id: str
    client_id: str | None
    transport: str
    tell: Callable[[Ack], None] | None = None


class TurnService:
    """The commands that concern turns. All raise ParleyError, and then nothing was changed.

    Once the statement is sent it is seen through, with the emission of its events, even if the caller is cancelled.
    """

    def __init__(self, database: Database, engine: Engine) -> None:
        self._commands = Commands(database)
        self._gates = database.gates
        self._engine = engine
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
        if command.on_busy in ("interrupt", "steer"):
            raise ParleyError(
                ErrorCode.NOT_SUPPORTED,
                f"this server cannot {command.on_busy} yet: send `enqueue` or `reject`",
                path="$.on_busy",
                id=command.id,
            )
        return await self._store(session, command, origin, lambda: self._user_message(session, command, origin))

    async def cancel(self, session: Session, command: Cancel, origin: Origin) -> Ack:
        """Stop the running turn."""
        return await self._store(session, command, origin, lambda: self._cancel(session, command, origin))

    async def switch_agent(self, session: Session, command: SwitchAgent, origin: Origin) -> Ack:
        """Let another agent act from the next turn on."""
        return await self._store(session, command, origin, lambda: self._switch_agent(session, command, origin))

    async def queue_update(self, session: Session, command: QueueUpdate, origin: Origin) -> Ack:
        """Reorder the waiting messages, or take one back."""
        return await self._store(session, command, origin, lambda: self._queue_update(session, command, origin))

    # --- how each is prepared, stored and shown

    async def _user_message(self, session: Session, command: UserMessage, origin: Origin) -> Reply:
        direct = command.agent_type is not None
        agent = self._agent(command.agent_type or self._acting_agent(session), command)
        head = self._head(session, command, origin)
        message = Message(command, origin.client_id, agent, head.now, self._engine)
        try:
            reply = await self._commands.user_message(
                head,
                message.plan(),
                seems_busy=self._seems_busy(session.session_id),
                reject_when_busy=command.on_busy == "reject",
                most_waiting=self._engine.settings.queue_limit,
            )
            self._show(session, reply)
            self._note_busy(session.session_id, reply)
        finally:
            message.settled()
        if not direct:
            self._remember(session, agent.type)
        start = message.started
        if start is not None and reply.turn_id == start.turn_id:
            claim = self._engine.first_claim(
                session.session_id, start.turn_id, start.answer_id, message.message_id, agent.type, head.now
            )
            self._engine.begin(claim)
        return reply

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
            self._engine.cancel(reply.turn_id)
        return reply

    async def _switch_agent(self, session: Session, command: SwitchAgent, origin: Origin) -> Reply:
        target = self._agent(command.agent_type, command)
        acting = self._acting_agent(session)
        events = [records.agent_switched(acting, target.type, command.reason, command.id)]
        reply = await self._commands.switch_agent(self._head(session, command, origin), (acting, target.type), events)
        self._show(session, reply)
        if reply.commit is not None:
            self._remember(session, target.type)
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
        )

    def _agent(self, agent_type: str, command: Command) -> AgentDefinition:
        try:
            return self._engine.registry.get(agent_type).definition
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


_StoredCommand = UserMessage | Cancel | SwitchAgent | QueueUpdate


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
