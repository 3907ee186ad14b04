"""The engine: claims steps, runs their turns, keeps their texts, takes over what dead processes left.

Four things run here, each with an owner that awaits it: a task a turn, the pulse (leases, cancellations by other
processes, lost turns, forgotten queues), the checkpoints, and writes, which finish even when their turn is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from protocol.errors import ErrorCode, ParleyError
from protocol.events import QueueChanged
from server.agents.interface import AgentDefinition
from server.agents.registry import Registry
from server.clock import Clock
from server.turns import records
from server.turns.outlet import Outlet
from server.turns.run import TurnRun
from server.turns.settings import TurnSettings
from storage.ids import new_id
from storage.messages import Messages
from storage.pool import Database
from storage.turns import Advance, Advanced, Claim, Started, Turns, Waiting
from storage.workers import ProcessIdentity, Workers

__all__ = ["Engine"]

#: How many lost steps or waiting sessions one sweep takes on; the next one comes soon.
_SWEEP: Final = 200
#: A lease is renewed this often within its time, so that one missed renewal loses nothing.
_RENEWALS: Final = 3
_BACKOFF: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_FORGET_AFTER: Final = 3600.0
_STOP_PATIENCE: Final = 5.0
#: Seconds that a database which hangs may take for each of the two last statements of a stop.
_LAST_WORDS: Final = 2.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Engine:
    """Runs the turns of one process. `start()` and `stop()` may be called again; stop is over when it returns."""

    def __init__(
        self, database: Database, registry: Registry, outlet: Outlet, clock: Clock, settings: TurnSettings
    ) -> None:
        self.worker_id = new_id()
        self.registry = registry
        self.outlet = outlet
        self.clock = clock
        self.settings = settings
        self.turns = Turns(database)
        self.messages = Messages(database)
        self._workers = Workers(database)
        self._gates = database.gates
        self._identity = ProcessIdentity.current()
        self._runs: dict[UUID, TurnRun] = {}
        self._by_session: dict[UUID, UUID] = {}
        self._expected: set[UUID] = set()
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
        self._loops = [asyncio.create_task(self._pulse()), asyncio.create_task(self._keep_texts())]

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
        """Run the turn of a claimed step."""
        if self._stopping or claim.turn_id in self._runs:
            return
        self._runs[claim.turn_id] = run = TurnRun(self, claim)
        self._by_session[claim.session_id] = claim.turn_id
        self._own(self._run(run))

    def active_turn(self, session_id: UUID) -> UUID | None:
        """The turn that this process runs for a session."""
        return self._by_session.get(session_id)

    async def idle(self) -> None:
        """Wait until no turn runs here."""
        while self._tasks or self._writes:
            await asyncio.wait(self._tasks | self._writes)

    def cancel(self, turn_id: UUID) -> None:
        """The user wants the turn to stop; where another process runs it, that one's pulse will see."""
        run = self._runs.get(turn_id)
        if run is not None:
            run.cancel()

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
            if self._by_session.get(run.claim.session_id) == turn_id:
                del self._by_session[run.claim.session_id]
        if not self._stopping:
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
            agent = self.registry.get(agent_type).definition
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
        self.begin(self.first_claim(session_id, turn_id, answer_id, waiting.message_id, agent_type, now))
        return True

    def first_claim(
        self, session_id: UUID, turn_id: UUID, answer_id: UUID, message_id: UUID, agent_type: str, now: datetime
    ) -> Claim:
        """The first step of a turn that a statement has just created for this worker."""
        return Claim(
            session_id=session_id,
            turn_id=turn_id,
            step=1,
            message_id=answer_id,
            state="running",
            worker_id=self.worker_id,
            attempt=1,
            agent_type=agent_type,
            user_message_id=message_id,
            turn_created_at=now,
        )

    # --- what goes on beside the turns

    async def sweep(self) -> None:
        """Claim and run what nobody runs: steps of dead workers, turns whose creation went unanswered, queues."""
        for claim in await self.turns.claim(self.worker_id, [*self._runs, *self._expected], _SWEEP):
            _log.info("turn_taken_over", turn_id=str(claim.turn_id), step=claim.step, attempt=claim.attempt)
            self.begin(claim)
        for session_id in await self.turns.waiting_sessions(_SWEEP):
            await self.start_waiting(session_id)

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

    async def _pulse(self) -> None:
        away = False
        while True:
            await self.clock.sleep(self.settings.lease_seconds / _RENEWALS)
            try:
                await self._workers.renew(self.worker_id, self._identity, self.settings.lease_seconds)
                for turn_id in await self.turns.cancelled(list(self._runs)):
                    self.cancel(turn_id)
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
