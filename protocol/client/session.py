"""One session, followed and spoken to over whatever transport the network lets through."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from protocol.client import settings
from protocol.client.answer import GrowingAnswer
from protocol.client.feed import Events, Feed
from protocol.client.http import Http, Token, path_of
from protocol.client.outbox import Outbox
from protocol.client.place import Place
from protocol.client.rest import Server
from protocol.client.settings import Options, Timings, Transport
from protocol.client.status import State, Status
from protocol.client.stream import Stream
from protocol.client.trouble import unreachable
from protocol.client.views import HistoryMessage, HistoryPage
from protocol.commands import Cancel, Command, OnBusy, Ping, QueueUpdate, SwitchAgent, UserMessage
from protocol.delta import MessageText
from protocol.envelope import Encoding
from protocol.errors import ParleyError
from protocol.events import Ack, Connected
from protocol.ids import parse_alias

__all__ = ["Client", "connect"]


class Client:
    """One session; made by `connect`, used once, as an async context manager.

    Iterate to receive. While nobody does, some events wait, and then the server does. Iterating raises ParleyError
    when the server says that coming back is pointless, and ends after `close`.

    Commands raise ParleyError when they are refused, TimeoutError when no answer came in time, and ConnectionError
    when the client is closed. They may be sent while somebody iterates, and in the body of the loop.
    """

    def __init__(self, http: Http, session: str | None, after: str | None, options: Options) -> None:
        #: Your name for this client, kept over reconnects.
        self.client_id = options.client_id
        #: The session's id, or your name for it.
        self.session = session or ""
        #: What is asked once and answered once, of the same server: other sessions, histories, agents.
        self.server = Server.over(http)
        self._http = http
        self._timings = options.timings
        self._named = session is not None
        self._feed = Feed(options.timings, after)
        self._outbox = Outbox(http, options)
        self._stream = Stream(http, options, Place(after), self._feed, self._outbox)
        self._reader: asyncio.Task[None] | None = None

    # --- life

    async def __aenter__(self) -> Self:
        """Connect. Raises ParleyError when the server refuses, ConnectionError when nobody answers for 10 seconds."""
        if self._reader is not None or self._feed.ended:
            raise RuntimeError("a client is used once; call connect() again")
        self._http.open()
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def _open(self) -> None:
        if not self._named:
            self.session = str((await self.server.create_session()).id)
        path_of(self.session)
        self._outbox.session = self._stream.session = self.session
        self._reader = asyncio.create_task(self._read(), name="parley-client")
        opened = asyncio.create_task(self._stream.opened.wait())
        try:
            await asyncio.wait({self._reader, opened}, timeout=self._timings.opening, return_when="FIRST_COMPLETED")
        finally:
            opened.cancel()
        if self._feed.failure is not None:
            raise self._feed.failure
        if not self._stream.opened.is_set():
            trouble = self._stream.trouble
            raise unreachable(self._http.url, trouble, self._timings.opening) from trouble

    async def _read(self) -> None:
        try:
            await self._stream.run()
        except Exception as error:  # noqa: BLE001 - whoever iterates or waits is told, whatever it was
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._outbox.end(error)
        self._feed.end(error)
        self._stream.watch.become(Status("closed", None, None if error is None else str(error)))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Leave; may be called again. Commands that wait for their answer raise ConnectionError."""
        self._end(None)
        try:
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.wait({self._reader})
        finally:
            await self._http.close()

    def wake(self) -> None:
        """Try again now instead of waiting: the network is back, or somebody is impatient."""
        self._stream.wake()

    # --- how it stands

    @property
    def state(self) -> State:
        """`connecting`, `open`, `reconnecting` or `closed`."""
        return self._stream.watch.status.state

    @property
    def status(self) -> Status:
        """The state, and in what way, why, and until when."""
        return self._stream.watch.status

    def changes(self) -> AsyncIterator[Status]:
        """The status as it is now, and each time that it changes, up to `closed`.

            async for status in session.changes():
                print(status.state, status.transport or status.reason)

        Who is slow misses what has passed meanwhile.
        """
        return self._stream.watch.changes()

    @property
    def transport(self) -> Transport | None:
        """The transport in use; None while there is no connection."""
        return self._stream.transport

    @property
    def connected(self) -> Connected | None:
        """What the server said about session, agent and limits when the last connection began."""
        return self._stream.connected

    @property
    def cursor(self) -> str | None:
        """Where the caller is: after the last durable event that iterating gave out. `after=` goes on from there."""
        return self._feed.cursor

    @property
    def texts(self) -> dict[UUID, MessageText]:
        """The texts of the messages that are being written, as far as iterating gave out their deltas."""
        return self._feed.texts

    # --- receiving

    def __aiter__(self) -> Events:
        """Events from the first on that nobody has taken yet; several iterations at a time see the same."""
        if self._reader is None and not self._feed.ended:
            raise RuntimeError("the client is not connected; use it in `async with`")
        return self._feed.listen()

    def ask(self, content: str, *, agent_type: str | None = None, on_busy: OnBusy = "enqueue") -> GrowingAnswer:
        """Say something and get the answer: whole, or as it grows.

            answer = await session.ask("what is in README.md?")
            print(answer.text)

            async for chunk in session.ask("count to 20"):
                print(chunk.text, end="", flush=True)

        Raises AgentFailed when the turn ends otherwise than completed. See `GrowingAnswer`.
        """
        return GrowingAnswer(self, UserMessage(id=_new_id(), content=content, agent_type=agent_type, on_busy=on_busy))

    # --- sending

    async def say(self, content: str, *, agent_type: str | None = None, on_busy: OnBusy = "enqueue") -> Ack:
        """Say something to the agent; what comes of it is in the events.

        `agent_type` lets another agent answer this once. `on_busy` decides what happens while a turn is running.
        """
        return await self.send(UserMessage(id=_new_id(), content=content, agent_type=agent_type, on_busy=on_busy))

    async def cancel(self, turn_id: UUID | None = None) -> Ack:
        """Stop the running turn, or only if it is this one."""
        return await self.send(Cancel(id=_new_id(), turn_id=turn_id))

    async def switch_agent(self, agent_type: str, reason: str | None = None) -> Ack:
        """Let another agent answer from the next turn on."""
        return await self.send(SwitchAgent(id=_new_id(), agent_type=agent_type, reason=reason))

    async def reorder(self, message_ids: Sequence[UUID]) -> Ack:
        """Put the messages that wait for their turn into this order; it names all of them."""
        return await self.send(QueueUpdate(id=_new_id(), order=list(message_ids)))

    async def withdraw(self, message_id: UUID) -> Ack:
        """Take back a message that waits for its turn."""
        return await self.send(QueueUpdate(id=_new_id(), remove=message_id))

    async def ping(self) -> float:
        """How many seconds a question and its answer take."""
        began = asyncio.get_running_loop().time()
        await self.send(Ping(id=_new_id()))
        return asyncio.get_running_loop().time() - began

    async def send(self, command: Command, *, timeout: float | None = 60.0) -> Ack:
        """Send a command until it is acknowledged; it takes effect once, however often it had to be sent.

        Raises ParleyError when it is refused, TimeoutError after `timeout` seconds: then it may have taken effect, and
        sending it again under the same id tells.
        """
        if self._reader is None and not self._feed.ended:
            raise ConnectionError("the client is not connected; use it in `async with`")
        return await self._outbox.send(command, timeout)

    # --- what was

    async def history(self, *, after: str = "0", limit: int = 100) -> HistoryPage:
        """A page of the session's messages, oldest first; go on with `after=page.next` until that is None."""
        return await self.server.history(self.session, after=after, limit=limit)

    def messages(self, *, after: str = "0") -> AsyncIterator[HistoryMessage]:
        """All of the session's messages, oldest first."""
        return self.server.messages(self.session, after=after)


def connect(  # noqa: PLR0913 - most calls name none of them
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
) -> Client:
    """A client of one session; `async with` connects it.

    Without a `session` a new one is made. `token` may be a function, also an async one, that returns the newest token.
    `transport` fixes one instead of finding out which works. `after` is the cursor at which to begin (`"0"`: with
    everything that was ever said), from now on when missing. `client_id` is who you are over reconnects; made up when
    missing. `encoding` and `batch` say how events come over WebSocket: `msgpack` is smaller, and in a batch several
    share a message.

    Raises ValueError for an unusable address, cursor or client id.
    """
    client_id = client_id or f"py-{secrets.token_hex(8)}"
    for name, value, parse in (("client_id", client_id, parse_alias), ("after", after, Place)):
        try:
            if value is not None:
                parse(value)
        except ParleyError as error:
            raise ValueError(f"{name}: {value!r} is not possible: {error.message}") from None
    options = Options(
        client_id=client_id,
        transport=None if transport == "auto" else transport,
        encoding=encoding,
        batch=batch,
        timings=timings or settings.DEFAULT,
    )
    http = Http(url, token, options.timings)
    return Client(http, None if session is None else str(session), after, options)


def _new_id() -> str:
    return secrets.token_hex(16)
