"""The tool calls of one step on their way to their results: each gets exactly one, whatever happens.

A round looks at the calls, plans what can be done now, and writes all of it in one transaction. When nothing is left
but what somebody else has to do (a person, a client, another turn), that same transaction parks the turn: no task is
left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from protocol.errors import ErrorCode
from protocol.events import ErrorInfo
from protocol.values import clean_text
from server.agents.interface import ToolContext
from server.agents.registry import HANDOFF_TOOL
from server.agents.tools import ToolError
from server.turns import records, results
from server.turns.asking import Asked
from server.turns.colleagues import ask_agent, hand_over
from server.turns.endings import end_turn
from server.turns.executors import Offers
from server.turns.moves import Move
from server.turns.planner import Ending, Plan, Scene, plan
from server.turns.results import Result
from storage.claims import NewsError
from storage.ids import new_id
from storage.moves import Call, CallState

if TYPE_CHECKING:
    from server.turns.run import TurnRun

__all__ = ["Settling"]

_log = structlog.get_logger(__name__)

_STATES: dict[str, CallState] = {"cancelled": "cancelled", "expired": "rejected"}
_TEXTS = {
    "cancelled": results.CANCELLED,
    "expired": results.EXPIRED,
    "deadline": results.DEADLINE,
    "lost": results.INTERRUPTED,
}


class Settling:
    """The calls of the present step of a run."""

    def __init__(self, run: TurnRun) -> None:
        self._run = run
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._results: dict[UUID, Result] = {}

    async def begin(self, move: Move, asked: Sequence[Asked]) -> None:
        """Store the step's calls, with all that can be done about them at once, and go on as `settle` does.

        `move` holds the message in which the agent made them.
        """
        for each in asked:
            move.call(each.call)
        for each in asked:
            if each.approval is not None:
                move.ask(each.call, each.approval, each.parameters)
            if each.audit is not None:
                move.audit(each.audit)
            if each.refusal is not None:
                move.end_call(each.call, Result(error=clean_text(each.refusal)), "failed")
        try:
            calls = [each.call for each in asked if each.refusal is None]
            if not await self._round(calls, move, first=True):
                await self._settle()
        finally:
            await self._end_tasks()

    async def settle(self) -> None:
        """Go on until the step is over, or the turn is parked."""
        try:
            await self._settle()
        finally:
            await self._end_tasks()

    async def give_up(self) -> None:
        """End the turn, and each of its calls: a mistake of ours keeps them from being settled."""
        run, engine = self._run, self._run.engine
        error = ErrorInfo(code=ErrorCode.INTERNAL.code, message="the server failed to run the turn's tool calls")
        while True:
            step = await engine.persist(lambda: engine.turns.calls(run.claim))
            run.claim.news = step.news
            move = Move(run.claim, engine.now())
            for call in (call for call in step.calls if call.open):
                if call.approval is not None:
                    move.close_approval(call, expired=False)
                move.end_call(call, Result(error=results.INTERRUPTED), "failed")
            move.announce([records.turn_error(run.claim, error, with_message=False)])
            await end_turn(run, move, "interrupted", error=error)
            with suppress(NewsError):
                await run.write(move, "done", expected_news=step.news)
                return

    async def _settle(self) -> None:
        run, engine = self._run, self._run.engine
        while True:
            run.heard.clear()
            step = await engine.persist(lambda: engine.turns.calls(run.claim))
            run.claim.news = step.news
            if step.cancel_requested:
                run.cancel()
            if await self._round(step.calls, Move(run.claim, engine.now()), first=False):
                return

    async def _round(self, calls: Sequence[Call], move: Move, *, first: bool) -> bool:
        """Do what can be done now; whether the step is over or the turn is parked."""
        run = self._run
        made = plan(calls, await self._scene(calls, move))
        answered = self._fill(move, made)
        open_calls = [call for call in made.rest if call.call_id not in answered]
        starting = [call for call in made.starts if call.call_id not in answered]
        busy = bool(self._tasks.keys() - self._results.keys()) or bool(starting)
        run.due_at = min((call.due_at for call in open_calls if call.due_at is not None), default=None)
        # Calls that waited for those which have their result by now may begin in the next round.
        waits = bool(open_calls) and not answered
        if first or not (made.empty and busy):
            try:
                await self._write(move, over=not open_calls, park=waits and not busy, first=first)
            except NewsError:
                return False
        for ending in made.endings:
            self._results.pop(ending.call.call_id, None)
            self._tasks.pop(ending.call.call_id, None)
        for call in starting:
            self._tasks[call.call_id] = asyncio.create_task(self._execute(call))
        if not open_calls or run.parked:
            return True
        if busy and waits:
            await run.heard.wait()
        return False

    async def _scene(self, calls: Sequence[Call], move: Move) -> Scene:
        run, terms = self._run, self._run.engine.terms
        wanted = any(call.open and call.executor == "client" and call.state != "awaiting_approval" for call in calls)
        offers = await run.engine.offers(run.claim.session_id) if wanted else Offers(())
        return Scene(
            now=move.now,
            cancelling=run.cancelling,
            here=self._tasks.keys() - self._results.keys(),
            results=self._results.keys(),
            executor=offers.executor,
            offers=offers.offers,
            idempotent=self._idempotent,
            deadline=terms.tools.deadline,
            wait=terms.tools.wait,
        )

    def _idempotent(self, name: str) -> bool:
        tool = self._run.engine.registry.server_tools.get(name)
        return name == HANDOFF_TOOL or (tool is not None and tool.spec.idempotent)

    # --- what is written

    def _fill(self, move: Move, made: Plan) -> set[UUID]:
        """Put the plan into the move; the calls that have their result by that although they were to begin."""
        run = self._run
        answered: set[UUID] = set()
        for ending in made.endings:
            self._end(move, ending)
        for dispatched in made.dispatches:
            move.dispatch(dispatched.call, dispatched.client_id, dispatched.deadline)
        for call in made.starts:
            if call.name == HANDOFF_TOOL:
                move.end_call(call, *hand_over(run, move, call))
                answered.add(call.call_id)
            else:
                move.start(call)
        for call in made.children:
            refusal = ask_agent(run, move, call)
            if refusal is not None:
                move.end_call(call, Result(error=refusal), "failed")
                answered.add(call.call_id)
        return answered

    def _end(self, move: Move, ending: Ending) -> None:
        call, cause = ending.call, ending.cause
        if call.state == "awaiting_approval":
            move.close_approval(call, expired=cause == "expired")
        if cause == "result":
            result = self._results[call.call_id]
            move.end_call(call, result, result.state)
        elif cause == "nobody":
            move.end_call(call, Result(error=results.NO_EXECUTOR.format(name=call.name)), "failed")
        else:
            move.end_call(call, Result(error=_TEXTS[cause]), _STATES.get(cause, "failed"))

    async def _write(self, move: Move, *, over: bool, park: bool, first: bool) -> None:
        run, claim = self._run, self._run.claim
        next_message_id = None
        if over:
            next_message_id = await self._finish(move)
        await run.write(
            move,
            "done" if over else "tools",
            expected_news=None if first else claim.news,
            park=park,
            next_message_id=next_message_id,
            closes=claim.message_id if first else None,
        )

    async def _finish(self, move: Move) -> UUID | None:
        """The step is over: the next one's message, or the turn ends."""
        run = self._run
        limit = run.engine.settings.max_steps
        if run.cancelling:
            await end_turn(run, move, "cancelled")
        elif run.claim.step >= limit:
            error = records.step_limit(limit)
            move.announce([records.turn_error(run.claim, error, with_message=False)])
            await end_turn(run, move, "failed", error=error)
        else:
            return new_id()
        return None

    # --- what runs here

    async def _execute(self, call: Call) -> None:
        """Run a tool of the server, and keep its result until a round stores it."""
        run, engine, claim = self._run, self._run.engine, self._run.claim
        tool = engine.registry.server_tools.get(call.name)
        context = ToolContext(
            session_id=claim.session_id,
            turn_id=claim.turn_id,
            call_id=str(call.call_id),
            agent_type=claim.agent_type,
            now=engine.clock.now,
            owner=claim.owner,
        )
        value: Any = None
        error: str | None = None

        async def execute() -> None:
            nonlocal value, error
            if tool is None:
                error = results.NO_EXECUTOR.format(name=call.name)
                return
            try:
                async with engine.terms.spaces.tool(claim.owner):
                    value = await tool.call(call.effective_arguments, context)
            except ToolError as failure:
                error = clean_text(failure.message)
            except Exception as failure:  # noqa: BLE001 - a tool must not end its turn
                # Tools of other makes than ours. What it says may hold paths and secrets: it is for the log.
                _log.exception("tool_failed", tool=call.name)
                error = f"{call.name} failed ({type(failure).__name__})"

        began = engine.clock.monotonic()
        ended = await run.interruptible(execute())
        took = round((engine.clock.monotonic() - began) * 1000)
        cancelled = Result(error=results.CANCELLED, duration_ms=took)
        self._results[call.call_id] = Result(value, error, took) if ended else cancelled
        run.heard.set()

    async def _end_tasks(self) -> None:
        """Whatever still runs here ends: the turn is over, another process has it, or the server stops."""
        tasks = [task for task in self._tasks.values() if not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
