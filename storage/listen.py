"""LISTEN and NOTIFY: one connection of its own, beside the pool's, that hears what other processes say and says things.

A pool's connections come and go, and go to whoever asks; one that listens has to stay. It also speaks, as NOTIFY is a
transaction that waits for the disk like any other, and here nothing needs to reach it: on this connection a commit does
not wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self, TypeAlias
from uuid import UUID

import asyncpg

from protocol.errors import ErrorCode, ParleyError
from storage.pool import SERVER_SETTINGS, is_outage
from storage.queries import sql

__all__ = ["MAX_PAYLOAD", "Line"]

#: Bytes of one NOTIFY's payload: PostgreSQL refuses those of 8,000 and more (`NOTIFY_PAYLOAD_MAX_LENGTH`).
MAX_PAYLOAD: Final = 7_999

_CONNECT_TIMEOUT: Final = 10.0
#: What a statement on this connection may take, in seconds: it is also how a peer that is gone is noticed.
_STATEMENT_TIMEOUT: Final = 5.0
_CLOSE_TIMEOUT: Final = 2.0

_SETTINGS: Final = {
    **SERVER_SETTINGS,
    "synchronous_commit": "off",
    # It is idle for as long as nobody has anything to say.
    "idle_session_timeout": "0",
}

#: Called with the channel and the payload of a notification.
OnMessage: TypeAlias = Callable[[str, str], None]


class Line:
    """A connection that listens. Made by `open`; of no use any more once `lost` is set."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.lost = asyncio.Event()
        self._connection = connection
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, connect: str | Mapping[str, Any], channels: Sequence[str], on_message: OnMessage) -> Self:
        """Connect and listen to the channels. Raises ParleyError(UNAVAILABLE) when that cannot be done now."""
        arguments: dict[str, Any] = {"dsn": connect} if isinstance(connect, str) else dict(connect)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                connection = await asyncpg.connect(
                    **arguments, server_settings=_SETTINGS, command_timeout=_STATEMENT_TIMEOUT
                )
        except Exception as error:
            raise _translated(error) from error
        line = cls(connection)
        connection.add_termination_listener(lambda _: line.lost.set())
        try:
            for channel in channels:
                await connection.add_listener(channel, lambda _, __, name, payload: on_message(name, payload))
        except Exception as error:
            await line.close()
            raise _translated(error) from error
        return line

    async def notify(self, messages: Sequence[tuple[str, str]]) -> None:
        """Say things, each a channel and a payload of at most `MAX_PAYLOAD` bytes, in this order, in one transaction.

        Raises ParleyError(UNAVAILABLE); nobody knows then whether they were said.
        """
        async with self._turn:
            await self._run(self._connection.execute, "notify", *map(list, zip(*messages, strict=True)))

    async def others(self, worker_id: UUID) -> set[UUID]:
        """The live workers but this one. Raises ParleyError(UNAVAILABLE)."""
        async with self._turn:
            rows = await self._run(self._connection.fetch, "other_workers", worker_id)
        return {row[0] for row in rows}

    async def close(self) -> None:
        """Hang up."""
        with suppress(Exception):
            await self._connection.close(timeout=_CLOSE_TIMEOUT)
        if not self._connection.is_closed():
            self._connection.terminate()

    async def _run(self, method: Callable[..., Any], name: str, *arguments: object) -> Any:
        try:
            return await method(sql(name), *arguments)
        except Exception as error:
            raise _translated(error) from error


def _translated(error: Exception) -> Exception:
    # A queue of notifications that is full (54000) is no fault of ours either: somebody has not listened for long.
    away = isinstance(error, TimeoutError | asyncpg.ProgramLimitExceededError) or is_outage(error)
    return ParleyError(ErrorCode.UNAVAILABLE, f"the bus is away: {error}", retry_after=1) if away else error
