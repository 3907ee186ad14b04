"""A step in which the agent speaks: from what it is told to the message that is stored."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

import msgspec
import structlog

from protocol.errors import ErrorCode, ParleyError
from protocol.events import ErrorInfo, FinishReason, ToolCallRequest, TurnOutcome
from protocol.values import clean_text
from server.agents.interface import (
    Agent,
    AgentContext,
    AgentDefinition,
    AgentError,
    AgentOutput,
    Finish,
    UsageReport,
)
from server.agents.tools import is_being_cancelled
from server.turns import records
from server.turns.asking import ask
from server.turns.endings import end_turn
from server.turns.moves import Move
from server.turns.past import history_of
from server.turns.settling import Settling
from server.turns.writer import MessageWriter
from storage.moves import NewMessage, RequestRow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from server.turns.run import TurnRun

__all__ = ["Speaking"]

#: An agent that never waits must not keep the loop to itself: after so many outputs everybody else has a go.
_OUTPUTS_IN_A_ROW: Final = 32

#: Tokens that one step may report: more than any model takes, and sums of it fit into every column and reader.
_MOST_TOKENS: Final = 10**9

_log = structlog.get_logger(__name__)


class _Heard:
    """What an agent said about one step, beside the message."""

    def __init__(self) -> None:
        self.reason: FinishReason = "stop"
        self.usage = UsageReport(0, 0)
        self.error: ErrorInfo | None = None


def _checked(usage: UsageReport) -> UsageReport:
    """Counts that can be added up and kept; an agent's structs hold whatever it put there."""
    counts: tuple[object, ...] = (usage.prompt_tokens, usage.completion_tokens)
    for count in counts:
        if not isinstance(count, int) or not 0 <= count <= _MOST_TOKENS:
            raise AgentError("invalid_output", f"token counts are whole numbers from 0 to {_MOST_TOKENS}")
    return usage


class Speaking:
    """One step of a run's agent."""

    def __init__(self, run: TurnRun) -> None:
        self._run = run
        self._began: datetime = run.engine.now()

    async def step(self) -> None:
        """Let the agent speak, store what it said, and see its calls through as far as that can be done here."""
        run, claim, settings = self._run, self._run.claim, self._run.engine.settings
        opened = claim.attempt > 1
        try:
            agent = await run.engine.agent(claim)
        except ParleyError as error:
            if error.code is not ErrorCode.UNKNOWN_AGENT:
                raise
            stranger = AgentDefinition(type=claim.agent_type, name=claim.agent_type)
            failure = ErrorInfo(code=error.code.code, message=error.message)
            await self._end(stranger, "failed", "error", opened=opened, error=failure)
            return
        if run.cancelling:
            await self._end(agent.definition, "cancelled", "cancelled", opened=opened)
        elif claim.attempt > (settings.max_attempts if agent.definition.rerun else 1):
            await self._end(agent.definition, "interrupted", "interrupted", opened=True)
        else:
            await self._speak(agent)

    async def _speak(self, agent: Agent) -> None:
        run, settings, definition = self._run, self._run.engine.settings, agent.definition
        run.status("thinking")
        run.writer = writer = MessageWriter(
            run.claim, run.engine.outlet, max_chars=settings.max_message_chars, max_calls=settings.max_calls
        )
        heard = _Heard()
        try:
            finished = await run.interruptible(self._listen(agent, writer, heard))
        finally:
            run.writer = None
            writer.close()
        if not finished:
            await self._end(definition, "cancelled", "cancelled", opened=writer.opened, heard=heard)
        elif heard.error is not None:
            await self._end(definition, "failed", "error", opened=writer.opened, heard=heard, error=heard.error)
        elif calls := writer.calls():
            await self._call_tools(definition, calls, heard)
        else:
            await self._end(definition, "completed", heard.reason, opened=True, heard=heard)

    async def _listen(self, agent: Agent, writer: MessageWriter, heard: _Heard) -> None:
        """Let the agent speak; what it fails with becomes the step's error, never a message."""
        limit = self._run.engine.settings.step_timeout
        try:
            async with asyncio.timeout(limit):
                await self._take(agent, await self._context(agent.definition), writer, heard)
        except TimeoutError:
            heard.error = ErrorInfo(code="timeout", message=f"the agent took longer than {limit:g} s", retryable=True)
        except AgentError as error:
            heard.error = ErrorInfo(code=error.code, message=clean_text(error.message), retryable=error.retryable)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if is_being_cancelled(error):
                raise
            # What an unexpected exception says may hold paths and secrets: it is for the log.
            _log.exception("agent_failed", agent=agent.definition.type)
            heard.error = ErrorInfo(code="agent_failed", message=f"the agent failed ({type(error).__name__})")

    async def _take(self, agent: Agent, context: AgentContext, writer: MessageWriter, heard: _Heard) -> None:
        count = 0
        streaming = False
        outputs = cast("AsyncGenerator[AgentOutput, None]", agent.run(context))
        async with aclosing(outputs):
            async for output in outputs:
                count += 1
                if count % _OUTPUTS_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                match output:
                    case Finish(reason):
                        # An agent that announces calls and makes none has simply stopped.
                        heard.reason = "length" if reason == "length" else "stop"
                        return
                    case UsageReport():
                        heard.usage = _checked(output)
                    case _:
                        if not streaming:
                            streaming = True
                            self._run.status("streaming")
                        if not writer.write(output):
                            heard.reason = "length"
                            return

    async def _context(self, definition: AgentDefinition) -> AgentContext:
        run, engine, claim = self._run, self._run.engine, self._run.claim
        thread = claim.turn_id if claim.parent_call is not None else None
        limit = engine.settings.history_limit
        stored = await engine.persist(lambda: engine.messages.tail(claim.session_id, limit, thread=thread))
        offers = await engine.offers(claim.session_id)
        tools = engine.registry.tools_for(definition, offers.specs())
        run.offered = {tool.name: tool for tool in tools}
        return AgentContext(
            session_id=claim.session_id,
            turn_id=claim.turn_id,
            message_id=claim.message_id,
            attempt=claim.attempt,
            step=claim.step,
            agent=definition,
            history=history_of(stored),
            tools=tools,
            sleep=engine.clock.sleep,
            now=engine.clock.now,
        )

    # --- its outcome

    async def _call_tools(self, agent: AgentDefinition, written: list[tuple[UUID, str, str]], heard: _Heard) -> None:
        """The step ends in tool calls: the message and all its calls are stored, and seen through."""
        run, claim = self._run, self._run.claim
        asked = await ask(run, agent, written)
        requests = [
            ToolCallRequest(call_id=str(each.call.call_id), name=each.call.name, arguments=each.call.arguments)
            for each in asked
        ]
        move = Move(claim, run.engine.now())
        move.say(
            records.assistant_message(claim, agent, "tool_calls", move.now, requests),
            self._message(agent, "tool_calls", msgspec.json.encode(requests)),
        )
        move.request = self._request(agent, "tool_calls", heard, move.now, tools=len(asked))
        run.status("tools")
        await Settling(run).begin(move, asked)

    async def _end(
        self,
        agent: AgentDefinition,
        outcome: TurnOutcome,
        reason: FinishReason,
        *,
        opened: bool,
        heard: _Heard | None = None,
        error: ErrorInfo | None = None,
    ) -> None:
        """The turn is over: its last message is closed, if clients may have seen it opened, and then the turn."""
        run, claim = self._run, self._run.claim
        move = Move(claim, run.engine.now())
        if opened:
            event = records.assistant_message(claim, agent, reason, move.now, [])
            move.say(event, self._message(agent, reason, None))
        if error is not None:
            move.announce([records.turn_error(claim, error, with_message=opened)])
        if heard is not None:
            move.request = self._request(agent, reason, heard, move.now, error=error)
        await end_turn(run, move, outcome, error=error)
        await run.write(move, "done", closes=claim.message_id)

    def _message(self, agent: AgentDefinition, reason: FinishReason, calls: bytes | None) -> NewMessage:
        claim = self._run.claim
        return NewMessage(
            message_id=claim.message_id,
            ordinal=1,
            role="assistant",
            content=claim.content,
            reasoning=claim.reasoning or None,
            tool_calls=calls,
            agent_type=agent.type,
            finish_reason=reason,
        )

    def _request(
        self,
        agent: AgentDefinition,
        reason: FinishReason,
        heard: _Heard,
        now: datetime,
        *,
        tools: int = 0,
        error: ErrorInfo | None = None,
    ) -> RequestRow:
        """What the step took, for the metrics."""
        usage = heard.usage
        model = usage.model or agent.model
        return RequestRow(
            model=model,
            started_at=self._began,
            duration_ms=max(0, round((now - self._began).total_seconds() * 1000)),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost=self._run.engine.terms.prices.cost(model, usage.prompt_tokens, usage.completion_tokens),
            tools=tools,
            finish_reason=reason,
            error_code=None if error is None else error.code,
        )
