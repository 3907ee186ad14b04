"""Clients as simple as they can be and still be right: a cursor, a reconnect, and a command id that is sent again.

They wait for no time: a lost connection is followed by the next one as soon as the server is there, and a command that
was not answered is sent again under its id until it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import aiohttp
import msgspec

from protocol.framing import NdjsonParser, SseParser
from protocol.ids import format_timestamp
from tests.support.checker import Ledger, MismatchError, View
from tests.support.process import LOST, ServerProcess

__all__ = ["TRANSPORTS", "Follower", "RefusedError", "Talker", "Transport"]

Transport = Literal["websocket", "sse", "ndjson"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("websocket", "sse", "ndjson")

_ACCEPT: Final = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}
#: Connections in a row that bring nothing; a server that is up and takes none is broken.
_MOST_FAILURES: Final = 50


class RefusedError(Exception):
    """A command was refused for good; the text is the error's code."""


class _LostError(Exception):
    """The connection ended before the answer to a command."""


class Follower:
    """Shows a view all frames of a session, over any number of connections."""

    def __init__(self, server: ServerProcess, view: View, transport: Transport) -> None:
        self.view = view
        self.transport = transport
        self.drops = 0
        self._server = server
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._opened = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._last_event_id = ""
        view.listeners.append(self._hear)

    async def run(self) -> None:
        """Follow the session for ever."""
        failures = 0
        while True:
            url = await self._server.address()
            before = self.view.connections
            try:
                await self._connect(url)
            except aiohttp.ClientResponseError as refusal:
                # The database is away; the readiness probe tells when it is back.
                if refusal.status != 503:
                    raise
                with contextlib.suppress(*LOST):  # killed meanwhile
                    await self._server.ready()
            except LOST:
                failures += 1
            finally:
                self.view.lost()
                self._drop()
            if self.view.connections > before:
                failures = 0
                self.drops += 1
            assert failures < _MOST_FAILURES, f"{self.view.name} cannot connect to a server that is up"

    async def once(self) -> None:
        """Follow the session up to the end of the replay."""
        synced = asyncio.Event()

        def hear(event_type: str, _: dict[str, Any]) -> None:
            if event_type == "sync":
                synced.set()

        self.view.listeners.append(hear)
        following = asyncio.create_task(self._connect(await self._server.address()))
        waiting = asyncio.create_task(synced.wait())
        await asyncio.wait({following, waiting}, return_when=asyncio.FIRST_COMPLETED)
        for task in (following, waiting):
            task.cancel()
        for result in await asyncio.gather(following, waiting, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        assert synced.is_set(), "the stream ended before its replay"

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command up a WebSocket; the payload of its ack or command_error. Raises _LostError."""
        while self._socket is None:
            self._opened.clear()
            await self._opened.wait()
        answer = self._waiting[command["id"]] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send_str(msgspec.json.encode(command).decode())
            payload: dict[str, Any] = await answer
        except LOST as error:
            raise _LostError from error
        finally:
            self._waiting.pop(command["id"], None)
        return payload

    async def _connect(self, url: str) -> None:
        url = f"{url}/sessions/{self.view.ledger.session_id}"
        after = {} if self.view.cursor is None else {"after": self.view.cursor}
        query = {"client_id": self.view.name, **after}
        if self.transport == "websocket":
            async with self._server.http.ws_connect(f"{url}/ws", params=query, max_msg_size=0) as self._socket:
                async for message in self._socket:
                    self.view.take(message.data)
            return
        headers = {"Accept": _ACCEPT[self.transport]}
        if self._last_event_id:
            # As a browser does: with the address that it began with, and the id that it saw last.
            query, headers = {"client_id": self.view.name}, {**headers, "Last-Event-ID": self._last_event_id}
        async with self._server.http.get(f"{url}/events", params=query, headers=headers) as response:
            response.raise_for_status()
            async for frame in self._frames(response):
                self.view.take(frame)

    async def _frames(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes | str]:
        if self.transport == "ndjson":
            lines = NdjsonParser()
            async for data in response.content.iter_any():
                for line in lines.feed(data):
                    yield line
            return
        events = SseParser()
        async for data in response.content.iter_any():
            for event in events.feed(data):
                yield event.data
                # The view has taken it: only what moves the cursor may bear an id, and that one must be the cursor.
                if event.id != self.view.cursor:
                    raise MismatchError(f"{self.view.name}: {event.event} with id {event.id} at {self.view.cursor}")
                self._last_event_id = event.id

    def _hear(self, event_type: str, payload: dict[str, Any]) -> None:
        if event_type == "connected":
            self._opened.set()
        elif event_type in {"ack", "command_error"}:
            assert "id" in payload, f"a command was not understood: {payload}"
            answer = self._waiting.get(payload["id"])
            if answer is not None and not answer.done():
                answer.set_result(payload)

    def _drop(self) -> None:
        self._socket = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection ended before the answer"))


class Talker:
    """Sends the commands of one session, each until it is answered; `sent` is called while an answer is waited for."""

    def __init__(
        self, server: ServerProcess, ledger: Ledger, socket: Follower, dice: random.Random, sent: Callable[[], None]
    ) -> None:
        self._server = server
        self._ledger = ledger
        self._socket = socket
        self._dice = dice
        self._sent = sent
        self._count = 0

    async def send(self, **command: Any) -> dict[str, Any]:
        """Send a command until it is answered; its ack. Raises RefusedError."""
        self._count += 1
        command["id"] = f"{command['type']}-{self._count}"
        answer = command.pop("answer", None)
        self._ledger.sent[command["id"]] = {**command, "answer": answer}
        counts = self._ledger.counts
        counts["commands"] += 1
        while True:
            # Another transport each time: what was lost on one is answered on the other.
            way = self._dice.choice((self._over_socket, self._over_post))
            try:
                ack = await way(command)
            except _LostError:
                counts["acks lost"] += 1
                await self._server.address()
                self._ledger.resent.setdefault(command["id"], format_timestamp(datetime.now(UTC)))
            except RefusedError as refusal:
                counts[f"refused: {refusal}"] += 1
                if str(refusal) != "unavailable":
                    raise
                await self._server.address()
                with contextlib.suppress(*LOST):  # killed again
                    await self._server.ready()
            else:
                self._ledger.acknowledged(command["id"], ack)
                return ack

    async def repeat(self, command_id: str) -> None:
        """Send an acknowledged command again, as a client does whose memory is older than the server's."""
        command = {key: value for key, value in self._ledger.sent[command_id].items() if key != "answer"}
        with contextlib.suppress(_LostError, RefusedError):
            self._ledger.acknowledged(command_id, await self._over_post(command))
            self._ledger.counts["repeats"] += 1

    async def _over_socket(self, command: dict[str, Any]) -> dict[str, Any]:
        asking = asyncio.ensure_future(self._socket.ask(command))
        self._sent()
        payload = await asking
        if "code" in payload:
            assert payload["code"] != "unavailable" or payload["retry_after_ms"] > 0, payload
            raise RefusedError(payload["code"])
        return payload

    async def _over_post(self, command: dict[str, Any]) -> dict[str, Any]:
        asking = asyncio.ensure_future(self._post(command))
        self._sent()
        return await asking

    async def _post(self, command: dict[str, Any]) -> dict[str, Any]:
        url = f"{await self._server.address()}/sessions/{self._ledger.session_id}/commands"
        query = {"client_id": self._socket.view.name}
        try:
            async with self._server.http.post(url, json=command, params=query) as response:
                body = msgspec.json.decode(await response.read())
        except LOST as error:
            raise _LostError from error
        if response.status != 200:
            assert response.status != 503 or int(response.headers["Retry-After"]) >= 1, body
            raise RefusedError(body["code"])
        return dict(body)
