"""One session, followed and spoken to over whatever transport the network lets through."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Literal, Self
from uuid import UUID

from protocol._override import override
from protocol.client import settings
from protocol.client.answer import GrowingAnswer
from protocol.client.feed import Events, Feed
from protocol.client.http import Http, Token, path_of
from protocol.client.journal import Journal
from protocol.client.outbox import Outbox
from protocol.client.place import Place
from protocol.client.rest import Server
from protocol.client.runner import Runner
from protocol.client.settings import Options, Timings, Transport
from protocol.client.speaking import Speaker, new_id
from protocol.client.standing import Standing
from protocol.client.status import State, Status
from protocol.client.stream import Stream
from protocol.client.tools import Offered
from protocol.client.trouble import unreachable
from protocol.client.views import HistoryMessage, HistoryPage
from protocol.commands import Command, OnBusy, UserMessage
from protocol.delta import MessageText
from protocol.envelope import Encoding, Envelope
from protocol.errors import ParleyError
from protocol.events import Ack, ApprovalRequired, ClientInfo, Connected, Payload
from protocol.ids import parse_alias

__all__ = ["Client", "connect"]


class Client(Speaker):
    """One session; made by `connect`, used once, as an async context manager.

    Iterate to receive. While nobody does, some events wait, and then the server does. Iterating raises ParleyError
    when the server says that coming back is pointless, and ends after `close`.

    Commands raise ParleyError when they are refused, TimeoutError when no answer came in time, and ConnectionError
    when the client is closed. They may be sent while somebody iterates, and in the body of the loop.
    """

    def __init__(
        self,
        http: Http,
        session: str | None,
        after: str | None,
        options: Options,
        tools: Iterable[Offered] = (),
        journal: Journal | None = None,
    ) -> None:
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
        self._stream = Stream(http, options, Place(after), self._feed, self._outbox, self._notice)
        self._standing = Standing()
        self._journal = journal
        self._runner = Runner(
            self._outbox.send,
            options.client_id,
            journal=journal,
            concurrency=options.concurrency,
            is_connected=lambda: self._stream.transport is not None,
            fail=self._fail,
        )
        self._runner.take(tools)
        self._reader: asyncio.Task[None] | None = None

    # --- life

    async def __aenter__(self) -> Self:
        """Connect. Raises ParleyError when the server refuses, ConnectionError when nobody answers for 10 seconds."""
        if self._reader is not None or self._feed.ended:
            raise RuntimeError("a client is used once; call connect() again")
        if self._journal is not None:
            self._journal.open()
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
        if self._runner.tools:
            await self._offered()

    async def _offered(self) -> None:
        """Wait until the server knows the tools; not where there is more to read first than is held."""
        assert self._reader is not None, "there is a connection"
        waits = [asyncio.create_task(event.wait()) for event in (self._runner.registered, self._feed.stalled)]
        try:
            await asyncio.wait({self._reader, *waits}, timeout=self._timings.opening, return_when="FIRST_COMPLETED")
        finally:
            for wait in waits:
                wait.cancel()
        if self._feed.failure is not None:
            raise self._feed.failure

    async def _read(self) -> None:
        try:
            await self._stream.run()
        except Exception as error:  # noqa: BLE001 - whoever iterates or waits is told, whatever it was
            self._end(error)

    def _notice(self, envelope: Envelope, payload: Payload | None, size: int) -> None:
        self._standing.notice(payload)
        self._runner.notice(envelope, payload, size)

    def _fail(self, error: Exception) -> None:
        """Without its tools it is of no use."""
        self._end(error)
        if self._reader is not None:
            self._reader.cancel()

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
            await self._runner.close()
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

    @property
    def approvals(self) -> list[ApprovalRequired]:
        """The calls that wait for somebody's decision, the oldest first: `approve`, `edit`, `reject`, `respond`."""
        return list(self._standing.approvals.values())

    @property
    def clients(self) -> list[ClientInfo]:
        """Who is in the session now, and the tools that they offer."""
        return list(self._standing.clients.values())

    @property
    def running(self) -> list[str]:
        """The ids of the calls that this client has: they run, wait to be run, or their results are on the way."""
        return self._runner.running

    # --- tools

    async def offer(self, *tools: Offered) -> None:
        """Offer these tools to the session's agents, in place of those before; without any, none.

        Calls that run go on. Raises what `connect` raises for tools, and what `send` raises.
        """
        self._runner.take(tools)
        if self._reader is None and not self._feed.ended:
            return
        await self._runner.register()

    async def serve(self) -> None:
        """Run the tools and pass over everything else, until the client is closed.

            async with connect("http://127.0.0.1:8080", "my-session", tools=[read_file]) as session:
                await session.serve()

        For a client that does nothing but run tools: one that is not iterated over hears nothing after a while. Raises
        what iterating raises.
        """
        async for _ in self:
            pass

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
        return GrowingAnswer(self, UserMessage(id=new_id(), content=content, agent_type=agent_type, on_busy=on_busy))

    # --- sending

    @override
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
    tools: Iterable[Offered] = (),
    journal: str | os.PathLike[str] | None = None,
    concurrency: int = 8,
) -> Client:
    """A client of one session; `async with` connects it.

    Without a `session` a new one is made. `token` may be a function, also an async one, that returns the newest token.
    `transport` fixes one instead of finding out which works. `after` is the cursor at which to begin (`"0"`: with
    everything that was ever said), from now on when missing. `client_id` is who you are over reconnects; made up when
    missing. `encoding` and `batch` say how events come over WebSocket: `msgpack` is smaller, and in a batch several
    share a message.

    `tools` are what this client runs when an agent calls it: functions, or what `client_tool` makes of them;
    `concurrency` of them at a time. `journal` is a file that keeps what became of their calls, so that a program that
    is started again under its `client_id` runs none of them twice.

    Raises ValueError for an unusable address, cursor, client id or tool, TypeError for a function that is no tool.
    """
    if journal is not None and client_id is None:
        raise ValueError("journal: it needs a client_id, as a call is given again only to the client that had it")
    if concurrency < 1:
        raise ValueError(f"concurrency: at least 1 call has to run at a time, not {concurrency}")
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
        concurrency=concurrency,
    )
    http = Http(url, token, options.timings)
    noted = None if journal is None else Journal(journal)
    return Client(http, None if session is None else str(session), after, options, tools, noted)
