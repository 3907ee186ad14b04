"""Calls of a client's tools: each run once, its lease kept meanwhile, its result sent until it is taken."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

from protocol.client.backoff import Backoff
from protocol.client.calls import Call, Done, lease_of
from protocol.client.journal import Journal
from protocol.client.tools import ClientTool, Offered, Outcome, as_tool
from protocol.client.trouble import LOST, RETRYABLE, ViolationError
from protocol.commands import Command, RegisterTools, ToolDescription, ToolProgress, ToolResult
from protocol.envelope import Envelope
from protocol.errors import ErrorCode, ParleyError
from protocol.events import (
    Ack,
    Connected,
    Payload,
    ResyncRequired,
    Sync,
    TaskCancelling,
    TaskCompleted,
    ToolDispatched,
    ToolResultEvent,
)

__all__ = ["Runner", "Send"]

#: Sends a command until it is acknowledged, for so many seconds at most.
Send = Callable[[Command, float | None], Awaitable[Ack]]

#: Calls, and bytes of them, that may be open at once. One beyond is left alone: its lease runs out.
_MOST_OPEN: Final = 1000
_MOST_OPEN_BYTES: Final = 64 << 20
_LONGEST_ID: Final = 256
#: Seconds. A lease is renewed three times over; progress is told at most so often; what hangs is waited for so long.
_RENEWALS: Final = 3
_SHORTEST_RENEWAL: Final = 0.05
_LONGEST_RENEWAL: Final = 60.0
_PROGRESS_PACE: Final = 0.2
_FAREWELL: Final = 5.0

#: Nobody waits for the result any more.
_OVER: Final = frozenset({ErrorCode.ALREADY_RESOLVED, ErrorCode.NOT_FOUND, ErrorCode.SESSION_GONE})
#: It is the result that is wrong: one that says so is not.
_UNSENDABLE: Final = frozenset({ErrorCode.TOO_LARGE, ErrorCode.INVALID, ErrorCode.MALFORMED})


class Runner:
    """The tools that a client offers, and their calls.

    `notice` is told of every event as it comes. `fail` is called when the server refuses the tools; `is_connected`
    tells whether there is a connection now.
    """

    def __init__(
        self,
        send: Send,
        client_id: str,
        *,
        journal: Journal | None,
        concurrency: int,
        is_connected: Callable[[], bool],
        fail: Callable[[Exception], None],
    ) -> None:
        self.tools: dict[str, ClientTool] = {}
        #: Set once the server knows the tools.
        self.registered = asyncio.Event()
        self._send = send
        self._client_id = client_id
        self._journal = journal
        self._slots = asyncio.Semaphore(concurrency)
        self._is_connected = is_connected
        self._fail = fail
        self._offers = False
        self._registering: asyncio.Task[None] | None = None
        #: What a replay brought that is for us, until it is known what became of it.
        self._replayed: dict[str, Call] | None = None
        self._replayed_bytes = 0
        self._open: dict[str, Call] = {}
        self._open_bytes = 0
        self._done = Done()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> list[str]:
        """The ids of the calls that are open here."""
        return list(self._open)

    async def close(self) -> None:
        """Leave all calls. May be called again."""
        for call in self._open.values():
            call.context.cancelled = True
        tasks = self._tasks | ({self._registering} if self._registering is not None else set())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_FAREWELL)
        if self._journal is not None:
            await self._journal.close()

    # --- what is offered

    def take(self, offered: Iterable[Offered]) -> None:
        """Offer these tools from the next connection on.

        Raises what `client_tool` raises, and ValueError for two of a name.
        """
        tools = [as_tool(one) for one in offered]
        named = {tool.description.name: tool for tool in tools}
        if len(named) != len(tools):
            raise ValueError(f"two tools have one name: {', '.join(tool.description.name for tool in tools)}")
        self.tools = named
        self._offers = self._offers or bool(tools)
        self.registered.clear()

    @property
    def descriptions(self) -> list[ToolDescription]:
        """What the server is told."""
        return [tool.description for tool in self.tools.values()]

    async def register(self) -> None:
        """Tell the server which tools there are. Raises what sending raises."""
        await self._send(RegisterTools(id=secrets.token_hex(16), tools=self.descriptions), None)
        self.registered.set()

    def _register_again(self) -> None:
        if self._registering is not None:
            self._registering.cancel()
            self._registering = None
        if self._offers:
            self._registering = asyncio.create_task(self._registered(), name="parley-client:tools")

    async def _registered(self) -> None:
        try:
            await self.register()
        except ParleyError as error:
            # Between two connections nobody is here to have tools; the next one says it again.
            if self._is_connected():
                self._fail(error)
        except ConnectionError:
            return  # the client was closed

    # --- what is heard

    def notice(self, envelope: Envelope, payload: Payload | None, size: int) -> None:
        """Take an event of `size` bytes."""
        match payload:
            case Connected():
                self._replayed, self._replayed_bytes = {}, 0
            case ResyncRequired() if self._replayed is not None:
                self._replayed, self._replayed_bytes = {}, 0
            case Sync():
                self._register_again()
                replayed, self._replayed = self._replayed or {}, None
                for call in replayed.values():
                    self._begin(call)
            case ToolDispatched():
                self._dispatched(envelope, payload, size)
            case ToolResultEvent(call_id=call_id):
                self._give_up([call_id])
            case TaskCancelling(turn_id=turn_id) | TaskCompleted(turn_id=turn_id):
                calls = [*self._open.values(), *(self._replayed or {}).values()]
                self._give_up([call.event.call_id for call in calls if call.event.turn_id == turn_id])
            case _:
                pass

    def _give_up(self, call_ids: Iterable[str]) -> None:
        for call_id in call_ids:
            if (call := self._open.get(call_id)) is not None:
                call.give_up()
            self._let_go(call_id)

    def _let_go(self, call_id: str) -> None:
        """It need not be run when the replay is over."""
        call = self._replayed.pop(call_id, None) if self._replayed else None
        self._replayed_bytes -= 0 if call is None else call.size

    def _dispatched(self, envelope: Envelope, event: ToolDispatched, size: int) -> None:
        if event.client_id != self._client_id:
            # Given to somebody else: what is under way here goes on, as the first result counts, whosever it is.
            self._let_go(event.call_id)
            return
        if not 0 < len(event.call_id) <= _LONGEST_ID:
            return  # it could not be answered
        call = Call(event, f"{envelope.session_id}/{event.call_id}", size, lease_of(envelope, event))
        if self._replayed is None:
            self._begin(call)
        elif len(self._replayed) < _MOST_OPEN and self._replayed_bytes + size <= _MOST_OPEN_BYTES:
            self._replayed[event.call_id] = call
            self._replayed_bytes += size

    def _begin(self, call: Call) -> None:
        call_id = call.event.call_id
        if (known := self._open.get(call_id)) is not None:
            # Still at it: said at once, as somebody wonders.
            known.news.set()
            return
        if len(self._open) >= _MOST_OPEN or self._open_bytes + call.size > _MOST_OPEN_BYTES:
            return
        call.outcome = self._done.outcome(call_id)
        self._open[call_id] = call
        self._open_bytes += call.size
        call.task = asyncio.create_task(self._work(call), name=f"parley-client:call-{call_id}")
        self._tasks.add(call.task)
        call.task.add_done_callback(lambda task: self._ended(call, task))

    def _ended(self, call: Call, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        del self._open[call.event.call_id]
        self._open_bytes -= call.size
        self._done.add(call.event.call_id, call.outcome)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error if isinstance(error, Exception) else RuntimeError(repr(error)))

    # --- a call

    async def _work(self, call: Call) -> None:
        if call.outcome is None:
            async with self._lease_kept(call):
                call.outcome = await self._outcome(call)
        if not call.resolved:
            await self._deliver(call, call.outcome)

    async def _outcome(self, call: Call) -> Outcome:
        tool = self.tools.get(call.event.name)
        if tool is None:
            return Outcome.failed(
                f"this client has no tool {call.event.name}; it has: {', '.join(self.tools) or 'none'}"
            )
        noted = None if self._journal is None else self._journal.find(call.key)
        if isinstance(noted, Outcome):
            return noted
        if noted == "begun" and not tool.description.read_only:
            return Outcome.failed(
                "this client was stopped while it ran the call; whether it took effect is not known, and it was "
                "not run again"
            )
        await self._slots.acquire()
        try:
            return await self._run(call, tool)
        finally:
            thread = call.context.thread
            if thread is None or thread.done():
                self._slots.release()
            else:
                # A thread that was given up still takes its place.
                thread.add_done_callback(lambda _: self._slots.release())

    async def _run(self, call: Call, tool: ClientTool) -> Outcome:
        journal = self._journal
        try:
            if journal is not None:
                await journal.begin(call.key)
        except OSError as error:
            return Outcome.failed(f"this client could not note that it begins the call, and did not run it: {error}")
        outcome = await tool.call(call.event.arguments, call.context)
        if journal is not None:
            with suppress(OSError):  # then the result is sent all the same; that it was begun is noted
                await journal.finish(call.key, outcome)
        return outcome

    async def _deliver(self, call: Call, outcome: Outcome) -> None:
        """Send the result until somebody has it: we, or who was quicker."""
        command = self._result(call, outcome)
        backoff = Backoff()
        while True:
            try:
                await self._send(command, None)
                return
            except ParleyError as error:
                if error.code in _UNSENDABLE and command.error is None:
                    outcome = Outcome.failed(f"the result of {call.event.name} cannot be sent: {error.message}")
                    command = self._result(call, outcome)
                elif error.code not in RETRYABLE and not isinstance(error, ViolationError):
                    return
                else:
                    await asyncio.sleep(backoff.next(error.retry_after))
            except ConnectionError:
                return  # the client was closed

    def _result(self, call: Call, outcome: Outcome) -> ToolResult:
        # Of this client and this call, so that it is the same after a restart, and another than anybody else's.
        digest = hashlib.sha256(f"{self._client_id}\0{call.key}".encode(errors="replace")).hexdigest()
        result = outcome.value if outcome.error is None else None
        return ToolResult(id=f"result-{digest[:40]}", call_id=call.event.call_id, result=result, error=outcome.error)

    @asynccontextmanager
    async def _lease_kept(self, call: Call) -> AsyncIterator[None]:
        """Say again and again that it is being done."""
        renewing = asyncio.create_task(self._renew(call), name=f"parley-client:lease-{call.event.call_id}")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self, call: Call) -> None:
        pause = None
        if call.lease is not None:
            pause = min(max(call.lease / _RENEWALS, _SHORTEST_RENEWAL), _LONGEST_RENEWAL)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await call.news.wait()
            call.news.clear()
            progress = ToolProgress(
                id=secrets.token_hex(16), call_id=call.event.call_id, message=call.message, fraction=call.fraction
            )
            try:
                await self._send(progress, pause or _LONGEST_RENEWAL)
            except ParleyError as error:
                if error.code in _OVER:
                    call.give_up()
                elif error.code not in RETRYABLE and error.code is not ErrorCode.INVALID:
                    return  # it is another client's now, or nobody wants to know
            except LOST:
                pass  # by the next time the connection may be back
            await asyncio.sleep(_PROGRESS_PACE if pause is None else min(_PROGRESS_PACE, pause))
