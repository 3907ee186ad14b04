"""Commands on their way to the server: each until it is acknowledged, in order, taking effect once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from protocol.client.backoff import Backoff
from protocol.client.http import Http, path_of
from protocol.client.links import Link
from protocol.client.settings import Options
from protocol.client.trouble import LOST, RETRYABLE, ViolationError
from protocol.codec import MAX_COMMAND_BYTES, MAX_NESTING, decode_command, encode_command
from protocol.commands import Command, Ping
from protocol.errors import ErrorCode, ParleyError
from protocol.events import Ack, CommandError, Limits

__all__ = ["Outbox"]

#: Failures of the server's own, with one command, before the caller is told; what passes by itself is waited for.
_TRIES: Final = 8
_SHORTEST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0


class _Attempts:
    """What became of a command so far."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self._backoff = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE)
        self._failures = 0

    def failed(self, error: Exception) -> float:
        """How long to wait before the next one; raises the error when there should be none."""
        self.trouble = error
        if not isinstance(error, ParleyError):
            return self._backoff.next()
        if error.code is ErrorCode.INTERNAL or isinstance(error, ViolationError):
            self._failures += 1
        elif error.code not in RETRYABLE:
            raise error
        if self._failures >= _TRIES:
            raise error
        return self._backoff.next(error.retry_after)


class Outbox:
    """Sends commands over the WebSocket where one is live, else by POST.

    One at a time, so that one which has to be sent again is not overtaken by the next; pings alone wait for nobody.
    """

    def __init__(self, http: Http, options: Options) -> None:
        #: The session's id, as soon as it is known.
        self.session = ""
        self.limits = Limits(max_command_bytes=MAX_COMMAND_BYTES, max_nesting=MAX_NESTING)
        self._http = http
        self._options = options
        self._link: Link | None = None
        self._order = asyncio.Lock()
        self._waiting: dict[str, asyncio.Future[Ack]] = {}
        self._ended = asyncio.Event()
        self._end: Exception = ConnectionError("the client was closed")

    # --- what the connection tells

    def attach(self, link: Link) -> None:
        """Commands can go over this connection."""
        self._link = link

    def detach(self, reason: str) -> None:
        """They cannot any more. Nobody knows whether those under way arrived: they are sent again."""
        self._link = None
        self._fail(ConnectionError(reason))

    def end(self, error: Exception | None = None) -> None:
        """Nothing can be sent any more, because of `error` if there is one; may be called again."""
        if not self._ended.is_set():
            self._end = error or self._end
            self._ended.set()
            self._fail(self._end)

    def answer(self, answer: Ack | CommandError) -> None:
        """Take the server's answer to a command."""
        reply = self._waiting.get(answer.id or "")
        if reply is None or reply.done():
            return
        if isinstance(answer, Ack):
            reply.set_result(answer)
            return
        code = ErrorCode.of(answer.code) or ErrorCode.PROTOCOL_ERROR
        wait = None if answer.retry_after_ms is None else answer.retry_after_ms / 1000
        self._refuse(reply, ParleyError(code, answer.message, path=answer.path, retry_after=wait, id=answer.id))

    def _fail(self, error: Exception) -> None:
        for reply in self._waiting.values():
            if not reply.done():
                self._refuse(reply, error)
        self._waiting.clear()

    @staticmethod
    def _refuse(reply: asyncio.Future[Ack], error: Exception) -> None:
        reply.set_exception(error)
        # Whoever waits takes it; where nobody does any more, it is no loss.
        reply.exception()

    # --- what the caller asks

    async def send(self, command: Command, timeout: float | None) -> Ack:
        """Send a command until it is acknowledged.

        Raises ParleyError when it is refused, TimeoutError after `timeout` seconds, ConnectionError when the client
        was closed, and what ended the connection for good.
        """
        if command.id is None:
            raise ValueError("a command that is to be acknowledged needs an id")
        data = self._encoded(command)
        attempts = _Attempts()
        try:
            async with asyncio.timeout(timeout):
                if isinstance(command, Ping):
                    return await self._until_answered(command.id, data, attempts)
                async with self._order:
                    return await self._until_answered(command.id, data, attempts)
        except TimeoutError:
            why = "" if attempts.trouble is None else f" ({attempts.trouble})"
            raise TimeoutError(
                f"the command {command.id!r} was not acknowledged within {timeout} s{why}; sending it again under its "
                "id tells whether it took effect"
            ) from attempts.trouble

    def _encoded(self, command: Command) -> dict[str, bytes]:
        """The command in both encodings. Raises ParleyError: what would be refused is not sent."""
        data = encode_command(command)
        decode_command(data, "json", self.limits.max_command_bytes, self.limits.max_nesting)
        msgpack = encode_command(command, "msgpack") if self._options.encoding == "msgpack" else b""
        return {"json": data, "msgpack": msgpack}

    async def _until_answered(self, command_id: str, data: dict[str, bytes], attempts: _Attempts) -> Ack:
        by_post = False
        while True:
            if self._ended.is_set():
                raise self._end
            try:
                return await self._deliver(command_id, data, by_post=by_post)
            except (ParleyError, *LOST) as error:
                pause = attempts.failed(error)
                # A WebSocket that brings events and no answers may be one that takes nothing.
                by_post = isinstance(error, TimeoutError)
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def _deliver(self, command_id: str, data: dict[str, bytes], *, by_post: bool) -> Ack:
        link = self._link
        if link is None or by_post:
            return await self._post(command_id, data["json"])
        async with asyncio.timeout(self._options.timings.answer), self._reply(command_id) as reply:
            await link.send(data[link.encoding])
            return await asyncio.shield(reply)

    @contextlib.asynccontextmanager
    async def _reply(self, command_id: str) -> AsyncIterator[asyncio.Future[Ack]]:
        reply = self._waiting.setdefault(command_id, asyncio.get_running_loop().create_future())
        try:
            yield reply
        finally:
            if self._waiting.get(command_id) is reply:
                del self._waiting[command_id]

    async def _post(self, command_id: str, data: bytes) -> Ack:
        path, query = path_of(self.session, "commands"), {"client_id": self._options.client_id}
        ack = await self._http.request("POST", path, Ack, query=query, body=data)
        if ack.id != command_id:
            raise ViolationError(f"{self._http.url} answered another command than it was sent")
        return ack
