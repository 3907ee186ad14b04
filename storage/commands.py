"""The commands of clients as statements: one transaction each, and one round trip (`sql/queries/commands.sql`).

Of a user message there are three: two for a new one in a session that is as its sender believes, which have nothing to
decide, and one for everything else, which decides it all under the session's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias
from uuid import UUID

from msgspec import Struct

from storage.log import NewEvent
from storage.moves import CallState, NewAudit, NewMessage
from storage.parameters import as_json
from storage.pool import Database
from storage.replies import CommandHead, Replies, Reply, StaleError, begun_reply, event_columns

__all__ = [
    "CommandHead",
    "Commands",
    "DecisionPlan",
    "MessagePlan",
    "NewRule",
    "OnBusy",
    "Reply",
    "ResultPlan",
    "StaleError",
    "TurnStart",
]

OnBusy: TypeAlias = Literal["enqueue", "reject", "interrupt", "steer"]


class TurnStart(Struct, frozen=True, kw_only=True):
    """A turn that is about to begin: its ids, made beforehand, and its first events, encoded beforehand."""

    turn_id: UUID
    answer_id: UUID
    worker_id: UUID
    events: Sequence[NewEvent]


class MessagePlan(Struct, frozen=True, kw_only=True):
    """A user message, and what makes the rest of either outcome: `start` that of a turn, `waits` the event of a wait.

    `agent_is_default`: the agent was taken from the session, and must still be the session's when the turn begins.
    """

    message_id: UUID
    content: str
    title: str
    agent_type: str
    agent_is_default: bool
    start: Callable[[], TurnStart]
    waits: Callable[[], NewEvent]


class ResultPlan(Struct, frozen=True, kw_only=True):
    """What a client's tool came to; `client_id` None: from somebody who is no client of the session's stream.

    The message's turn and thread are those of the call.
    """

    state: Literal["completed", "failed"]
    client_id: str | None
    message: NewMessage
    events: Sequence[NewEvent]


class NewRule(Struct, frozen=True, kw_only=True):
    """A standing permission or refusal of the session's owner; `arguments` maps an argument to a glob, as JSON."""

    rule_id: UUID
    scope: Literal["session", "user"]
    tool: str
    effect: Literal["allow", "deny"]
    arguments: bytes | None = None


class DecisionPlan(Struct, frozen=True, kw_only=True):
    """What a person decided about a call; `message` is its result, where the decision is one."""

    approval_state: Literal["approved", "edited", "rejected", "responded"]
    call_state: CallState
    events: Sequence[NewEvent]
    audit: NewAudit
    final_arguments: str | None = None
    feedback: str | None = None
    message: NewMessage | None = None
    rule: NewRule | None = None


class Commands:
    """Stores commands. Every method: one statement; a repeat gets the stored reply, a refusal changes nothing.

    All raise ParleyError: NOT_FOUND, SESSION_GONE, CONFLICT (the id was used with another body), OUT_OF_ORDER, the
    refusals of the command, UNAVAILABLE when the database is away. Callers hold the session's gate.
    """

    def __init__(self, database: Database) -> None:
        self._replies = Replies(database)

    async def user_message(
        self, head: CommandHead, plan: MessagePlan, *, seems_busy: bool, on_busy: OnBusy, most_waiting: int
    ) -> Reply:
        """Start a turn, or let the message wait: with `steer` for the next step of the turn that is running.

        Raises StaleError when the session has another agent by now, or with `interrupt` when a turn is running.

        `seems_busy` is the caller's guess: where it is right, the statement has nothing to decide and costs half as
        much; where it is wrong there is another trip, as for a repeat or a refusal.
        """
        if head.n is None and not (seems_busy and on_busy in ("reject", "interrupt")):
            steers = on_busy == "steer"
            reply = await (
                self._queued(head, plan, most_waiting, steers=steers) if seems_busy else self._begun(head, plan)
            )
            if reply is not None:
                return reply
        start, waits = plan.start(), [plan.waits()]
        row = await self._replies.run(
            "user_message",
            head,
            plan.message_id,
            plan.content,
            plan.agent_type,
            plan.agent_is_default,
            start.turn_id,
            start.answer_id,
            start.worker_id,
            on_busy,
            most_waiting,
            plan.title,
            *event_columns(start.events),
            *event_columns(waits),
        )
        return await self._replies.reply(head, row, start.events if row["turn_id"] is not None else waits)

    async def interrupt(
        self, head: CommandHead, plan: MessagePlan, turn_id: UUID | None, events: Sequence[NewEvent], most_waiting: int
    ) -> Reply:
        """Put the message before all that wait, and ask the turn to stop. The first event tells of the former.

        `turn_id` None: messages wait, but no turn runs at this moment. Raises StaleError when another turn is running,
        or none and nothing waits.
        """
        agent = None if plan.agent_is_default else plan.agent_type
        row = await self._replies.run(
            "interrupt",
            head,
            *event_columns(events),
            turn_id,
            head.worker_id,
            plan.message_id,
            plan.content,
            agent,
            plan.title,
            most_waiting,
        )
        return await self._replies.reply(head, row, events)

    async def cancel(self, head: CommandHead, turn_id: UUID, events: Sequence[NewEvent]) -> Reply:
        """Ask the turn to stop, and those that answer its calls. Raises StaleError when another one is running."""
        row = await self._replies.run("cancel", head, *event_columns(events), turn_id, head.worker_id)
        return await self._replies.reply(head, row, events)

    async def tool_result(self, head: CommandHead, call_id: UUID, plan: ResultPlan) -> Reply:
        """Store what a client's tool came to. The call was found before (`Calls.find`).

        Refuses with NOT_FOUND, ALREADY_RESOLVED, and FORBIDDEN where another client has the call.
        """
        row = await self._replies.run(
            "tool_result",
            head,
            *event_columns(plan.events),
            call_id,
            head.worker_id,
            plan.state,
            plan.client_id,
            as_json([plan.message]),
        )
        return await self._replies.reply(head, row, plan.events)

    async def decide(self, head: CommandHead, call_id: UUID, plan: DecisionPlan) -> Reply:
        """Store what a person decided about a call. The call was found before (`Calls.find`).

        Refuses with NOT_FOUND, and ALREADY_RESOLVED, also when the approval has expired and nobody has looked yet.
        """
        row = await self._replies.run(
            "decide",
            head,
            *event_columns(plan.events),
            call_id,
            head.worker_id,
            plan.approval_state,
            plan.call_state,
            as_json([] if plan.message is None else [plan.message]),
            plan.final_arguments,
            plan.feedback,
            as_json([plan.audit]),
            as_json([] if plan.rule is None else [plan.rule]),
        )
        return await self._replies.reply(head, row, plan.events)

    async def switch_agent(
        self,
        head: CommandHead,
        agents: tuple[str, str],
        events: Sequence[NewEvent],
        reason: str | None = None,
        confidence: float | None = None,
    ) -> Reply:
        """Change the session's agent from the first to the second. Raises StaleError when it is another by now."""
        row = await self._replies.run("switch_agent", head, *event_columns(events), *agents, reason, confidence)
        return await self._replies.reply(head, row, events)

    async def remove_queued(self, head: CommandHead, message_id: UUID, events: Sequence[NewEvent]) -> Reply:
        """Take one waiting message back."""
        row = await self._replies.run("remove_queued", head, *event_columns(events), message_id)
        return await self._replies.reply(head, row, events)

    async def reorder_queue(self, head: CommandHead, order: Sequence[UUID], events: Sequence[NewEvent]) -> Reply:
        """Put the waiting messages into another order."""
        row = await self._replies.run("reorder_queue", head, *event_columns(events), list(order))
        return await self._replies.reply(head, row, events)

    async def _begun(self, head: CommandHead, plan: MessagePlan) -> Reply | None:
        """Start a turn if the session is idle and the command new; None when anything is otherwise."""
        start = plan.start()
        row = await self._replies.new(
            "user_message_idle",
            head,
            plan.message_id,
            plan.content,
            plan.agent_type,
            plan.agent_is_default,
            start.turn_id,
            start.answer_id,
            start.worker_id,
            plan.title,
            *event_columns(start.events),
        )
        if row is None:
            return None
        return begun_reply("accepted", head, row, (plan.message_id, start.turn_id), start.events)

    async def _queued(self, head: CommandHead, plan: MessagePlan, most_waiting: int, *, steers: bool) -> Reply | None:
        """Let the message wait if the session is busy and the command new; None when anything is otherwise."""
        event = plan.waits()
        row = await self._replies.new(
            "user_message_busy",
            head,
            plan.message_id,
            plan.content,
            None if plan.agent_is_default else plan.agent_type,
            plan.title,
            most_waiting,
            event.event_type,
            event.body,
            "steer" if steers else None,
        )
        return None if row is None else begun_reply("queued", head, row, (plan.message_id, None), (event,))
