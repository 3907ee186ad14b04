"""One turn on its way: steps of the agent and their tool calls, one claimed step after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import msgspec
import structlog

from protocol.errors import ParleyError
from protocol.events import (
    AgentActivity,
    AgentStatusChanged,
    ErrorInfo,
    FinishReason,
    ToolCallRequest,
    TurnOutcome,
    Usage,
)
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
from server.agents.registry import HANDOFF_TOOL
from server.agents.tools import is_being_cancelled
from server.turns import records
from server.turns.calls import answer_calls, as_call
from server.turns.past import history_of
from server.turns.writer import MessageWriter
from storage.log import NewEvent
from storage.turns import Advance, Advanced, Claim, LostClaimError, NewMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from server.turns.engine import Engine

__all__ = ["TurnRun"]

#: How long an agent or a tool may take to end once it is cancelled, in seconds; then its turn ends without it.
CANCEL_PATIENCE: Final = 10.0
#: An agent that never waits must not keep the loop to itself: after so many outputs everybody else has a go.
_OUTPUTS_IN_A_ROW: Final = 32

#: Tokens that one step may report: more than any model takes, and sums of it fit into every column and reader.
_MOST_TOKENS: Final = 10**9

_log = structlog.get_logger(__name__)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


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


class TurnRun:
    """Runs the turn of a claim until it is over. One task, owned by the engine; holds no connection while it waits."""

    def __init__(self, engine: Engine, claim: Claim) -> None:
        self.claim = claim
        self.writer: MessageWriter | None = None
        self.cancelling = claim.cancel_requested
        self.engine = engine
        self._work: asyncio.Task[Any] | None = None
        self._out_of_patience: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        """The user wants the turn to stop: whatever the agent or a tool is doing now ends, or is left to itself."""
        self.cancelling = True
        if self._work is not None and self._out_of_patience is not None:
            self._work.cancel()
            asyncio.get_running_loop().call_later(CANCEL_PATIENCE, _settle, self._out_of_patience)

    async def run(self) -> None:
        """Go on until the turn is over, or another process has it."""
        structlog.contextvars.bind_contextvars(session_id=str(self.claim.session_id), turn_id=str(self.claim.turn_id))
        try:
            while await (self._generate() if self.claim.state == "running" else answer_calls(self)):
                self.cancelling = self.cancelling or self.claim.cancel_requested
        except LostClaimError:
            _log.info("turn_lost", step=self.claim.step, attempt=self.claim.attempt)
            self.engine.outlet.close_message(self.claim.session_id, self.claim.message_id)
        finally:
            self.status("idle")

    async def interruptible(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Do something that `cancel()` may end; whether it came to its own end.

        Work that does not let itself be cancelled is waited for no longer than `CANCEL_PATIENCE`.
        """
        task = self._work = asyncio.create_task(work)
        self._out_of_patience = asyncio.get_running_loop().create_future()
        try:
            if self.cancelling:
                self.cancel()
            await asyncio.wait({task, self._out_of_patience}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The server stops: what this run does must not outlive it.
            task.cancel()
            await asyncio.wait({task}, timeout=CANCEL_PATIENCE)
            raise
        finally:
            self._work = None
            _settle(self._out_of_patience)
        if not task.done():
            _log.error("cancellation_ignored", agent=self.claim.agent_type)
            return False
        if task.cancelled():
            return False
        task.result()
        return True

    def status(self, status: AgentActivity) -> None:
        """Tell who watches what the agent is doing."""
        self.engine.outlet.transient(
            self.claim.session_id,
            "agent_status_changed",
            AgentStatusChanged(agent_type=self.claim.agent_type, status=status, turn_id=self.claim.turn_id),
        )

    # --- a step of the agent

    async def _generate(self) -> bool:
        """One step of the agent; whether the turn goes on after it."""
        claim, settings = self.claim, self.engine.settings
        opened = claim.attempt > 1
        try:
            agent = self.engine.registry.get(claim.agent_type)
        except ParleyError as error:
            stranger = AgentDefinition(type=claim.agent_type, name=claim.agent_type)
            return await self._fail(stranger, ErrorInfo(code=error.code.code, message=error.message), opened=opened)
        if self.cancelling:
            return await self._end(agent.definition, "cancelled", "cancelled", opened=opened)
        if claim.attempt > (settings.max_attempts if agent.definition.rerun else 1):
            return await self._end(agent.definition, "interrupted", "interrupted", opened=True)
        return await self._speak(agent)

    async def _speak(self, agent: Agent) -> bool:
        settings = self.engine.settings
        self.status("thinking")
        self.writer = writer = MessageWriter(
            self.claim, self.engine.outlet, max_chars=settings.max_message_chars, max_calls=settings.max_calls
        )
        heard = _Heard()
        try:
            finished = await self.interruptible(self._listen(agent, writer, heard))
        finally:
            self.writer = None
            writer.close()
        if not finished:
            return await self._end(agent.definition, "cancelled", "cancelled", opened=writer.opened, usage=heard.usage)
        if heard.error is not None:
            return await self._fail(agent.definition, heard.error, opened=writer.opened, usage=heard.usage)
        if calls := writer.calls():
            return await self._call_tools(agent.definition, calls, heard.usage)
        return await self._end(agent.definition, "completed", heard.reason, opened=True, usage=heard.usage)

    async def _listen(self, agent: Agent, writer: MessageWriter, heard: _Heard) -> None:
        """Let the agent speak; what it fails with becomes the step's error, never a message."""
        limit = self.engine.settings.step_timeout
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
                            self.status("streaming")
                        if not writer.write(output):
                            heard.reason = "length"
                            return

    async def _context(self, definition: AgentDefinition) -> AgentContext:
        engine, claim = self.engine, self.claim
        stored = await engine.persist(lambda: engine.messages.tail(claim.session_id, engine.settings.history_limit))
        tools = engine.registry.tools_for(definition)
        return AgentContext(
            session_id=claim.session_id,
            turn_id=claim.turn_id,
            message_id=claim.message_id,
            attempt=claim.attempt,
            step=claim.step,
            agent=definition,
            history=history_of(stored),
            tools=tuple(tool for tool in tools if tool.name != HANDOFF_TOOL),
            sleep=engine.clock.sleep,
            now=engine.clock.now,
        )

    # --- its outcome

    async def _call_tools(
        self, agent: AgentDefinition, written: list[tuple[UUID, str, str]], usage: UsageReport
    ) -> bool:
        """The step ends in tool calls: the message and all its calls are stored, then answered."""
        claim = self.claim
        calls = [as_call(self.engine.registry, *item) for item in written]
        requests = [
            ToolCallRequest(call_id=str(call.call_id), name=call.name, arguments=call.arguments) for call in calls
        ]
        message = self._message(agent, "tool_calls", msgspec.json.encode(requests))
        now = self.engine.now()
        events = [records.assistant_message(claim, agent, "tool_calls", now, requests)]
        events += [records.tool_call(claim, call) for call in calls]
        move = Advance(
            step_state="tools",
            events=events,
            messages=[message],
            calls=calls,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )
        advanced = await self.engine.write(claim, move, now, closes=claim.message_id)
        claim.state = "tools"
        self._note(advanced, usage)
        return True

    async def _fail(
        self, agent: AgentDefinition, error: ErrorInfo, *, opened: bool, usage: UsageReport | None = None
    ) -> bool:
        return await self._end(agent, "failed", "error", opened=opened, usage=usage, error=error)

    async def _end(
        self,
        agent: AgentDefinition,
        outcome: TurnOutcome,
        reason: FinishReason,
        *,
        opened: bool,
        usage: UsageReport | None = None,
        error: ErrorInfo | None = None,
    ) -> bool:
        """The turn is over: its last message is closed, if clients may have seen it opened, and then the turn."""
        claim, now = self.claim, self.engine.now()
        used = usage or UsageReport(0, 0)
        events: list[NewEvent] = []
        if opened:
            events.append(records.assistant_message(claim, agent, reason, now, []))
        if error is not None:
            events.append(records.turn_error(claim, error, with_message=opened))
        move = Advance(
            step_state="done",
            events=[*events, records.task_completed(claim, outcome, now, self.total(used), error)],
            messages=[self._message(agent, reason, None)] if opened else [],
            turn_state=outcome,
            error=(error.code, error.message) if error is not None else None,
            prompt_tokens=used.prompt_tokens,
            completion_tokens=used.completion_tokens,
        )
        await self.engine.write(claim, move, now, closes=claim.message_id)
        return False

    def total(self, more: UsageReport) -> Usage:
        """The tokens of the turn so far, with those of the step that ends now."""
        prompt = self.claim.prompt_tokens + more.prompt_tokens
        completion = self.claim.completion_tokens + more.completion_tokens
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

    def _message(self, agent: AgentDefinition, reason: FinishReason, calls: bytes | None) -> NewMessage:
        return NewMessage(
            message_id=self.claim.message_id,
            ordinal=1,
            role="assistant",
            content=self.claim.content,
            reasoning=self.claim.reasoning or None,
            tool_calls=calls,
            agent_type=agent.type,
            finish_reason=reason,
        )

    def _note(self, advanced: Advanced, usage: UsageReport) -> None:
        self.claim.prompt_tokens += usage.prompt_tokens
        self.claim.completion_tokens += usage.completion_tokens
        self.claim.cancel_requested = advanced.cancel_requested
