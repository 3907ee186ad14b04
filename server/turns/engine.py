"""The engine: claims steps, runs their turns, keeps their texts, takes over what dead processes left.

Five things run here, each with an owner that awaits it: a task a turn, the pulse (leases, news of other processes, lost
turns, forgotten queues), the care for what is due, the checkpoints, and writes, which finish even when their turn is
stopped. A turn that waits for a person or a client is none of them: it is rows, until somebody brings it news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import structlog
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from protocol.events import ApprovalTimeoutWarning, QueueChanged
from protocol.ids import format_timestamp
from server.agents.interface import Agent, AgentDefinition
from server.agents.registry import Registry
from server.clock import Clock
from server.turns import records
from server.turns.outlet import Outlet
from server.turns.run import TurnRun
from server.turns.settings import TurnSettings
from server.turns.terms import Terms
from storage.approvals import Rules
from storage.calls import Calls
from storage.commands import Reply
from storage.ids import new_id
from storage.messages import Messages
from storage.pool import Database
from storage.turns import Advance, Advanced, Claim, NewChild, Started, SteerPlan, Turns, Waiting
from storage.workers import ProcessIdentity, Workers

__all__ = ["Begun", "Engine"]

#: How many lost steps or waiting sessions one sweep takes on; the next one comes soon.
_SWEEP: Final = 200
#: A lease is renewed this often within its time, so that one missed renewal loses nothing.
_RENEWALS: Final = 3
#: How often somebody looks for what is due, in seconds.
_DUE_INTERVAL: Final = 1.0
_BACKOFF: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_FORGET_AFTER: Final = 3600.0
_STOP_PATIENCE: Final = 5.0
#: Seconds that a database which hangs may take for each of the two last statements of a stop.
_LAST_WORDS: Final = 2.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class TurnBegun(Protocol):
    """A turn that a statement has created: `message_id` is the user's message, `answer_id` the agent's first one."""

    @property
    def turn_id(self) -> UUID: ...
    @property
    def message_id(self) -> UUID: ...
    @property
    def answer_id(self) -> UUID: ...
    @property
    def agent_type(self) -> str: ...
    @property
    def now(self) -> datetime: ...


class Begun(Struct, frozen=True, kw_only=True):
    """The same, put together."""

    turn_id: UUID
    message_id: UUID
    answer_id: UUID
    agent_type: str
    now: datetime


class Engine:
    """Runs the turns of one process. `start()` and `stop()` may be called again; stop is over when it returns."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        outlet: Outlet,
        clock: Clock,
        settings: TurnSettings,
        terms: Terms | None = None,
    ) -> None:
        self.worker_id = new_id()
        self.terms = terms or Terms()
        self.registry = registry
        self.outlet = outlet
        self.clock = clock
        self.settings = settings
        self.turns = Turns(database)
        self.messages = Messages(database)
        self.calls = Calls(database)
        self.rules = Rules(database)
        self._workers = Workers(database)
        self._gates = database.gates
        self._identity = ProcessIdentity.current()
        self._runs: dict[UUID, TurnRun] = {}
        self._by_session: dict[UUID, dict[UUID, TurnRun]] = {}
        self._expected: set[UUID] = set()
        #: Claimed, and waiting for their users' other turns.
        self._admitted: dict[UUID, Claim] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writes: set[asyncio.Task[Any]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    def now(self) -> datetime:
        """The time of an event: whole milliseconds, so that what is stored is what was sent."""
        now = self.clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    @property
    def running(self) -> int:
        """How many turns run in this process."""
        return len(self._runs)

    # --- life

    async def start(self) -> None:
        """Take over what former processes of this host left, then keep going. The database must be there."""
        if self._loops:
            return
        self._stopping = False
        await self._workers.renew(self.worker_id, self._identity, self.settings.lease_seconds)
        await self._workers.forget_dead(self._identity)
        await self._workers.forget_expired(_FORGET_AFTER)
        await self.sweep()
        await self.mind_due()
        self._loops = [asyncio.create_task(loop) for loop in (self._pulse(), self._keep_texts(), self._mind_due())]

    async def stop(self) -> None:
        """Stop all turns where they are; another process, or the next start, goes on with them."""
        if self._stopping:
            return
        self._stopping = True
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        # What these two save is little: without them a step is begun again from an older text, and its lease runs out.
        with suppress(ParleyError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self.checkpoint()
        for task in self._tasks:
            task.cancel()
        if pending := self._tasks | self._writes:
            await asyncio.wait(pending, timeout=_STOP_PATIENCE)
        for task in list(self._writes):
            task.cancel()
        with suppress(ParleyError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self._workers.forget([self.worker_id])

    # --- turns

    def expect(self, turn_id: UUID) -> None:
        """A statement is about to create this turn, claimed by this worker: no sweep may take it for a lost one."""
        self._expected.add(turn_id)

    def unexpect(self, turn_id: UUID) -> None:
        """The statement is over, whatever came of it."""
        self._expected.discard(turn_id)

    def begin(self, claim: Claim) -> None:
        """Run the turn of a claimed step, once its user may run another one."""
        if self._stopping or claim.turn_id in self._runs or claim.turn_id in self._admitted:
            return
        self._admitted[claim.turn_id] = claim
        self.terms.spaces.admit(claim, lambda: self._begin(claim))

    def _begin(self, claim: Claim) -> None:
        del self._admitted[claim.turn_id]
        if self._stopping:
            self.terms.spaces.done(claim)
            return
        self._runs[claim.turn_id] = run = TurnRun(self, claim)
        self._by_session.setdefault(claim.session_id, {})[claim.turn_id] = run
        self._own(self._run(run))

    def active_turn(self, session_id: UUID) -> UUID | None:
        """The turn that this process runs for a session."""
        runs = self._by_session.get(session_id, {}).values()
        return next((run.claim.turn_id for run in runs if run.claim.parent_call is None), None)

    async def agent(self, claim: Claim) -> Agent:
        """Who acts in the turn: one of the configuration's, or of the session's project. Raises UNKNOWN_AGENT."""
        return await self.agent_of(claim.session_id, claim.agent_type)

    async def agent_of(self, session_id: UUID, agent_type: str) -> Agent:
        """An agent that a session may use, by its type or id. Raises UNKNOWN_AGENT."""
        if self.terms.agents is None:
            return self.registry.get(agent_type)
        return await self.terms.agents(session_id, agent_type)

    def begin_child(self, parent: Claim, child: NewChild, now: datetime) -> None:
        """Run a turn that answers a call of another one, which that same transaction created."""
        begun = Begun(
            turn_id=child.turn_id,
            message_id=child.message_id,
            answer_id=child.answer_id,
            agent_type=child.agent_type,
            now=now,
        )
        claim = self.first_claim(parent.session_id, parent.owner, begun)
        claim.parent_call = child.call_id
        claim.depth = parent.depth + 1
        self.begin(claim)

    def answered(self, claim: Claim, advanced: Advanced) -> None:
        """A move was written that may have ended a call of another turn: that one goes on."""
        if advanced.parent is not None:
            self.begin(advanced.parent)
        elif claim.parent_call is not None:
            self.look(claim.session_id)

    def look(self, session_id: UUID) -> None:
        """Something happened to calls of the session's turns: those that run here look at them."""
        for run in self._by_session.get(session_id, {}).values():
            run.look()

    def news(self, reply: Reply, session_id: UUID) -> None:
        """A command changed calls of the session's turns: those that waited go on here, the others are told."""
        for claim in reply.claims:
            self.begin(claim)
        if not reply.claims and reply.turn_id is not None:
            if reply.turn_id in self._runs:
                self.look(session_id)
            else:
                self.terms.stir(reply.turn_id)

    def stirred(self, turn_id: UUID) -> None:
        """Another process has news of a turn that may run here."""
        run = self._runs.get(turn_id)
        if run is not None:
            self._own(self._hear_of(run))

    async def idle(self) -> None:
        """Wait until no turn runs here."""
        while self._tasks or self._writes:
            await asyncio.wait(self._tasks | self._writes)

    def cancel(self, turn_id: UUID) -> None:
        """The user wants the turn to stop; where another process runs it, that one's pulse will see."""
        run = self._runs.get(turn_id)
        if run is None:
            if turn_id in self._admitted:
                self._admitted[turn_id].cancel_requested = True
            else:
                self.terms.stir(turn_id)
            return
        for each in self._by_session.get(run.claim.session_id, {}).values():
            each.cancel()

    async def _run(self, run: TurnRun) -> None:
        turn_id = run.claim.turn_id
        try:
            await run.run()
        except ParleyError as error:
            # Only when stopping: anywhere else a lost database is waited for.
            _log.warning("turn_abandoned", turn_id=str(turn_id), error=str(error))
        except Exception:  # noqa: BLE001 - a turn's failure must not end the engine
            # A mistake of ours. The step stays claimed; the sweep begins it again until its attempts are used up.
            _log.exception("turn_crashed", turn_id=str(turn_id))
        finally:
            del self._runs[turn_id]
            here = self._by_session[run.claim.session_id]
            del here[turn_id]
            if not here:
                del self._by_session[run.claim.session_id]
            self.terms.spaces.done(run.claim)
        if not self._stopping and run.claim.parent_call is None and not run.parked:
            await self.start_waiting(run.claim.session_id)

    async def write(self, claim: Claim, move: Advance, now: datetime, closes: UUID | None = None) -> Advanced:
        """Commit a move of a turn and show it; waits for a lost database. Raises LostClaimError."""
        return await self.shielded(self._write(claim, move, now, closes))

    async def _write(self, claim: Claim, move: Advance, now: datetime, closes: UUID | None) -> Advanced:
        async def once() -> Advanced:
            async with self._gates.hold(claim.session_id):
                advanced = await self.turns.advance(claim, move, now)
                if advanced.commit is not None:
                    self.outlet.commit(advanced.commit, closes)
                return advanced

        advanced = await self.persist(once)
        if advanced.commit is None:
            self.outlet.wake(claim.session_id)
            if closes is not None:
                self.outlet.close_message(claim.session_id, closes)
        return advanced

    async def persist(self, action: Callable[[], Awaitable[_T]]) -> _T:
        """Do something to the database; when it is away, wait and do it again, until the server stops."""
        attempt = 0
        while True:
            try:
                return await action()
            except ParleyError as error:
                if error.code not in (ErrorCode.UNAVAILABLE, ErrorCode.RATE_LIMITED) or self._stopping:
                    raise
            await self.clock.sleep(_BACKOFF[min(attempt, len(_BACKOFF) - 1)])
            attempt += 1

    # --- the queue

    async def start_waiting(self, session_id: UUID) -> None:
        """Begin the turn of the session's first waiting message, if nothing runs there."""

        async def attempt() -> bool:
            waiting = await self.turns.next_waiting(session_id)
            return waiting is None or await self.shielded(self._start_waiting(session_id, waiting))

        while not await self.persist(attempt):
            # Somebody changed the session's agent, or took the message back, in between.
            pass

    async def _start_waiting(self, session_id: UUID, waiting: Waiting) -> bool:
        agent_type = waiting.agent_type or waiting.current_agent
        try:
            agent = (await self.agent_of(session_id, agent_type)).definition
        except ParleyError:
            # The agent was taken out of the configuration since: its turn fails and says so.
            agent = AgentDefinition(type=agent_type, name=agent_type)
        now = self.now()
        turn_id, answer_id = new_id(), new_id()
        started = QueueChanged(change="started", message_id=waiting.message_id)
        start = Started(
            session_id=session_id,
            message_id=waiting.message_id,
            agent_type=agent_type,
            agent_is_default=waiting.agent_type is None,
            turn_id=turn_id,
            answer_id=answer_id,
            worker_id=self.worker_id,
            now=now,
            events=[
                records.queue_changed(started),
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
        self.expect(turn_id)
        try:
            async with self._gates.hold(session_id):
                commit = await self.turns.start_waiting(start)
                if commit is None:
                    return False
                self.outlet.commit(commit)
        finally:
            self.unexpect(turn_id)
        self.begin(self.first_claim(session_id, waiting.owner, start))
        return True

    async def steer(self, claim: Claim) -> None:
        """Take the messages that are to steer the turn into it, before its next step."""
        waiting = await self.persist(lambda: self.turns.steering(claim.session_id))
        if not waiting:
            return
        now = self.now()
        events = []
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
        plan = SteerPlan(messages=ordinals, events=events, now=now)
        if not await self.shielded(self._steer(claim, plan)):
            # Somebody took one of them back, or out of its place.
            await self.steer(claim)

    async def _steer(self, claim: Claim, plan: SteerPlan) -> bool:
        async def once() -> bool:
            async with self._gates.hold(claim.session_id):
                steered = await self.turns.steer(claim, plan)
                if steered is None:
                    return False
                if steered.commit is not None:
                    self.outlet.commit(steered.commit)
                else:
                    self.outlet.wake(claim.session_id)
                return True

        return await self.persist(once)

    def first_claim(self, session_id: UUID, owner: str, start: TurnBegun) -> Claim:
        """The first step of a turn that a statement has just created for this worker."""
        return Claim(
            session_id=session_id,
            turn_id=start.turn_id,
            step=1,
            message_id=start.answer_id,
            state="running",
            worker_id=self.worker_id,
            attempt=1,
            agent_type=start.agent_type,
            user_message_id=start.message_id,
            turn_created_at=start.now,
            owner=owner,
        )

    # --- what goes on beside the turns

    async def sweep(self) -> None:
        """Claim and run what nobody runs: steps of dead workers, turns whose creation went unanswered, queues."""
        for claim in await self.turns.claim(self.worker_id, self._own_turns(), _SWEEP):
            _log.info("turn_taken_over", turn_id=str(claim.turn_id), step=claim.step, attempt=claim.attempt)
            self.begin(claim)
        for session_id in await self.turns.waiting_sessions(_SWEEP):
            await self.start_waiting(session_id)

    def _own_turns(self) -> list[UUID]:
        return [*self._runs, *self._expected, *self._admitted]

    async def mind_due(self) -> None:
        """See to what happens by itself: deadlines, clients that stay away, approvals that nobody decided in time."""
        now = self.now()
        for claim in await self.turns.claim_due(self.worker_id, now, _SWEEP):
            self.begin(claim)
        for due in await self.turns.warn_due(now, _SWEEP):
            remaining = (due.expires_at - now).total_seconds()
            warning = ApprovalTimeoutWarning(
                approval_id=due.approval_id,
                call_id=str(due.call_id),
                expires_at=format_timestamp(due.expires_at),
                remaining_ms=max(0, round(remaining * 1000)),
            )
            self.outlet.transient(due.session_id, "approval_timeout_warning", warning)
        for run in list(self._runs.values()):
            if run.due_at is not None and run.due_at <= now:
                run.look()

    async def _hear(self, runs: Mapping[UUID, TurnRun]) -> None:
        """Let these turns know what happened to them by way of the database."""
        found = await self.turns.news_of(list(runs))
        for turn_id, run in runs.items():
            news, cancelled = found.get(turn_id, (0, True))
            if cancelled:
                run.cancel()
            elif news != run.claim.news:
                run.look()

    async def _hear_of(self, run: TurnRun) -> None:
        # What is missed here the pulse hears.
        with suppress(ParleyError):
            await self._hear({run.claim.turn_id: run})

    async def checkpoint(self) -> None:
        """Keep the texts of all messages being written that have grown, in one statement."""
        writers = {run: run.writer for run in self._runs.values() if run.writer is not None and run.writer.changed}
        if not writers:
            return
        try:
            kept = await self.turns.checkpoint(self.worker_id, [writer.save() for writer in writers.values()])
        except ParleyError:
            for writer in writers.values():
                writer.changed = True
            raise
        for run, writer in writers.items():
            if run.writer is writer and run.claim.turn_id not in kept:
                # Somebody else has the step, or its session is gone: what this run writes would never be stored.
                run.cancel()

    async def _keep_texts(self) -> None:
        while True:
            await self.clock.sleep(self.settings.checkpoint_interval)
            with suppress(ParleyError):
                await self.checkpoint()

    async def _mind_due(self) -> None:
        while True:
            await self.clock.sleep(_DUE_INTERVAL)
            try:
                await self.mind_due()
            except ParleyError as error:
                _log.debug("due_missed", error=str(error))
            except Exception:  # noqa: BLE001 - what is due must be minded whatever happened
                _log.exception("due_failed")

    async def _pulse(self) -> None:
        away = False
        while True:
            await self.clock.sleep(self.settings.lease_seconds / _RENEWALS)
            try:
                await self._workers.renew(self.worker_id, self._identity, self.settings.lease_seconds)
                await self._hear(dict(self._runs))
                await self.calls.release_of_dead(self.now() + timedelta(seconds=self.terms.tools.grace))
                await self.sweep()
                away = False
            except ParleyError as error:
                if not away:
                    _log.warning("pulse_missed", error=str(error))
                away = True
            except Exception:  # noqa: BLE001 - the pulse must go on whatever happens
                _log.exception("pulse_failed")

    # --- tasks

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._disown)

    def _disown(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._stopping:
            _log.error("turn_task_failed", exc_info=error)

    async def shielded(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Finish a write although whoever asked for it is cancelled: commit and emission belong together."""
        # As asyncio.shield, but that the asker learns of the outcome in the very next turn of the loop.
        outcome: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(_told(work, outcome))
        self._writes.add(task)
        task.add_done_callback(partial(self._written, outcome))
        return await outcome

    def _written(self, outcome: asyncio.Future[Any], task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not outcome.done():
            # It was cancelled, by the end of the server.
            outcome.cancel()


async def _told(work: Coroutine[Any, Any, _T], outcome: asyncio.Future[_T]) -> None:
    try:
        result = await work
    except Exception as error:  # noqa: BLE001 - it is the asker's, if he still asks
        if not outcome.done():
            outcome.set_exception(error)
    else:
        if not outcome.done():
            outcome.set_result(result)
