"""The client for code without a loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar
from uuid import UUID

from protocol._override import override
from protocol.client.answer import Answer, Chunk, GrowingAnswer
from protocol.client.feed import Received
from protocol.client.http import Token
from protocol.client.portal import ClosedError, Portal
from protocol.client.session import Client, connect
from protocol.client.settings import Timings, Transport
from protocol.client.speaking import Remembered
from protocol.client.status import State, Status
from protocol.client.tools import Offered
from protocol.client.views import HistoryMessage, HistoryPage
from protocol.commands import Command, OnBusy
from protocol.envelope import Encoding
from protocol.events import Ack, ApprovalRequired, ClientInfo, Connected

__all__ = ["SyncAnswer", "SyncClient", "SyncEvents", "connect_sync"]

T = TypeVar("T")

#: Seconds for calls of other threads to learn that the client is closed.
_FAREWELL = 1.0


class Waiting(Generic[T]):
    """An iterator that waits in your thread for what comes in the client's; made by a client.

    Where it was given a timeout, an item that takes longer raises TimeoutError; it can be gone on with.
    """

    def __init__(self, portal: Portal, items: AsyncIterator[T], timeout: float | None = None) -> None:
        self._portal = portal
        self._items = items
        self._timeout = timeout

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        items = self._portal.run(self._next())
        if not items:
            raise StopIteration
        return items[0]

    async def _next(self) -> list[T]:
        # In the loop, where giving up and receiving cannot meet halfway.
        async with asyncio.timeout(self._timeout):
            async for item in self._items:
                return [item]
        return []


class SyncEvents(Waiting[Received]):
    """An iteration over a session's events; it ends when the client is closed."""

    @override
    def __next__(self) -> Received:
        try:
            return super().__next__()
        except ClosedError:
            raise StopIteration from None


class SyncAnswer(Waiting[Chunk]):
    """An answer that grows; made by `stream`. Iterate over its chunks, or `wait` for the whole.

    Raises what `ask` raises. Whoever leaves the loop may go on later, and does not stop the turn (`cancel` does).
    """

    def __init__(self, portal: Portal, answer: GrowingAnswer, timeout: float | None) -> None:
        super().__init__(portal, answer, timeout)
        self._answer = answer

    @property
    def so_far(self) -> Answer:
        """What came of it until now."""
        return self._answer

    def wait(self, timeout: float | None = None) -> Answer:
        """The complete answer. Raises TimeoutError when that takes longer; the turn goes on."""
        return self._portal.run(_complete(self._answer, timeout))

    def cancel(self) -> None:
        """Stop the turn, or take the message back where its turn has not begun."""
        self._portal.run(self._answer.cancel())


class SyncClient:
    """One session; made by `connect_sync`, used once, as a context manager.

    What `Client` says of its methods holds here; they wait. They may be called from any thread, also at the same time,
    and from code that runs under an event loop, which waits as well then.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._portal = Portal("parley-client")

    # --- life

    def __enter__(self) -> Self:
        """Connect. Raises ParleyError when the server refuses, ConnectionError when nobody answers for 10 seconds."""
        self._portal.start()
        try:
            self._portal.run(self._client.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave; may be called again, and from any thread. Iterations end, and no thread is left."""
        try:
            if self._portal.running:
                with suppress(ClosedError):  # another thread was first
                    self._portal.run(self._leave())
        finally:
            self._portal.stop()

    async def _leave(self) -> None:
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=_FAREWELL)

    def wake(self) -> None:
        """Try again now instead of waiting: the network is back, or somebody is impatient."""
        self._portal.run(_call(self._client.wake))

    # --- how it stands

    @property
    def session(self) -> str:
        """The session's id, or your name for it."""
        return self._client.session

    @property
    def client_id(self) -> str:
        """Your name for this client."""
        return self._client.client_id

    @property
    def state(self) -> State:
        """`connecting`, `open`, `reconnecting` or `closed`."""
        return self._client.state

    @property
    def status(self) -> Status:
        """The state, and in what way, why, and until when."""
        return self._client.status

    @property
    def transport(self) -> Transport | None:
        """The transport in use; None while there is no connection."""
        return self._client.transport

    @property
    def connected(self) -> Connected | None:
        """What the server said about session, agent and limits when the last connection began."""
        return self._client.connected

    @property
    def cursor(self) -> str | None:
        """Where you are: after the last durable event that iterating gave out."""
        return self._client.cursor

    @property
    def approvals(self) -> list[ApprovalRequired]:
        """The calls that wait for somebody's decision, the oldest first: `approve`, `edit`, `reject`, `respond`."""
        return self._client.approvals

    @property
    def clients(self) -> list[ClientInfo]:
        """Who is in the session now, and the tools that they offer."""
        return self._client.clients

    # --- tools

    def offer(self, *tools: Offered) -> None:
        """Offer these tools to the session's agents, in place of those before; without any, none."""
        self._portal.run(self._client.offer(*tools))

    def serve(self) -> None:
        """Run the tools and pass over everything else, until the client is closed."""
        with suppress(ClosedError):
            self._portal.run(self._client.serve())

    # --- receiving

    def __iter__(self) -> SyncEvents:
        return self.events()

    def events(self, timeout: float | None = None) -> SyncEvents:
        """Events from the first on that nobody has taken yet; several iterations at a time see the same.

        `timeout` is how many seconds each may take; then TimeoutError is raised.
        """
        try:
            events = self._portal.run(_call(self._client.__aiter__))
        except ClosedError:
            events = aiter(self._client)  # which is at its end
        return SyncEvents(self._portal, events, timeout)

    def ask(
        self,
        content: str,
        *,
        agent_type: str | None = None,
        on_busy: OnBusy = "enqueue",
        timeout: float | None = None,
    ) -> Answer:
        """Say something and wait for the whole answer. Raises AgentFailed when the turn ends otherwise than completed.

        Raises TimeoutError after `timeout` seconds; the turn goes on.
        """
        answer = self._client.ask(content, agent_type=agent_type, on_busy=on_busy)
        return self._portal.run(_complete(answer, timeout))

    def stream(
        self,
        content: str,
        *,
        agent_type: str | None = None,
        on_busy: OnBusy = "enqueue",
        timeout: float | None = None,
    ) -> SyncAnswer:
        """Say something and iterate over the answer as it grows.

            for chunk in session.stream("count to 20"):
                print(chunk.text, end="", flush=True)

        `timeout` is what each chunk may take, in seconds; then TimeoutError is raised, and one may go on.
        """
        answer = self._client.ask(content, agent_type=agent_type, on_busy=on_busy)
        return SyncAnswer(self._portal, answer, timeout)

    # --- sending

    def say(self, content: str, *, agent_type: str | None = None, on_busy: OnBusy = "enqueue") -> Ack:
        """Say something to the agent; what comes of it is in the events."""
        return self._portal.run(self._client.say(content, agent_type=agent_type, on_busy=on_busy))

    def cancel(self, turn_id: UUID | None = None) -> Ack:
        """Stop the running turn, or only if it is this one."""
        return self._portal.run(self._client.cancel(turn_id))

    def switch_agent(self, agent_type: str, reason: str | None = None) -> Ack:
        """Let another agent answer from the next turn on."""
        return self._portal.run(self._client.switch_agent(agent_type, reason))

    def reorder(self, message_ids: Sequence[UUID]) -> Ack:
        """Put the messages that wait for their turn into this order; it names all of them."""
        return self._portal.run(self._client.reorder(message_ids))

    def withdraw(self, message_id: UUID) -> Ack:
        """Take back a message that waits for its turn."""
        return self._portal.run(self._client.withdraw(message_id))

    def approve(self, call_id: str, *, remember: Remembered | None = None) -> Ack:
        """Let a call run as it was asked for."""
        return self._portal.run(self._client.approve(call_id, remember=remember))

    def edit(self, call_id: str, arguments: Mapping[str, Any]) -> Ack:
        """Let a call run with these arguments instead of its own."""
        return self._portal.run(self._client.edit(call_id, arguments))

    def reject(self, call_id: str, feedback: str | None = None, *, remember: Remembered | None = None) -> Ack:
        """Do not let a call run; `feedback` tells the agent why."""
        return self._portal.run(self._client.reject(call_id, feedback, remember=remember))

    def respond(self, call_id: str, text: str) -> Ack:
        """Answer in the tool's place: the text becomes the call's result, and nothing runs."""
        return self._portal.run(self._client.respond(call_id, text))

    def ping(self) -> float:
        """How many seconds a question and its answer take."""
        return self._portal.run(self._client.ping())

    def send(self, command: Command, *, timeout: float | None = 60.0) -> Ack:
        """Send a command until it is acknowledged; it takes effect once, however often it had to be sent."""
        return self._portal.run(self._client.send(command, timeout=timeout))

    # --- what was

    def history(self, *, after: str = "0", limit: int = 100) -> HistoryPage:
        """A page of the session's messages, oldest first; go on with `after=page.next` until that is None."""
        return self._portal.run(self._client.history(after=after, limit=limit))

    def messages(self, *, after: str = "0") -> Iterator[HistoryMessage]:
        """All of the session's messages, oldest first."""
        return Waiting(self._portal, self._client.messages(after=after))


def connect_sync(  # noqa: PLR0913 - as `connect`
    url: str,
    session: str | UUID | None = None,
    *,
    token: Token | None = None,
    transport: Transport | Literal["auto"] = "auto",
    after: str | None = None,
    client_id: str | None = None,
    encoding: Encoding = "json",
    batch: bool = True,
    timings: Timings | None = None,
    tools: Iterable[Offered] = (),
    journal: str | os.PathLike[str] | None = None,
    concurrency: int = 8,
) -> SyncClient:
    """The same as `connect`, for code without a loop; `with` connects it.

        with connect_sync("http://127.0.0.1:8080") as session:
            print(session.ask("hello").text)

    A function that returns tokens is called in the client's own thread. Tools run in threads of their own, but async
    functions in the client's.
    """
    client = connect(
        url,
        session,
        token=token,
        transport=transport,
        after=after,
        client_id=client_id,
        encoding=encoding,
        batch=batch,
        timings=timings,
        tools=tools,
        journal=journal,
        concurrency=concurrency,
    )
    return SyncClient(client)


async def _complete(answer: GrowingAnswer, timeout: float | None) -> Answer:
    async with asyncio.timeout(timeout):
        return await answer


async def _call(function: Callable[[], T]) -> T:
    """The function, called in the loop's thread."""
    return function()
