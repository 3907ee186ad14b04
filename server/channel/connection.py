"""A stream as a response of the framework, and the socket under it, to which the channel writes whole frames."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable
from contextlib import ExitStack, suppress
from typing import Any, Final, Self

import structlog
from aiohttp import web

from protocol._override import override
from protocol.errors import ErrorCode
from protocol.events import Disconnect
from server.channel.streams import Opening, tune
from server.channel.subscriber import Subscriber, Wire
from server.observe.access import log_left
from server.services import SERVICES

__all__ = ["Connection"]

_log: Final = structlog.stdlib.get_logger("server.channel")


class Connection(web.StreamResponse):
    """What the handler of a stream returns once the stream is up: a response that lives before it ends.

    The framework ends each response by calling `write_eof` when its handler has returned, and this one is over when
    the stream is. So handler and middlewares are done when the stream begins, and no frames of theirs wait for its end
    (1.5 KiB each).
    """

    # Slots, although the framework's attributes are in a dict: with more than 30 names it would not share its keys with
    # others of its class, and have 1.5 KiB.
    __slots__ = ("_began", "_drainer", "_hub", "_request", "_session_id", "socket", "subscriber", "wire")

    socket: asyncio.Transport
    subscriber: Subscriber
    wire: Wire

    async def open(self, request: web.Request, opening: Opening, wire: Wire) -> Self:
        """Send the head and begin to listen.

        Raises ParleyError before anything is sent when there is no place for the stream, and ConnectionError.
        """
        hub, session_id = opening.services.hub, opening.session.session_id
        with ExitStack() as undo:
            hub.enter(session_id)
            undo.callback(hub.leave, session_id)
            tune(request, hub.settings)
            await self.prepare(request)
            if request.transport is None:
                raise ConnectionResetError("the client went away while its stream was set up")
            # Nobody reads them again, and nobody waits for a request on this connection before the stream is over.
            self.headers.clear()
            request.protocol.keep_alive(False)
            self.wire = wire
            self.socket = request.transport
            self.subscriber = opening.subscriber(self)
            self._request = request
            self._hub = hub
            self._session_id = session_id
            self._began = self.subscriber.heard_at
            self._drainer: asyncio.Task[None] | None = None
            undo.callback(hub.unsubscribe, self.subscriber)
            opening.begin(self.subscriber)
            undo.pop_all()
        return self

    @override
    async def write_eof(self, data: bytes = b"") -> None:
        """Live, and end with the stream. For the framework, once."""
        try:
            try:
                while await self._take(await self._next()):
                    ...
                await self._finish()
            finally:
                self._hub.unsubscribe(self.subscriber)
                self._leave()
                await self._release()
        except asyncio.CancelledError:
            log_left(self._request, self._hub.clock.monotonic() - self._began)
            raise
        except ConnectionError:
            # The framework knows what that means, and logs the request as it does then.
            raise
        except Exception:  # noqa: BLE001 - logged whole; the only answer that a stream still has is its end
            _log.exception("a stream failed", path=self._request.path)
            self.socket.abort()
        finally:
            self._hub.leave(self._session_id)

    @abstractmethod
    def _next(self) -> Awaitable[Any]:
        """What the stream waits for. Not a coroutine of ours, whose frame would wait as well."""

    @abstractmethod
    async def _take(self, message: Any) -> bool:
        """Make something of what has come; whether there may be more."""

    @abstractmethod
    async def _finish(self) -> None:
        """End the response in the way of the protocol."""

    # --- what the channel calls

    @property
    def name(self) -> str:
        """`websocket`, `sse` or `ndjson`."""
        return "websocket" if self.wire.is_websocket else self.wire.framing

    @override
    async def drain(self) -> None:
        """Return when there is room again, or the connection is lost."""
        # aiohttp lets all who wait share one future, which the first of them to be cancelled would cancel for all.
        if self._drainer is None or self._drainer.done():
            self._drainer = asyncio.create_task(self._drain(), name="channel:drain")
        await asyncio.shield(self._drainer)

    @abstractmethod
    def end(self, code: ErrorCode, farewell: Disconnect) -> None:
        """Begin to end the stream. Idempotent."""

    # --- for those who derive

    async def _write_eof(self) -> None:
        """End the response as the framework does."""
        await super().write_eof()

    async def _release(self) -> None:
        """Give back what the connection holds, at the very end."""
        if self._drainer is not None:
            self._drainer.cancel()
            await asyncio.wait({self._drainer})

    def _leave(self) -> None:
        """Let others know that the client has a connection less."""
        presence, subscriber = self._request.app[SERVICES].presence, self.subscriber
        presence.leave(self._session_id, subscriber.client_id, subscriber.grant.user_id)

    async def _drain(self) -> None:
        # A connection that is lost has no backlog any more: whoever waits looks at its socket next.
        with suppress(ConnectionError):
            await self._request.writer.drain()
