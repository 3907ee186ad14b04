"""One turn on its way: steps of the agent and their tool calls, one claimed step after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import structlog

from protocol.events import AgentActivity, AgentStatusChanged, Usage
from server.agents.interface import ToolSpec
from server.turns.moves import Move
from server.turns.settling import Settling
from server.turns.speaking import Speaking
from server.turns.work import Work
from server.turns.writer import MessageWriter
from storage.claims import AnsweredError, Claim, LostClaimError
from storage.moves import Advance, RequestRow
from storage.turns import Advanced

if TYPE_CHECKING:
    from server.turns.engine import Engine

__all__ = ["TurnRun"]

_log = structlog.get_logger(__name__)


class TurnRun:
    """Runs the turn of a claim until it is over, or has to wait for somebody else.

    One task, owned by the engine; holds no connection while it waits. `heard` is set by whatever the turn should look
    at: news of its calls, a cancellation, the result of a tool. `due_at` is when something happens by itself.
    """

    def __init__(self, engine: Engine, claim: Claim) -> None:
        self.claim = claim
        self.engine = engine
        self.writer: MessageWriter | None = None
        self.cancelling = claim.cancel_requested
        #: The tools that the agent was offered, by name.
        self.offered: dict[str, ToolSpec] = {}
        self.heard = asyncio.Event()
        self.parked = False
        self.due_at: datetime | None = None
        #: Whether its calls were tried to be settled as often as may be, in vain.
        self.hopeless = False
        self._over = False
        self._works: set[Work] = set()

    def cancel(self) -> None:
        """The user wants the turn to stop: whatever the agent or a tool is doing now ends, or is left to itself."""
        if not self.cancelling:
            self.cancelling = True
            for work in self._works:
                work.cancel()
        self.heard.set()

    def look(self) -> None:
        """Something happened to the turn's calls."""
        self.heard.set()

    async def run(self) -> None:
        """Go on until the turn is over or parked, or another process has it."""
        structlog.contextvars.bind_contextvars(session_id=str(self.claim.session_id), turn_id=str(self.claim.turn_id))
        try:
            while not (self._over or self.parked):
                if self.claim.state == "running":
                    await Speaking(self).step()
                else:
                    self.status("tools")
                    await (Settling(self).give_up() if self.hopeless else Settling(self).settle())
        except LostClaimError:
            _log.info("turn_lost", step=self.claim.step, attempt=self.claim.attempt)
            self.engine.outlet.close_message(self.claim.session_id, self.claim.message_id)
        finally:
            self.status("waiting" if self.parked else "idle")

    async def interruptible(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do something that `cancel()` may end; whether it came to its own end."""
        doing = Work(work, self.claim.agent_type)
        self._works.add(doing)
        try:
            if self.cancelling:
                doing.cancel()
            return await doing.ended()
        finally:
            self._works.discard(doing)

    async def write(
        self,
        move: Move,
        step_state: Literal["running", "tools", "done"],
        *,
        expected_news: int | None = None,
        park: bool = False,
        next_message_id: UUID | None = None,
        closes: UUID | None = None,
    ) -> None:
        """Commit a move; the claim is what the database has then. Raises NewsError: nothing was written, look again."""

        def advance() -> Advance:
            return move.done(step_state, expected_news=expected_news, park=park, next_message_id=next_message_id)

        engine = self.engine
        with engine.expecting(*move.concerns):
            try:
                advanced = await engine.write(self.claim, advance(), move.now, closes)
            except AnsweredError:
                # Whoever asked this agent has been told something else in the meantime.
                move.leave_parent()
                advanced = await engine.write(self.claim, advance(), move.now, closes)
            await self._note(advanced, move, step_state, next_message_id)
            engine.begin_children(self, move.children, move.now)

    async def _note(
        self,
        advanced: Advanced,
        move: Move,
        step_state: Literal["running", "tools", "done"],
        next_message_id: UUID | None,
    ) -> None:
        claim, request = self.claim, move.request
        if request is not None:
            claim.prompt_tokens += request.prompt_tokens
            claim.completion_tokens += request.completion_tokens
            if request.cost is not None:
                claim.cost = request.cost + (claim.cost or 0)
        claim.news = advanced.news
        if move.next_agent is not None:
            claim.agent_type = move.next_agent
            claim.switches += 1
        self.engine.answered(claim, advanced)
        self._over, self.parked = move.ends_turn, advanced.parked
        if step_state == "tools":
            claim.state = "tools"
        if next_message_id is not None:
            claim.begin_next(next_message_id)
            if advanced.steering and claim.parent_call is None:
                await self.engine.steer(claim)
        if advanced.cancel_requested:
            self.cancel()

    def usage(self, more: RequestRow | None) -> Usage:
        """What the turn has spent so far, with the step that ends now."""
        claim = self.claim
        prompt = claim.prompt_tokens + (0 if more is None else more.prompt_tokens)
        completion = claim.completion_tokens + (0 if more is None else more.completion_tokens)
        costs = [cost for cost in (claim.cost, None if more is None else more.cost) if cost is not None]
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cost=float(sum(costs)) if costs else None,
        )

    def status(self, status: AgentActivity) -> None:
        """Tell who watches what the agent is doing."""
        self.engine.outlet.transient(
            self.claim.session_id,
            "agent_status_changed",
            AgentStatusChanged(agent_type=self.claim.agent_type, status=status, turn_id=self.claim.turn_id),
        )
