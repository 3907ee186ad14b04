"""The service against the tables: every state of a call, of an approval and of a turn, and everything that may happen.

What a table allows leads where it says; what it does not allow is refused, and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import pytest

from protocol.errors import ErrorCode, ParleyError
from protocol.lifecycles import (
    APPROVAL,
    TOOL_CALL,
    TURN,
    ApprovalInput,
    ApprovalState,
    ToolCallInput,
    ToolCallState,
    TurnInput,
    TurnState,
)
from server.agents.interface import AgentContext, AgentYield
from server.turns.policy import Policy
from server.turns.settings import PolicySettings
from storage.sessions import Session
from tests.turns.conftest import Make
from tests.turns.support import Workshop, scripted
from tests.turns.test_waiting import WRITE, call_ids, calls

EXPIRY: Final = 20.0
ASKING: Final = Policy([PolicySettings(tool="write_file", effect="ask", timeout=EXPIRY)])

Action = Callable[[Workshop, Session, str], Awaitable[object]]


async def _come(shop: Workshop, session: Session, _call: str) -> None:
    await shop.offer(session, "ide", "write_file")


async def _stay_away(shop: Workshop, session: Session, _call: str) -> None:
    if shop.desk.clients:
        await shop.leave(session, "ide")
        await shop.pass_time(31)


def _decide(decision: str) -> Action:
    needs: dict[str, dict[str, Any]] = {"edit": {"modified_arguments": WRITE}, "respond": {"feedback": "no"}}
    more = needs.get(decision, {})
    return lambda shop, session, call: shop.decide(session, call, decision, command_id="try", **more)


#: What brings each input about.
CALL_INPUTS: Final[dict[ToolCallInput, Action]] = {
    ToolCallInput.ALLOW: _decide("approve"),
    ToolCallInput.REJECT: _decide("reject"),
    ToolCallInput.RESPOND: _decide("respond"),
    ToolCallInput.DISPATCH: _come,
    ToolCallInput.RELEASE: _stay_away,
    ToolCallInput.SUCCEED: lambda shop, session, call: shop.result(session, call, 1, client="ide", command_id="try"),
    ToolCallInput.FAIL: lambda shop, session, call: shop.result(
        session, call, error="no", client="ide", command_id="try"
    ),
    ToolCallInput.CANCEL: lambda shop, session, call: shop.stop(session, "try"),
}
APPROVAL_INPUTS: Final[dict[ApprovalInput, Action]] = {
    ApprovalInput.APPROVE: _decide("approve"),
    ApprovalInput.EDIT: _decide("edit"),
    ApprovalInput.REJECT: _decide("reject"),
    ApprovalInput.RESPOND: _decide("respond"),
    ApprovalInput.EXPIRE: lambda shop, session, call: shop.pass_time(EXPIRY + 1),
    ApprovalInput.WITHDRAW: lambda shop, session, call: shop.stop(session, "try"),
}
#: Refusals of what cannot happen. What is no command (a client that comes, time that passes) just changes nothing.
REFUSALS: Final = {ErrorCode.ALREADY_RESOLVED, ErrorCode.FORBIDDEN, ErrorCode.NO_ACTIVE_TURN}


async def _call_in(make: Make, state: ToolCallState) -> tuple[Workshop, Session, str]:
    """A session with one call in a state."""
    shop = await make(calls(("write_file", WRITE)), policy=ASKING)
    session = await shop.session()
    await shop.say(session, "go")
    await shop.parked()
    (call,) = call_ids(shop)
    if state in {ToolCallState.READY, ToolCallState.RUNNING, ToolCallState.COMPLETED, ToolCallState.FAILED}:
        await shop.decide(session, call, "approve")
        await shop.parked()
    if state in {ToolCallState.RUNNING, ToolCallState.COMPLETED, ToolCallState.FAILED}:
        await _come(shop, session, call)
        await shop.parked()
    if state is ToolCallState.COMPLETED:
        await shop.result(session, call, 1, client="ide")
    elif state is ToolCallState.FAILED:
        await shop.result(session, call, error="no", client="ide")
    elif state is ToolCallState.REJECTED:
        await shop.decide(session, call, "reject")
    elif state is ToolCallState.CANCELLED:
        await shop.stop(session)
    await shop.engine.idle()
    assert await shop.rows("SELECT state FROM tool_calls") == [(state.value,)]
    return shop, session, call


async def _attempt(shop: Workshop, session: Session, call: str, action: Action) -> ErrorCode | None:
    refusal = None
    try:
        await action(shop, session, call)
    except ParleyError as error:
        refusal = error.code
    await shop.engine.idle()
    return refusal


@pytest.mark.feature("A02", "A03")
@pytest.mark.parametrize("state", [state for state in ToolCallState if state is not ToolCallState.REQUESTED])
@pytest.mark.parametrize("happening", CALL_INPUTS)
async def test_every_state_of_a_call_and_all_that_may_happen(
    make: Make, state: ToolCallState, happening: ToolCallInput
) -> None:
    shop, session, call = await _call_in(make, state)
    before = await shop.rows("SELECT seq FROM sessions")
    refusal = await _attempt(shop, session, call, CALL_INPUTS[happening])
    ((now,),) = await shop.rows("SELECT state FROM tool_calls")
    if TOOL_CALL.allows(state, happening):
        assert (refusal, now) == (None, TOOL_CALL.table[state][happening].value)
    else:
        assert now == state.value
        assert refusal in REFUSALS or happening in {ToolCallInput.DISPATCH, ToolCallInput.RELEASE}
        assert await shop.rows("SELECT seq FROM sessions") == before
    results = len(shop.outlet.payloads("tool_result"))
    assert results == int(TOOL_CALL.is_final(ToolCallState(now)))


@pytest.mark.feature("A03")
@pytest.mark.parametrize("state", ApprovalState)
@pytest.mark.parametrize("happening", APPROVAL_INPUTS)
async def test_every_state_of_an_approval_and_all_that_may_happen(
    make: Make, state: ApprovalState, happening: ApprovalInput
) -> None:
    shop, session, call = await _call_in(make, ToolCallState.AWAITING_APPROVAL)
    reach = {
        ApprovalState.APPROVED: _decide("approve"),
        ApprovalState.EDITED: _decide("edit"),
        ApprovalState.REJECTED: _decide("reject"),
        ApprovalState.RESPONDED: _decide("respond"),
        ApprovalState.WITHDRAWN: APPROVAL_INPUTS[ApprovalInput.WITHDRAW],
    }
    if state in reach:
        await reach[state](shop, session, call)
        await shop.engine.idle()
        # Another command than the one that brought the state about.
        await shop.rows("UPDATE commands SET command_id = 'earlier' WHERE command_id = 'try'")
    assert await shop.rows("SELECT state FROM approvals") == [(state.value,)]
    await _attempt(shop, session, call, APPROVAL_INPUTS[happening])
    expected = APPROVAL.table[state].get(happening, state)
    assert await shop.rows("SELECT state FROM approvals") == [(expected.value,)]
    assert len(shop.outlet.payloads("approval_resolved")) == int(expected is not ApprovalState.PENDING)
    ran = expected in {ApprovalState.APPROVED, ApprovalState.EDITED}
    finished = await shop.rows("SELECT state FROM tool_calls WHERE finished_at IS NOT NULL")
    assert not ran or finished in ([], [("cancelled",)], [("failed",)])


class _Turn:
    """An agent whose turn can be brought into every state."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.fails = False

    async def __call__(self, context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        yield "begun"
        await self.go_on.wait()
        if self.fails:
            raise RuntimeError("as the test wants it")


TURN_COMMANDS: Final = ("cancel", "enqueue", "reject", "interrupt", "steer")


@pytest.mark.feature("A04")
@pytest.mark.parametrize("state", [state for state in TurnState if state is not TurnState.QUEUED])
@pytest.mark.parametrize("command", TURN_COMMANDS)
async def test_every_state_of_a_turn_and_what_people_may_do(make: Make, state: TurnState, command: str) -> None:
    agent = _Turn()

    async def script(context: AgentContext) -> AsyncGenerator[AgentYield, None]:
        async for item in agent(context):
            yield item

    if state is TurnState.WAITING:
        shop, session, _ = await _call_in(make, ToolCallState.AWAITING_APPROVAL)
    else:
        shop = await make(scripted(script, rerun=state is not TurnState.INTERRUPTED))
        session = await shop.session()
        await shop.say(session, "go")
        await shop.outlet.until(lambda: bool(shop.outlet.deltas))
        shop, session = await _turn_to(make, shop, session, agent, state, script)
    ((turn_id,),) = await shop.rows("SELECT turn_id FROM turns")
    active = state in {TurnState.RUNNING, TurnState.WAITING}
    refusal = None
    try:
        if command == "cancel":
            await shop.stop(session, "try")
        else:
            await shop.say(session, "more", command_id="try", on_busy=command)
    except ParleyError as error:
        refusal = error.code
    agent.go_on.set()
    await shop.engine.idle()
    ((now,),) = await shop.rows("SELECT state FROM turns WHERE turn_id = $1", turn_id)
    if active and command in {"cancel", "interrupt"}:
        assert TURN.table[state][TurnInput.CANCEL].value == now == "cancelled"
    elif state is TurnState.RUNNING:
        assert now == "completed"
    else:
        assert now == state.value
    expected = {"cancel": None if active else ErrorCode.NO_ACTIVE_TURN, "reject": ErrorCode.BUSY if active else None}
    assert refusal is expected.get(command)


async def _turn_to(
    make: Make, shop: Workshop, session: Session, agent: _Turn, state: TurnState, script: Callable[..., object]
) -> tuple[Workshop, Session]:
    match state:
        case TurnState.COMPLETED | TurnState.FAILED:
            agent.fails = state is TurnState.FAILED
            agent.go_on.set()
            await shop.engine.idle()
        case TurnState.CANCELLED:
            await shop.stop(session)
            await shop.engine.idle()
        case TurnState.INTERRUPTED:
            await shop.service.stop()
            shop = await make(scripted(script, rerun=False))  # type: ignore[arg-type]
            await shop.engine.idle()
        case _:
            pass
    return shop, session
