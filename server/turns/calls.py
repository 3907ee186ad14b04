"""The tool calls of one step: each gets exactly one result, whatever happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from protocol.errors import ParleyError
from protocol.events import TurnOutcome
from protocol.values import clean_text
from server.agents.interface import Tool, ToolContext, UsageReport
from server.agents.registry import Registry
from server.agents.tools import ToolError
from server.turns import records
from storage.ids import new_id
from storage.turns import Advance, Call, NewMessage

if TYPE_CHECKING:
    from server.turns.run import TurnRun

__all__ = ["answer_calls", "as_call"]

CANCELLED: Final = "Cancelled by the user before it ran to its end."
INTERRUPTED: Final = "The server stopped while this was running. It may or may not have taken effect."
NO_EXECUTOR: Final = "No executor is connected: no client of this session offers the tool {name}."
NOT_ALLOWED: Final = "The agent {agent} may not use the tool {name}."


class _Result(Struct, frozen=True):
    """What came of a call: a value, or an error that the model reads; how long it took, if it ran."""

    value: Any = None
    error: str | None = None
    duration_ms: int | None = None

    @property
    def text(self) -> str:
        """What the model reads."""
        if self.error is not None:
            return self.error
        return self.value if isinstance(self.value, str) else msgspec.json.encode(self.value).decode()


def as_call(registry: Registry, call_id: UUID, name: str, arguments: str) -> Call:
    """A call that an agent wrote. Whatever this server does not run itself is a client's to run."""
    runs_here = name in registry.server_tools
    return Call(call_id=call_id, name=name, arguments=arguments, executor="server" if runs_here else "client")


async def answer_calls(run: TurnRun) -> bool:
    """Give every open call of the step its result, in the order of the agent; whether the turn goes on."""
    engine, claim = run.engine, run.claim
    run.status("tools")
    calls = [call for call in await engine.persist(lambda: engine.turns.calls(claim)) if call.state != "done"]
    for call in calls[:-1]:
        result = await _result(run, call)
        await _store(run, call, result, last=False)
    result = await _result(run, calls[-1])
    await _store(run, calls[-1], result, last=True)
    return claim.state == "running"


async def _result(run: TurnRun, call: Call) -> _Result:
    engine, claim = run.engine, run.claim
    if run.cancelling:
        return _Result(error=CANCELLED)
    tool = engine.registry.server_tools.get(call.name)
    if tool is None:
        return _Result(error=NO_EXECUTOR.format(name=call.name))
    if call.state == "running" and not tool.spec.idempotent:
        return _Result(error=INTERRUPTED)
    if not _allowed(run, call.name):
        return _Result(error=NOT_ALLOWED.format(agent=claim.agent_type, name=call.name))
    await engine.persist(lambda: engine.turns.start_call(claim, call.call_id, engine.now()))
    return await _execute(run, call, tool)


def _allowed(run: TurnRun, name: str) -> bool:
    try:
        return run.engine.registry.get(run.claim.agent_type).definition.allows_tool(name)
    except ParleyError:
        return False


async def _execute(run: TurnRun, call: Call, tool: Tool) -> _Result:
    engine, claim = run.engine, run.claim
    context = ToolContext(
        session_id=claim.session_id,
        turn_id=claim.turn_id,
        call_id=str(call.call_id),
        agent_type=claim.agent_type,
        now=engine.clock.now,
    )
    value: Any = None
    error: str | None = None

    async def execute() -> None:
        nonlocal value, error
        try:
            value = await tool.call(call.arguments, context)
        except ToolError as failure:
            error = clean_text(failure.message)

    began = engine.clock.monotonic()
    if not await run.interruptible(execute()):
        return _Result(error=CANCELLED)
    return _Result(value, error, round((engine.clock.monotonic() - began) * 1000))


async def _store(run: TurnRun, call: Call, result: _Result, *, last: bool) -> None:
    """Write a call's result; with the last one the turn moves on to its next step, or ends."""
    engine, claim, now = run.engine, run.claim, run.engine.now()
    message_id = new_id()
    message = NewMessage(
        message_id=message_id, ordinal=1, role="tool", content=result.text, name=call.name, call_id=call.call_id
    )
    events = [records.tool_result(claim, call, result.value, result.error, result.duration_ms)]
    outcome: TurnOutcome | None = None
    if last and run.cancelling:
        outcome = "cancelled"
    elif last and claim.step >= engine.settings.max_steps:
        outcome = "failed"
    error = records.step_limit(engine.settings.max_steps) if outcome == "failed" else None
    if error is not None:
        events.append(records.turn_error(claim, error, with_message=False))
    if outcome is not None:
        events.append(records.task_completed(claim, outcome, now, run.total(UsageReport(0, 0)), error))
    next_message_id = new_id() if last and outcome is None else None
    move = Advance(
        step_state="done" if last else "tools",
        events=events,
        messages=[message],
        ended_calls=[(call.call_id, result.error is not None)],
        turn_state=outcome,
        error=(error.code, error.message) if error is not None else None,
        next_message_id=next_message_id,
    )
    advanced = await engine.write(claim, move, now)
    claim.cancel_requested = advanced.cancel_requested
    if next_message_id is not None:
        claim.begin_next(next_message_id)
