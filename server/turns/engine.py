"""The engine: runs the turns of claimed steps, lets them know what happened, and writes what they do.

It owns a task for each turn that runs, those of writes, which finish even when their turn is stopped, and what goes on
beside them (`upkeep`). A turn that waits for a person or a client is none of them: it is rows, until somebody brings it
news.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog

from protocol.errors import ErrorCode, ParleyError
from server.agents.interface import Agent
from server.agents.registry import Registry
from server.clock import Clock
from server.turns.begun import Begun, first_claim
from server.turns.executors import Offers
from server.turns.outlet import Outlet
from server.turns.queue import Queue
from server.turns.run import TurnRun
from server.turns.settings import TurnSettings
from server.turns.terms import Terms
from server.turns.upkeep import Upkeep
from storage.approvals import Rules
from storage.calls import Calls
from storage.commands import Reply
from storage.ids import new_id
from storage.messages import Messages
from storage.pool import Database
from storage.turns import Advance, Advanced, Claim, NewChild, Turns
from storage.workers import Workers

__all__ = ["Engine"]

_BACKOFF: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
_STOP_PATIENCE: Final = 5.0
#: Seconds that a database which hangs may take for each of the two last statements of a stop.
_LAST_WORDS: Final = 2.0

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


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
        self.gates = database.gates
        self._workers = Workers(database)
        self._runs: dict[UUID, TurnRun] = {}
        self._by_session: dict[UUID, dict[UUID, TurnRun]] = {}
        self._expected: Counter[UUID] = Counter()
        #: Claimed, and waiting for their users' other turns.
        self._admitted: dict[UUID, Claim] = {}
        #: Claimed anew while the run of an older claim is still at its end.
        self._next: dict[UUID, Claim] = {}
        #: How often in a row a mistake of ours ended a turn's run.
        self._crashes: dict[UUID, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writes: set[asyncio.Task[Any]] = set()
        self._queue = Queue(self)
        self._upkeep = Upkeep(self, self._runs, self._workers)
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
        if not self._upkeep.started:
            self._stopping = False
            await self._upkeep.start()

    async def stop(self) -> None:
        """Stop all turns where they are; another process, or the next start, goes on with them."""
        if self._stopping:
            return
        self._stopping = True
        await self._upkeep.stop()
        # What these two save is little: without them a step is begun again from an older text, and its lease runs out.
        with suppress(ParleyError, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS):
                await self.checkpoint()
        for claim in self._admitted.values():
            self.terms.spaces.done(claim)
        self._admitted.clear()
        self._next.clear()
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
        """A statement may create or claim this turn for this worker: no sweep is to take it for a lost one."""
        self._expected[turn_id] += 1

    def unexpect(self, turn_id: UUID) -> None:
        """The statement is over, whatever came of it."""
        self._expected[turn_id] -= 1
        if not self._expected[turn_id]:
            del self._expected[turn_id]

    @contextmanager
    def expecting(self, *turn_ids: UUID) -> Iterator[None]:
        """Both, around a statement that creates or claims these turns, and the beginning of their runs."""
        for turn_id in turn_ids:
            self.expect(turn_id)
        try:
            yield
        finally:
            for turn_id in turn_ids:
                self.unexpect(turn_id)

    def begin(self, claim: Claim) -> None:
        """Run the turn of a claimed step, once its user may run another one, and an older claim's run is over."""
        if self._stopping:
            return
        run = self._runs.get(claim.turn_id)
        if run is not None:
            # It has parked the turn, or lost it, and is about to end. A claim is newer than all that a run has written.
            if claim.revision > run.claim.revision:
                self._next[claim.turn_id] = claim
            return
        waits = claim.turn_id in self._admitted
        if not waits or claim.revision > self._admitted[claim.turn_id].revision:
            self._admitted[claim.turn_id] = claim
        if not waits:
            self.terms.spaces.admit(claim, lambda: self._begin(claim.turn_id))

    def _begin(self, turn_id: UUID) -> None:
        claim = self._admitted.pop(turn_id)
        self._runs[turn_id] = run = TurnRun(self, claim)
        run.hopeless = self._crashes.get(turn_id, 0) >= self.settings.max_attempts
        self._by_session.setdefault(claim.session_id, {})[turn_id] = run
        self._own(self._run(run))

    def own_turns(self) -> list[UUID]:
        """The turns that this worker has, or is about to have, as far as it knows."""
        return [*self._runs, *self._expected, *self._admitted]

    def active_turn(self, session_id: UUID) -> UUID | None:
        """The turn that this process runs for a session."""
        runs = self._by_session.get(session_id, {}).values()
        return next((run.claim.turn_id for run in runs if run.claim.parent_call is None), None)

    async def agent(self, claim: Claim) -> Agent:
        """Who acts in the turn: one of the configuration's, or of the session's project. Raises UNKNOWN_AGENT."""
        return await self.persist(lambda: self.agent_of(claim.session_id, claim.agent_type))

    async def agent_of(self, session_id: UUID, agent_type: str) -> Agent:
        """An agent that a session may use, by its type or id. Raises UNKNOWN_AGENT, UNAVAILABLE."""
        if self.terms.agents is None:
            return self.registry.get(agent_type)
        return await self.terms.agents(session_id, agent_type)

    async def offers(self, session_id: UUID) -> Offers:
        """What the session's clients offer; waits for a lost database."""
        return Offers(await self.persist(lambda: self.terms.executors.offers(session_id)))

    def begin_children(self, parent: TurnRun, children: Sequence[NewChild], now: datetime) -> None:
        """Run turns that answer calls of another one, which that same transaction created."""
        for child in children:
            begun = Begun(
                turn_id=child.turn_id,
                message_id=child.message_id,
                answer_id=child.answer_id,
                agent_type=child.agent_type,
                now=now,
            )
            claim = first_claim(self.worker_id, parent.claim.session_id, parent.claim.owner, begun)
            claim.parent_call = child.call_id
            claim.depth = parent.claim.depth + 1
            claim.cancel_requested = parent.cancelling
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
            self._own(self._upkeep.hear_of(run))

    async def idle(self) -> None:
        """Wait until no turn runs here."""
        while self._tasks or self._writes:
            await asyncio.wait(self._tasks | self._writes)

    def cancel(self, session_id: UUID, turn_id: UUID) -> None:
        """A session's running turn is to stop, with those that answer its calls.

        Where another process runs one of them, that one's pulse will see, if it is not told of this turn before.
        """
        for run in self._by_session.get(session_id, {}).values():
            run.cancel()
        for claim in self._admitted.values():
            if claim.session_id == session_id:
                claim.cancel_requested = True
        if turn_id not in self._runs and turn_id not in self._admitted:
            self.terms.stir(turn_id)

    async def _run(self, run: TurnRun) -> None:
        turn_id = run.claim.turn_id
        crashes = 0
        try:
            await run.run()
        except ParleyError as error:
            # Only when stopping: anywhere else a lost database is waited for.
            _log.warning("turn_abandoned", turn_id=str(turn_id), error=str(error))
        except Exception:  # noqa: BLE001 - a turn's failure must not end the engine
            # A mistake of ours. The step stays claimed; the sweep begins it again until its attempts are used up.
            _log.exception("turn_crashed", turn_id=str(turn_id))
            crashes = self._crashes.get(turn_id, 0) + 1
        finally:
            self._crashes.pop(turn_id, None)
            if crashes:
                self._crashes[turn_id] = crashes
            self._ended(run)
        if not self._stopping and run.claim.parent_call is None and not run.parked:
            await self.start_waiting(run.claim.session_id)

    def _ended(self, run: TurnRun) -> None:
        turn_id = run.claim.turn_id
        del self._runs[turn_id]
        here = self._by_session[run.claim.session_id]
        del here[turn_id]
        if not here:
            del self._by_session[run.claim.session_id]
        self.terms.spaces.done(run.claim)
        claim = self._next.pop(turn_id, None)
        if claim is not None:
            self.begin(claim)

    async def write(self, claim: Claim, move: Advance, now: datetime, closes: UUID | None = None) -> Advanced:
        """Commit a move of a turn and show it; waits for a lost database. Raises LostClaimError."""
        return await self.shielded(self._write(claim, move, now, closes))

    async def _write(self, claim: Claim, move: Advance, now: datetime, closes: UUID | None) -> Advanced:
        async def once() -> Advanced:
            async with self.gates.hold(claim.session_id):
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

    # --- the queue, and what goes on beside the turns

    async def start_waiting(self, session_id: UUID) -> None:
        """Begin the turn of the session's first waiting message, if nothing runs there."""
        await self._queue.start(session_id)

    async def steer(self, claim: Claim) -> None:
        """Take the messages that are to steer the turn into it, before its next step. Raises LostClaimError."""
        await self._queue.steer(claim)

    async def sweep(self) -> None:
        """Claim and run what nobody runs."""
        await self._upkeep.sweep()

    async def mind_due(self) -> None:
        """See to what happens by itself."""
        await self._upkeep.mind_due()

    async def checkpoint(self) -> None:
        """Keep the texts of all messages being written."""
        await self._upkeep.checkpoint()

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
