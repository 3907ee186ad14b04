"""Connections to one database, kept open and lent for a statement at a time.

asyncpg's own pool makes a task to lend a connection within a bounded time, another to take it back, and a proxy around
it: more work for this process than the statement in between. Here lending one that is idle waits for nothing, and so
does giving it back.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple, TypeAlias

import asyncpg

__all__ = ["Connection", "Connections"]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

#: Seconds after which a connection that nobody needed is closed; one is kept.
_IDLE_LIFETIME: Final = 300.0
#: How long the server may take to roll a transaction back that was left open, in seconds.
_ROLLBACK_PATIENCE: Final = 5.0
#: How often, in seconds, it is looked for who waits, or has a connection, for too long. One timer for all: one for each
#: statement would cost as much as sending it.
_SWEEP: Final = 0.25


class _Waiter(NamedTuple):
    """Who waits until then (the loop's seconds) for a connection, or for None: a place to make one in."""

    served: asyncio.Future[Connection | None]
    until: float


class _Idle(NamedTuple):
    """A connection that waits to be lent, and since when (the loop's seconds)."""

    connection: Connection
    since: float


class Connections:
    """At most `max_size` connections, made by `connect` when they are needed.

    Whoever has to wait is served in the order of coming. A connection that was lost is never lent: it leaves its place
    to a new one. Belongs to one event loop.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], max_size: int) -> None:
        self._connect = connect
        self._max_size = max_size
        self._loop = asyncio.get_running_loop()
        #: Connections that are idle, lent, being made or being settled.
        self._size = 0
        # The one that was used last is lent first: the others may grow old.
        self._idle: deque[_Idle] = deque()
        self._waiting: deque[_Waiter] = deque()
        # Until when each is lent.
        self._lent: dict[Connection, float] = {}
        self._settling: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty = asyncio.Event()

    @property
    def size(self) -> int:
        """How many connections there are, those under way among them."""
        return self._size

    @property
    def idle(self) -> int:
        """How many of them nobody uses."""
        return len(self._idle)

    # --- lending

    def take(self, limit: float = math.inf) -> Connection | None:
        """A connection that is idle, or None: then `borrow` has one. The caller gives it back, or parts with it.

        It is cut when it is not back within `limit` seconds; whoever uses it then finds it closed.
        """
        while self._idle:
            connection = self._idle.pop().connection
            if not connection.is_closed():
                self._lend(connection, limit)
                return connection
            self._leave_place()
        return None

    async def borrow(self, timeout: float, limit: float = math.inf) -> Connection:
        """A connection within about `timeout` seconds; otherwise like `take`.

        Raises TimeoutError, whatever connecting raises, and InterfaceError once the pool is closed.
        """
        connection = self.take(limit)
        if connection is not None:
            return connection
        self._refuse_if_closed(None)
        if self._size < self._max_size:
            self._size += 1
        else:
            connection = await self._wait(timeout)
        if connection is None:
            connection = await self._make(timeout)
        self._refuse_if_closed(connection)
        self._lend(connection, limit)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Nobody uses the connection any more, and no statement is under way on it."""
        if self._closing or connection.is_closed():
            self.part_with(connection)
        elif connection.is_in_transaction():
            self.settle(connection, _ROLLBACK_PATIENCE)
        else:
            del self._lent[connection]
            self._put(connection)

    def part_with(self, connection: Connection) -> None:
        """The connection is out of step, or its statement hangs: cut it."""
        del self._lent[connection]
        self._part(connection)

    def settle(self, connection: Connection, patience: float) -> None:
        """Take back a connection whose statement or transaction was given up, and lend it once it is in order.

        Nobody waits for that. What is not in order in `patience` seconds is cut.
        """
        if connection.is_closed():
            self.part_with(connection)
            return
        task = asyncio.create_task(self._settle(connection, patience), name="storage:settle")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    @asynccontextmanager
    async def acquire(self, timeout: float = 30) -> AsyncIterator[Connection]:
        """Borrow a connection for a block."""
        connection = await self.borrow(timeout)
        try:
            yield connection
        except BaseException:
            self.settle(connection, timeout)
            raise
        self.give_back(connection)

    # --- the end

    async def close(self) -> None:
        """Lend no more, wait until all are given back, and disconnect."""
        self._shut()
        if self._size:
            await self._empty.wait()
        # What was cut is closed by the loop in its next turn.
        await asyncio.sleep(0)

    def terminate(self) -> None:
        """Cut all connections at once; what runs on them fails."""
        self._shut()
        for connection in self._lent:
            connection.terminate()
        for task in self._settling:
            task.cancel()

    def _shut(self) -> None:
        self._closing = True
        for timer in (self._reaper, self._sweeper):
            if timer is not None:
                timer.cancel()
        self._reaper = self._sweeper = None
        while (served := self._next_waiter()) is not None:
            served.set_exception(asyncpg.InterfaceError("the pool is closed"))
        while self._idle:
            self._part(self._idle.pop().connection)

    # --- inside

    def _refuse_if_closed(self, connection: Connection | None) -> None:
        if self._closing:
            if connection is not None:
                self._part(connection)
            raise asyncpg.InterfaceError("the pool is closed")

    def _lend(self, connection: Connection, limit: float) -> None:
        self._lent[connection] = self._loop.time() + limit
        self._watch()

    async def _wait(self, timeout: float) -> Connection | None:
        """Wait for a connection, or for a place (None)."""
        served: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(_Waiter(served, self._loop.time() + timeout))
        self._watch()
        try:
            return await served
        except asyncio.CancelledError:
            if served.done() and not served.cancelled() and served.exception() is None:
                # It was served, and then its task was cancelled before it could see that.
                connection = served.result()
                if connection is None:
                    self._leave_place()
                else:
                    self._put(connection)
            raise

    async def _make(self, timeout: float) -> Connection:
        """Connect, in a place that is taken already."""
        try:
            async with asyncio.timeout(timeout):
                return await self._connect()
        except BaseException:
            self._leave_place()
            raise

    def _put(self, connection: Connection) -> None:
        served = self._next_waiter()
        if served is not None:
            served.set_result(connection)
            return
        if self._closing or connection.is_closed():
            self._part(connection)
            return
        self._idle.append(_Idle(connection, self._loop.time()))
        if self._reaper is None:
            self._reaper = self._loop.call_later(_IDLE_LIFETIME, self._reap)

    def _part(self, connection: Connection) -> None:
        connection.terminate()
        self._leave_place()

    def _leave_place(self) -> None:
        """A connection is gone: whoever waits first may make one in its place."""
        served = self._next_waiter()
        if served is not None:
            served.set_result(None)
            return
        self._size -= 1
        if self._closing and not self._size:
            self._empty.set()

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiting:
            served = self._waiting.popleft().served
            if not served.done():
                return served
        return None

    async def _settle(self, connection: Connection, patience: float) -> None:
        in_order = False
        try:
            # Whatever is wrong with the connection shows here, and is over with it.
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                # asyncpg has asked the server to cancel what ran, and lets the next statement wait until it is.
                await connection.execute("ROLLBACK" if connection.is_in_transaction() else "SELECT 1", timeout=patience)
                in_order = not connection.is_closed() and not connection.is_in_transaction()
        finally:
            if in_order:
                self.give_back(connection)
            else:
                self.part_with(connection)

    def _watch(self) -> None:
        if self._sweeper is None and not self._closing:
            self._sweeper = self._loop.call_later(_SWEEP, self._sweep)

    def _sweep(self) -> None:
        """Turn away who waited too long, and cut what is lent for too long."""
        now = self._loop.time()
        for waiter in self._waiting:
            if waiter.until <= now and not waiter.served.done():
                waiter.served.set_exception(TimeoutError())
        self._waiting = deque(waiter for waiter in self._waiting if not waiter.served.done())
        for connection in [one for one, until in self._lent.items() if until <= now]:
            connection.terminate()
        self._sweeper = None
        if self._waiting or self._lent:
            self._watch()

    def _reap(self) -> None:
        """Close what nobody needed for long, the oldest first, and look again when the next one may have aged."""
        now = self._loop.time()
        self._reaper = None
        while len(self._idle) > 1 and now - self._idle[0].since >= _IDLE_LIFETIME:
            self._part(self._idle.popleft().connection)
        if self._idle:
            pause = max(self._idle[0].since + _IDLE_LIFETIME - now, _IDLE_LIFETIME / 10)
            self._reaper = self._loop.call_later(pause, self._reap)
