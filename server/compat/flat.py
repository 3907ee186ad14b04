"""A turn as flat chunks: what one event stream says from a message on until the turn rests.

The events are those of the log from the message's own on, so nothing depends on when the stream was opened: also a
repeat of the request is told the whole turn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

from protocol.delta import tail, utf16_len
from protocol.envelope import Event
from protocol.events import (
    AgentSwitched,
    ApprovalRequired,
    ApprovalResolved,
    Disconnect,
    Executor,
    Heartbeat,
    MessageCreated,
    MessageDelta,
    Payload,
    QueueChanged,
    Sync,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolResultEvent,
    TurnOutcome,
)
from server.compat.chunks import Chunk, ChunkMetadata
from server.compat.wires import payload_of, sse_message

__all__ = ["FlatTeller", "OpenCall", "Origin"]

#: A browser or a proxy takes a comment as a sign of life, and a reader of chunks passes over it.
_ALIVE: Final = b": heartbeat\n\n"


class Origin(NamedTuple):
    """What the stream is about: a message that begins a turn, or a command, by its id, that another turn goes on with.

    `ends`: the command is all; no turn goes on with it.
    """

    message_id: UUID | None
    command_id: str
    ends: bool = False


class OpenCall(NamedTuple):
    """A call that has no result yet; `asked`: it waits for a decision."""

    call_id: str
    name: str
    arguments: Any
    executor: Executor
    asked: bool = False


class FlatTeller:
    """What one such stream is told.

    A turn rests when somebody is to decide about a call, or when this client is to run one. Events do not tell the
    latter: a call that no client offers to run is nobody's. So when calls of clients are open `doubt` is called, and
    whoever looks puts those that are for this client into `ours`.
    """

    def __init__(self, origin: Origin, calls: Iterable[OpenCall] = (), children: Iterable[UUID] = ()) -> None:
        """`calls` are open in the turn that goes on, and `children` the turns that answer some of them."""
        #: Whether the last chunk was handed over; the stream ends with it.
        self.over = False
        #: Calls that wait for this client's result.
        self.ours: Collection[str] = ()
        self.ended: Callable[[], None] = _nobody
        self.doubt: Callable[[], None] = _nobody
        self._origin = origin
        #: Whether the turn has begun; what happens before is about others.
        self._begun = origin.message_id is None
        #: Whether the stream has caught up with the log: from then on a commit is seen whole.
        self._synced = False
        self._calls = {call.call_id: call for call in calls}
        #: Turns that answer calls of ours. While there are any, no message of our turn is being written.
        self._children = set(children)
        #: Calls that a message made and that were not announced yet.
        self._expected: set[str] = set()
        #: Calls that were announced, held back until it is known whether they need approval.
        self._untold: dict[str, None] = {}
        #: How far each message being written was told: its attempt, and UTF-16 code units.
        self._texts: dict[UUID, tuple[int, int]] = {}

    def told(self, events: Sequence[Event]) -> Iterator[bytes]:
        """The chunks that tell of these events."""
        for event in events:
            if self.over:
                return
            payload = payload_of(event)
            if isinstance(payload, Heartbeat):
                yield _ALIVE
            for one in self._chunks(payload):
                yield sse_message(one)
        if self._synced and not self.over:
            for one in self._at_rest():
                yield sse_message(one)

    def _chunks(self, payload: Payload | None) -> Iterator[Chunk]:
        match payload:
            case Heartbeat() | None:
                return
            case Sync():
                self._synced = True
            case Disconnect():
                yield from self._cut(payload)
            case TaskStarted(parent_call_id=None):
                self._begun = self._begun or payload.message_id == self._origin.message_id
            case QueueChanged(change="removed") if payload.message_id == self._origin.message_id:
                yield self._done("cancelled")
            case AgentSwitched() if self._begun:
                yield _switched(payload)
                if self._origin.ends and payload.command_id == self._origin.command_id:
                    yield self._done("completed")
            case _:
                if self._begun:
                    yield from self._of_turn(payload)

    def _of_turn(self, payload: Payload) -> Iterator[Chunk]:
        """What a turn, or one that answers a call of it, does."""
        match payload:
            case MessageDelta(part="content") if not self._children:
                yield from self._token(payload)
            case MessageCreated(role="assistant"):
                yield from self._message(payload)
            case ToolCall():
                self._announced(payload)
            case ApprovalRequired():
                self._needs_approval(payload)
            case ApprovalResolved():
                self._decided(payload)
            case ToolResultEvent():
                self._calls.pop(payload.call_id, None)
            case TaskStarted():
                self._children.add(payload.turn_id)
            case TaskCompleted(parent_call_id=None):
                yield from self._completed(payload)
            case TaskCompleted():
                self._children.discard(payload.turn_id)
            case _:
                # What chunks have no word for.
                return

    def _token(self, delta: MessageDelta) -> Iterator[Chunk]:
        attempt, length = self._texts.get(delta.message_id, (delta.attempt, 0))
        if delta.attempt < attempt:
            return
        lacking = tail(delta, length if delta.attempt == attempt else 0)
        if lacking is not None:
            self._texts[delta.message_id] = (delta.attempt, lacking.offset + utf16_len(lacking.text))
            yield Chunk(type="assistant_message", token=lacking.text, is_final=False)

    def _message(self, message: MessageCreated) -> Iterator[Chunk]:
        self._texts.pop(message.message_id, None)
        self._expected.update(call.call_id for call in message.tool_calls or ())
        if message.parent_call_id is None and message.content:
            yield Chunk(type="assistant_message", content=message.content, is_final=True)

    def _announced(self, call: ToolCall) -> None:
        self._expected.discard(call.call_id)
        self._calls[call.call_id] = OpenCall(call.call_id, call.name, call.arguments, call.executor)
        self._untold[call.call_id] = None

    def _needs_approval(self, approval: ApprovalRequired) -> None:
        known = self._calls.get(approval.call_id)
        if known is None or not known.asked:
            executor = "server" if known is None else known.executor
            self._calls[approval.call_id] = OpenCall(
                approval.call_id, approval.name, approval.arguments, executor, asked=True
            )
            self._untold[approval.call_id] = None

    def _decided(self, resolved: ApprovalResolved) -> None:
        call = self._calls.get(resolved.call_id)
        if call is not None:
            final = call.arguments if resolved.arguments is None else resolved.arguments
            self._calls[resolved.call_id] = call._replace(arguments=final, asked=False)
            if call.executor == "client":
                # It has no result yet if it was allowed: then the client is told to run it.
                self._untold[resolved.call_id] = None

    def _at_rest(self) -> Iterator[Chunk]:
        """The calls that were held back; and the end, if the turn waits for the client."""
        if self._expected:
            return
        untold, self._untold = self._untold, {}
        for call in [self._calls[call_id] for call_id in untold if call_id in self._calls]:
            yield Chunk(
                type="tool_call",
                call_id=call.call_id,
                tool_name=call.name,
                arguments=call.arguments,
                requires_approval=call.asked,
                is_final=True,
                metadata=ChunkMetadata(executor=call.executor),
            )
        calls = self._calls.values()
        if any(call.asked or call.call_id in self.ours for call in calls):
            yield self._done("waiting")
        elif any(call.executor == "client" for call in calls):
            self.doubt()

    def _completed(self, completed: TaskCompleted) -> Iterator[Chunk]:
        if completed.status in {"failed", "interrupted"}:
            error = completed.error
            message = f"the turn was {completed.status}" if error is None else error.message
            code = completed.status if error is None else error.code
            yield Chunk(type="error", error=message, is_final=True, metadata=ChunkMetadata(code=code))
        yield self._done(completed.status)

    def _cut(self, farewell: Disconnect) -> Iterator[Chunk]:
        """The stream ends before the turn does."""
        metadata = ChunkMetadata(code=farewell.code, retry_after_ms=farewell.retry_after_ms)
        yield Chunk(type="error", error=farewell.reason, is_final=True, metadata=metadata)

    def _done(self, status: TurnOutcome | Literal["waiting"]) -> Chunk:
        self.over = True
        self.ended()
        return Chunk(type="done", is_final=True, metadata=ChunkMetadata(status=status))


def _nobody() -> None:
    """Nobody asked to be told."""


def _switched(switched: AgentSwitched) -> Chunk:
    metadata = ChunkMetadata(
        from_agent=switched.from_agent,
        to_agent=switched.to_agent,
        reason=switched.reason,
        confidence=switched.confidence,
    )
    return Chunk(type="agent_switched", is_final=True, metadata=metadata)
