"""What goes on beside the turns: leases, news that only the database has, what is due, what nobody runs, texts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import structlog

from protocol.errors import ParleyError
from protocol.events import ApprovalTimeoutWarning
from protocol.ids import format_timestamp
from storage.turns import ExpiresSoon
from storage.workers import ProcessIdentity, Workers

if TYPE_CHECKING:
    from server.turns.engine import Engine
    from server.turns.run import TurnRun

__all__ = ["Upkeep"]

#: How many lost steps or waiting sessions one sweep takes on; the next one comes soon.
_SWEEP: Final = 200
#: A lease is renewed this often within its time, so that one missed renewal loses nothing.
_RENEWALS: Final = 3
#: How often somebody looks for what is due, in seconds.
_DUE_INTERVAL: Final = 1.0
_FORGET_AFTER: Final = 3600.0

_log = structlog.get_logger(__name__)


class Upkeep:
    """Three tasks: the pulse, the care for what is due, the checkpoints. `runs` are the turns that run here."""

    def __init__(self, engine: Engine, runs: Mapping[UUID, TurnRun], workers: Workers) -> None:
        self._engine = engine
        self._runs = runs
        self._workers = workers
        self._identity = ProcessIdentity.current()
        self._tasks: list[asyncio.Task[None]] = []
        #: What one claims, the other must not take for lost before it is begun.
        self._claiming = asyncio.Lock()

    @property
    def started(self) -> bool:
        """Whether it goes on."""
        return bool(self._tasks)

    async def start(self) -> None:
        """Take over what former processes of this host left, then keep going. The database must be there."""
        await self._workers.renew(self._engine.worker_id, self._identity, self._engine.settings.lease_seconds)
        await self._workers.forget_dead(self._identity)
        await self._workers.forget_expired(_FORGET_AFTER)
        await self.sweep()
        await self.mind_due()
        settings = self._engine.settings
        self._tasks = [
            asyncio.create_task(self._keep(work, seconds, name))
            for work, seconds, name in (
                (self._pulse, settings.lease_seconds / _RENEWALS, "pulse"),
                (self.mind_due, _DUE_INTERVAL, "due"),
                (self.checkpoint, settings.checkpoint_interval, "checkpoint"),
            )
        ]

    async def stop(self) -> None:
        """End the tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _keep(self, work: Callable[[], Awaitable[None]], seconds: float, name: str) -> None:
        """Do something again and again, whatever happens."""
        away = False
        while True:
            await self._engine.clock.sleep(seconds)
            try:
                await work()
                away = False
            except ParleyError as error:
                if not away:
                    _log.warning("upkeep_missed", work=name, error=str(error))
                away = True
            except Exception:  # noqa: BLE001 - it must go on
                _log.exception("upkeep_failed", work=name)

    async def _pulse(self) -> None:
        engine = self._engine
        await self._workers.renew(engine.worker_id, self._identity, engine.settings.lease_seconds)
        await self.hear(dict(self._runs))
        await engine.calls.release_of_dead(engine.now() + timedelta(seconds=engine.terms.tools.grace))
        await self.sweep()

    async def hear(self, runs: Mapping[UUID, TurnRun]) -> None:
        """Let these turns know what happened to them by way of the database."""
        found = await self._engine.turns.news_of(list(runs))
        for turn_id, run in runs.items():
            # What is gone with its session is cancelled by that.
            news, cancelled = found.get(turn_id, (0, True))
            if cancelled:
                run.cancel()
            elif news != run.claim.news:
                run.look()

    async def hear_of(self, run: TurnRun) -> None:
        """The same of one, at once."""
        # What is missed here the pulse hears.
        with suppress(ParleyError):
            await self.hear({run.claim.turn_id: run})

    async def sweep(self) -> None:
        """Claim and run what nobody runs: steps of dead workers, turns whose creation went unanswered, queues."""
        engine = self._engine
        async with self._claiming:
            for claim in await engine.turns.claim(engine.worker_id, engine.own_turns(), _SWEEP):
                _log.info("turn_taken_over", turn_id=str(claim.turn_id), step=claim.step, attempt=claim.attempt)
                engine.begin(claim)
        for session_id in await engine.turns.waiting_sessions(_SWEEP):
            await engine.start_waiting(session_id)

    async def mind_due(self) -> None:
        """See to what happens by itself: deadlines, clients that stay away, approvals that nobody decided in time."""
        engine = self._engine
        now = engine.now()
        async with self._claiming:
            for claim in await engine.turns.claim_due(engine.worker_id, now, _SWEEP):
                engine.begin(claim)
        for due in await engine.turns.warn_due(now, _SWEEP):
            self._warn(due, (due.expires_at - now).total_seconds())
        for run in list(self._runs.values()):
            if run.due_at is not None and run.due_at <= now:
                run.look()

    def _warn(self, due: ExpiresSoon, remaining: float) -> None:
        warning = ApprovalTimeoutWarning(
            approval_id=due.approval_id,
            call_id=str(due.call_id),
            expires_at=format_timestamp(due.expires_at),
            remaining_ms=max(0, round(remaining * 1000)),
        )
        self._engine.outlet.transient(due.session_id, "approval_timeout_warning", warning)

    async def checkpoint(self) -> None:
        """Keep the texts of all messages being written that have grown, in one statement."""
        writers = {run: run.writer for run in self._runs.values() if run.writer is not None and run.writer.changed}
        if not writers:
            return
        try:
            kept = await self._engine.turns.checkpoint(
                self._engine.worker_id, [writer.save() for writer in writers.values()]
            )
        except ParleyError:
            for writer in writers.values():
                writer.changed = True
            raise
        for run, writer in writers.items():
            if run.writer is writer and run.claim.turn_id not in kept:
                # Somebody else has the step, or its session is gone: what this run writes would never be stored.
                run.cancel()
