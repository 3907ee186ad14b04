"""The answer to one message: whole, or as it grows."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias
from uuid import UUID

from msgspec import Struct

from protocol.client.feed import Events, Received
from protocol.commands import UserMessage
from protocol.delta import MessageText, tail
from protocol.errors import ErrorCode, ParleyError
from protocol.events import (
    Ack,
    MessageCreated,
    MessageDelta,
    QueueChanged,
    ResyncRequired,
    TaskCompleted,
    TaskStarted,
    ToolCall,
    ToolProgressEvent,
    ToolResultEvent,
    TurnError,
    Usage,
)

if TYPE_CHECKING:
    from protocol.client.session import Client

__all__ = ["AgentFailed", "Answer", "Chunk", "Failure", "GrowingAnswer"]

#: Why there is no (whole) answer. `withdrawn`: somebody took the message back before its turn came. `lost`: the log
#: went back in time, or was trimmed, and nobody can tell any more.
Failure: TypeAlias = Literal["cancelled", "failed", "interrupted", "withdrawn", "lost"]

#: Between the messages of an answer.
_SEPARATOR: Final = "\n\n"


class AgentFailed(Exception):  # noqa: N818 - it is what happened, not an error of ours
    """A question was not answered, or not to the end; `answer` has what there is.

    `code` is the turn's own, or the status when it has none.
    """

    def __init__(self, status: Failure, code: str, message: str, answer: Answer) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.answer = answer


class Chunk(Struct, frozen=True):
    """What an event adds to an answer.

    Printing the `text` of each chunk prints the answer. `restarted`: what came of this message so far no longer
    stands, as another process began it anew; `text` is all that there is of it now. `reasoning` is what the agent
    thinks. `event` is behind all that: `match chunk.event.payload` tells of tool calls, their results, approvals.
    """

    event: Received
    text: str = ""
    reasoning: str = ""
    restarted: bool = False


class Answer:
    """What came of a message so far; its `str()` is its text."""

    def __init__(self) -> None:
        #: The server's acknowledgement of the message.
        self.ack: Ack | None = None
        self.turn_id: UUID | None = None
        #: The messages of the answer that are complete; an agent that calls tools writes several.
        self.messages: list[MessageCreated] = []
        self.calls: list[ToolCall] = []
        #: The calls' results, by `call_id`.
        self.results: dict[str, ToolResultEvent] = {}
        #: What the turn has cost, once it is over.
        self.usage: Usage | None = None
        #: Whether there will be no more.
        self.done = False
        self._writing: MessageText | None = None

    @property
    def text(self) -> str:
        """What was said so far, all messages of it."""
        texts = [message.content for message in self.messages]
        if self._writing is not None:
            texts.append(self._writing.text())
        return _SEPARATOR.join(text for text in texts if text)

    def __str__(self) -> str:
        return self.text


class GrowingAnswer(Answer):
    """An answer that is waited for; made by `ask`.

    Nothing is sent before it is awaited or iterated over. Awaiting it gives the complete answer. Iterating gives chunks
    until the turn is over; whoever leaves the loop may go on later, and does not stop the turn (`cancel` does).
    Reconnects and other people's turns in the session do not show.

    It takes events as any other iteration does: those of before the question that nobody iterated over are passed over.

    Raises AgentFailed when the turn ends otherwise than completed, and what iterating and sending raise.
    """

    def __init__(self, client: Client, command: UserMessage) -> None:
        super().__init__()
        self._client = client
        self._command = command
        self._events: Events | None = None
        self._error: TurnError | None = None
        self._failed: AgentFailed | None = None
        #: Turns of agents that ours asked, those of them that run, and what was written in them.
        self._others: set[UUID] = set()
        self._running: set[UUID] = set()
        self._theirs: set[UUID] = set()

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._finish().__await__()

    async def _finish(self) -> Answer:
        async for _ in self:
            pass
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        chunk = None
        while chunk is None:
            if self._failed is not None:
                raise self._failed
            if self.done:
                raise StopAsyncIteration
            chunk = self._take(await self._next())
        return chunk

    async def _next(self) -> Received:
        if self._events is None:
            # Before the message is sent, so that nobody else takes what comes of it.
            self._events = aiter(self._client)
            self._events.skip()
        if self.ack is None:
            self.ack = await self._client.send(self._command)
        async for event in self._events:
            return event
        raise ConnectionError("the client was closed before the answer was complete")

    async def cancel(self) -> None:
        """Stop the turn, or take the message back where its turn has not begun. Nothing happens when it is over.

        Raises what sending raises.
        """
        if self._events is None:
            self._fail("withdrawn", "withdrawn", "the message was taken back before it was sent")
        if self.done:
            return
        if self.ack is None:
            # It may have arrived; the same id gets the same reply.
            self.ack = await self._client.send(self._command)
        if self.ack.status == "queued" and self.turn_id is None and await self._withdrawn(self.ack):
            return
        while self.turn_id is None and self.ack.turn_id is None and not self.done:
            self._take(await self._next())
        turn_id = self.turn_id or self.ack.turn_id
        if turn_id is not None:
            await self._harmless(self._client.cancel(turn_id))

    async def _withdrawn(self, ack: Ack) -> bool:
        return ack.message_id is not None and await self._harmless(self._client.withdraw(ack.message_id))

    @staticmethod
    async def _harmless(command: Awaitable[Ack]) -> bool:
        """Whether the command took effect; it does not where what it is about is over."""
        try:
            await command
        except ParleyError as error:
            if error.code not in {ErrorCode.NO_ACTIVE_TURN, ErrorCode.NOT_FOUND, ErrorCode.ALREADY_RESOLVED}:
                raise
            return False
        return True

    # --- events

    def _take(self, event: Received) -> Chunk | None:
        """What an event means for this answer; None if nothing."""
        match event.payload:
            case TaskStarted(message_id=message_id, turn_id=turn_id) if self._is_question(message_id):
                self.turn_id = turn_id
            case TaskStarted(parent_call_id=str(), turn_id=turn_id) if self.turn_id is not None:
                # One turn of a session runs at a time, and those that it asked.
                self._others.add(turn_id)
                self._running.add(turn_id)
                return Chunk(event)
            case MessageCreated(message_id=message_id, turn_id=UUID() as turn_id) if self._is_question(message_id):
                self.turn_id = turn_id
            case QueueChanged(change="removed", message_id=UUID() as message_id) if self._is_question(message_id):
                self._fail("withdrawn", "withdrawn", "the message was taken back before its turn came")
            case ResyncRequired(reason=reason):
                self._fail("lost", reason, "the server's log does not go on; the history tells what is known")
            case _ if self._is_ours(event):
                return self._grow(event)
            case _:
                pass
        return None

    def _is_question(self, message_id: UUID) -> bool:
        return self.ack is not None and message_id == self.ack.message_id

    def _is_ours(self, event: Received) -> bool:
        if self.turn_id is None:
            return False
        match event.payload:
            case MessageDelta(message_id=message_id):
                # A session's turns come one after the other: what is written from our turn's beginning on is ours,
                # or another agent's, while ours waits for it.
                if self._running:
                    self._theirs.add(message_id)
                return all(message.message_id != message_id for message in self.messages)
            case ToolProgressEvent(call_id=call_id):
                return any(call.call_id == call_id for call in self.calls)
            case payload:
                turn_id = getattr(payload, "turn_id", None)
                return turn_id == self.turn_id or turn_id in self._others

    def _grow(self, event: Received) -> Chunk:
        match event.payload:
            case MessageDelta(message_id=message_id) if message_id in self._theirs:
                return Chunk(event)
            case payload if getattr(payload, "turn_id", None) in self._others:
                # What another agent does is no part of the answer, but approvals, for one, are somebody's to decide.
                if isinstance(payload, TaskCompleted):
                    self._running.discard(payload.turn_id)
                return Chunk(event)
            case MessageDelta() as delta:
                return self._write(event, delta)
            case MessageCreated(role="assistant") as message:
                return self._complete(event, message)
            case ToolCall() as call:
                self.calls.append(call)
            case ToolResultEvent() as result:
                self.results[result.call_id] = result
            case TurnError() as error:
                self._error = error
            case TaskCompleted() as task:
                self._end(task)
            case _:
                pass
        return Chunk(event)

    def _write(self, event: Received, delta: MessageDelta) -> Chunk:
        if self._writing is None or self._writing.message_id != delta.message_id:
            self._writing = MessageText(delta.message_id)
        writing = self._writing
        attempt, stood = writing.attempt, bool(writing.text() or writing.text("reasoning"))
        length = writing.length(delta.part, delta.call_id)
        writing.apply(delta)
        restarted = stood and writing.attempt != attempt
        if writing.attempt != attempt:
            length = 0
        added = tail(delta, length) if writing.length(delta.part, delta.call_id) > length else None
        text = "" if added is None else added.text
        match delta.part:
            case "content":
                return Chunk(event, text=self._separated(text, first=length == 0), restarted=restarted)
            case "reasoning":
                return Chunk(event, reasoning=text, restarted=restarted)
            case "arguments":
                return Chunk(event, restarted=restarted)

    def _complete(self, event: Received, message: MessageCreated) -> Chunk:
        """The whole message: it has the last word."""
        ours = self._writing is not None and self._writing.message_id == message.message_id
        shown = self._writing.text() if self._writing is not None and ours else ""
        self._writing = None
        restarted = not message.content.startswith(shown)
        rest = message.content if restarted else message.content[len(shown) :]
        text = self._separated(rest, first=restarted or not shown)
        self.messages.append(message)
        return Chunk(event, text=text, restarted=restarted)

    def _separated(self, text: str, *, first: bool) -> str:
        """The first piece of a later message stands apart from the message before."""
        return _SEPARATOR + text if first and text and any(message.content for message in self.messages) else text

    def _end(self, task: TaskCompleted) -> None:
        self.usage = task.usage
        self._stop()
        if task.status == "completed":
            return
        error = task.error or self._error
        if error is None:
            self._fail(task.status, task.status, f"the turn was {task.status}")
        else:
            self._fail(task.status, error.code, error.message)

    def _fail(self, status: Failure, code: str, message: str) -> None:
        self._stop()
        self._failed = AgentFailed(status, code, message, self)

    def _stop(self) -> None:
        self.done = True
        if self._events is not None:
            self._events.close()
