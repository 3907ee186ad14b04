"""The connection: kept up, whatever it costs, until the server says that this is pointless."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Final, Never

import aiohttp

from protocol.client.backoff import Backoff
from protocol.client.choice import Choice, Phase
from protocol.client.feed import Feed, Received
from protocol.client.http import Http, path_of
from protocol.client.links import Link, open_stream, open_websocket
from protocol.client.outbox import Outbox
from protocol.client.place import Place
from protocol.client.settings import Options, Transport
from protocol.client.status import Status, Watch
from protocol.client.trouble import LOST, Verdict, ViolationError, code_of, judge, reason_of
from protocol.codec import encode_command
from protocol.commands import Ping
from protocol.envelope import Envelope, decode_event
from protocol.errors import ErrorCode, ParleyError
from protocol.events import (
    EVENTS,
    Ack,
    CommandError,
    Connected,
    Disconnect,
    Heartbeat,
    Payload,
    ResyncRequired,
    Sync,
)

__all__ = ["Stream"]

#: Connections in a row that end because the other side does not speak the protocol.
_MOST_VIOLATIONS: Final = 5
#: Tokens in a row that are refused, each newer than the one before.
_MOST_TOKENS: Final = 3
#: Seconds; what a server may say between heartbeats, so that neither pings nor silence get out of hand.
_SHORTEST_HEARTBEAT: Final = 0.1
_LONGEST_HEARTBEAT: Final = 300.0
#: Not for those who iterate: answers to commands, and signs of life.
_UNTOLD: Final = (Ack, CommandError, Heartbeat)

#: Told of each event as it comes, with its size in bytes.
Notice = Callable[[Envelope, Payload | None, int], None]


class Stream:
    """One connection after the other, and what comes over them: events to the feed, answers to the outbox."""

    def __init__(self, http: Http, options: Options, place: Place, feed: Feed, outbox: Outbox, notice: Notice) -> None:
        self.session = ""
        #: The transport in use; None while there is no connection.
        self.transport: Transport | None = None
        #: What the server said when the last connection began.
        self.connected: Connected | None = None
        #: Set as soon as there is or was a connection.
        self.opened = asyncio.Event()
        self.watch = Watch()
        #: Why there is no connection.
        self.trouble: Exception | None = None
        self._http = http
        self._options = options
        self._timings = options.timings
        self._place = place
        self._feed = feed
        self._outbox = outbox
        self._notice = notice
        self._choice = Choice(options.transport, http.url, options.timings.websocket_again)
        self._backoff = Backoff(options.timings.shortest_pause, options.timings.longest_pause)
        self._wake = asyncio.Event()
        self._phase: Phase = "opening"
        self._since = 0.0
        self._heartbeat = 15.0
        self._farewell: Disconnect | None = None
        self._violations = 0
        self._refused_tokens = 0

    def wake(self) -> None:
        """Try again now instead of waiting."""
        self._wake.set()

    async def run(self) -> None:
        """Keep a connection. Raises what makes it pointless to come back."""
        while True:
            transport = self._choice.pick()
            self._phase, self._farewell = "opening", None
            verdict = judge(await self._connection(transport), self._farewell)
            self.trouble = verdict.error
            at_once = self._blame(transport, verdict)
            if await self._is_over(verdict, at_once=at_once):
                raise verdict.error
            await self._pause(0.0 if at_once else self._backoff.next(verdict.wait))

    # --- after a connection

    def _blame(self, transport: Transport, verdict: Verdict) -> bool:
        """Draw conclusions about the transport; whether to try the other one at once."""
        stable = self._phase == "live" and asyncio.get_running_loop().time() - self._since > self._timings.stable
        if stable:
            self._backoff.reset()
            self._choice.proved()
        if verdict.explained or stable:
            self._choice.ended()
            return False
        return self._choice.failed(transport, self._phase)

    async def _is_over(self, verdict: Verdict, *, at_once: bool) -> bool:
        error = verdict.error
        if isinstance(error, ViolationError):
            self._violations += 1
            return not at_once and (self.connected is None or self._violations >= _MOST_VIOLATIONS)
        if isinstance(error, ParleyError) and error.code in {ErrorCode.UNAUTHORIZED, ErrorCode.TOKEN_EXPIRED}:
            self._refused_tokens += 1
            return self._refused_tokens > _MOST_TOKENS or (verdict.final and not await self._is_renewed())
        return verdict.final

    async def _is_renewed(self) -> bool:
        try:
            return await self._http.renewed()
        except LOST:
            return True  # whoever gives out tokens is away; the next try asks again

    async def _pause(self, seconds: float) -> None:
        state = self.watch.status.state
        reason = reason_of(self.trouble, self._timings.opening)
        self.watch.become(Status("connecting" if state == "connecting" else "reconnecting", None, reason, seconds))
        # One who wakes us again and again is no reason to hurry.
        least = min(seconds, self._timings.shortest_pause)
        self._wake.clear()
        await asyncio.sleep(least)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - least):
                await self._wake.wait()

    # --- a connection

    async def _connection(self, transport: Transport) -> Exception:
        """One connection, from its opening to its end, and why it ended."""
        try:
            await self._follow(transport)
        except (ParleyError, *LOST) as error:
            return error
        finally:
            self.transport = None
            self._outbox.detach("the connection was lost")

    async def _follow(self, transport: Transport) -> Never:
        async with self._link(transport) as link, aclosing(link.frames()) as frames, self._pulse(transport, link):
            self.transport = transport
            patience = self._timings.opening
            if transport == "ws" and not self._choice.is_fixed:
                patience = self._timings.opening_websocket
            while True:
                async with asyncio.timeout(patience):
                    frame = await anext(frames)
                await self._take(frame, transport, link)
                patience = 2 * self._heartbeat + self._timings.grace

    @asynccontextmanager
    async def _link(self, transport: Transport) -> AsyncIterator[Link]:
        query = {"client_id": self._options.client_id}
        if self._place.cursor is not None:
            query["after"] = self._place.cursor
        path = path_of(self.session)
        if transport != "ws":
            async with open_stream(self._http, path, query, transport, self._options) as link:
                yield link
            return
        try:
            async with open_websocket(self._http, path, query, self._options) as link:
                yield link
        except aiohttp.WSServerHandshakeError as error:
            # Its words are lost. If it is not WebSocket alone that is unwelcome, this raises them.
            await self._http.request("GET", path, object)
            if error.status == ErrorCode.UNAUTHORIZED.status:
                raise ParleyError(ErrorCode.TOKEN_EXPIRED, "the token was refused; there is a newer one") from error
            if self._choice.is_fixed:
                raise ParleyError(code_of(error.status), f"the server answered {error.status}") from error
            raise

    @asynccontextmanager
    async def _pulse(self, transport: Transport, link: Link) -> AsyncIterator[None]:
        """Let the server hear from us: silence counts as loss on both sides."""

        async def ping() -> None:
            with suppress(*LOST):  # the reader of the connection hears of it too
                while True:
                    await asyncio.sleep(self._heartbeat)
                    await link.send(encode_command(Ping(), link.encoding))

        if transport != "ws":
            yield
            return
        pulse = asyncio.create_task(ping(), name="parley-client:pulse")
        try:
            yield
        finally:
            pulse.cancel()
            await asyncio.gather(pulse, return_exceptions=True)

    # --- a frame

    async def _take(self, frame: bytes, transport: Transport, link: Link) -> None:
        envelope = _envelope(frame, link)
        payload = _payload(envelope, link)
        if self._phase == "opening" and not isinstance(payload, Connected | Disconnect):
            raise ViolationError(f"the server began with {envelope.event_type!r} instead of 'connected'")
        if envelope.cursor is not None and not self._is_next(envelope.cursor):
            return
        match payload:
            case Ack() | CommandError():
                self._outbox.answer(payload)
            case Connected():
                self._begin(payload)
            case Sync():
                self._synced(payload, transport, link)
            case ResyncRequired():
                with _as_violation("resync_required"):
                    self._place.move(payload.cursor)
            case Disconnect():
                self._farewell = payload
            case _:
                pass
        if not isinstance(payload, _UNTOLD):
            # At once, whenever it may be taken.
            self._notice(envelope, payload, len(frame))
            await self._tell(Received(envelope, payload, frame), transport, link)

    async def _tell(self, event: Received, transport: Transport, link: Link) -> None:
        if not self._feed.full:
            await self._feed.put(event)
            return
        # While the caller does not take events no answer is read: commands go over POST meanwhile.
        self._outbox.detach("the connection is not read at the moment")
        await self._feed.put(event)
        if transport == "ws" and self._phase == "live":
            self._outbox.attach(link)

    def _begin(self, connected: Connected) -> None:
        with _as_violation("connected"):
            self._place.begin(connected.cursor)
        heartbeat = connected.heartbeat_interval_ms / 1000
        self._heartbeat = min(max(heartbeat, _SHORTEST_HEARTBEAT), _LONGEST_HEARTBEAT)
        self._outbox.limits = connected.limits
        self._phase = "syncing"
        self._refused_tokens = 0
        self.connected = connected
        self.opened.set()

    def _synced(self, sync: Sync, transport: Transport, link: Link) -> None:
        with _as_violation("sync"):
            complete = self._place.reaches(sync.through)
        if not complete:
            raise ViolationError(f"events are missing between {self._place.cursor} and {sync.through}")
        self._phase, self._since = "live", asyncio.get_running_loop().time()
        self._violations = 0
        self._choice.worked(transport)
        if transport == "ws":
            self._outbox.attach(link)
        self.watch.become(Status("open", transport))

    def _is_next(self, cursor: str) -> bool:
        """Move on to a durable event; False for one that was there before."""
        before = self._place.cursor
        with _as_violation("an event's cursor"):
            standing = self._place.take(cursor)
        if standing == "gap":
            raise ViolationError(f"events are missing between {before} and {cursor}")
        return standing == "next"


@contextmanager
def _as_violation(what: str) -> Iterator[None]:
    """What cannot be read was said by somebody who does not speak the protocol."""
    try:
        yield
    except ParleyError as error:
        raise ViolationError(f"{what}: {error.message}") from error


def _envelope(frame: bytes, link: Link) -> Envelope:
    try:
        return decode_event(frame, link.encoding)
    except ParleyError as error:
        raise ViolationError(error.message) from error


def _payload(envelope: Envelope, link: Link) -> Payload | None:
    """The payload, if this version can read it: a newer server may have said something new in an old place.

    What the connection depends on has to be readable.
    """
    try:
        return envelope.decode(link.encoding)
    except ParleyError as error:
        if EVENTS[envelope.event_type].kind == "control":
            raise ViolationError(error.message) from error
        return None
