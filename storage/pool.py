"""The connection pool: every statement of the server goes through `Database`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, TypeAlias

import asyncpg
import asyncpg.pool

from protocol._override import override
from protocol.errors import ErrorCode, ParleyError
from storage.gates import Gates
from storage.queries import sql

__all__ = ["Database", "Loan", "is_outage"]

#: What the database says when it is away, not when we are wrong: lost connections (08), no resources such as disk or
#: connection slots (53), operator intervention such as a shutdown (57), system errors (58). And what asyncpg says when
#: a connection breaks between preparing a statement and running it.
_OUTAGES: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalClientError,
    OSError,
)
_RETRY_AFTER: Final = 1.0
#: How long the server may take to cancel a statement whose caller is gone, in seconds; then its connection is cut.
_CANCEL_PATIENCE: Final = 1.0
_CONNECT_TIMEOUT: Final = 10.0
#: Seconds after which a connection that nobody needed is closed; one is kept.
_IDLE_LIFETIME: Final = 300.0

_Pool: TypeAlias = "asyncpg.pool.Pool[asyncpg.Record]"
_Borrowed: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

SERVER_SETTINGS: Final = {
    "application_name": "parley",
    # Statements are short and run often: compiling them, or planning them anew for each call, costs more than it gives.
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    # None of them is meant to read a table from end to end; but a plan made while a table is new, and kept, would.
    "enable_seqscan": "off",
    "timezone": "UTC",
    # The statements wait for a session's lock and then go on with its newest row; at a stricter level, which a database
    # may have by default, that is an error.
    "default_transaction_isolation": "read committed",
    # A client that vanished must not hold a session's lock.
    "idle_in_transaction_session_timeout": "10s",
}


class _Connection(asyncpg.Connection):
    """A connection that goes back to the pool without a round trip: nothing here leaves state behind on it."""

    @override
    def get_reset_query(self) -> str:
        return ""


def is_outage(error: BaseException) -> bool:
    """Whether an exception of asyncpg or of the socket means that the database is away."""
    if isinstance(error, asyncpg.InterfaceError):
        # The one class for a closed connection or pool and for wrong arguments; the latter are our own mistakes.
        return not isinstance(error, ValueError) and "clos" in str(error)
    return isinstance(error, _OUTAGES)


class Database:
    """A pool of connections to one database, and the gates of its sessions.

    No connection is held between calls: each method borrows one for exactly one
    statement, or one transaction of statements. A lost database raises
    ParleyError(UNAVAILABLE) with `retry_after`; the pool reconnects by itself.
    """

    def __init__(self, *, max_size: int = 16, timeout: float = 30) -> None:
        self.gates = Gates(timeout)
        self._max_size = max_size
        self._timeout = timeout
        self._pool: _Pool | None = None

    @property
    def pool(self) -> _Pool:
        """The pool itself; UNAVAILABLE when the database is not open."""
        if self._pool is None:
            raise ParleyError(ErrorCode.UNAVAILABLE, "the database is not open", retry_after=_RETRY_AFTER)
        return self._pool

    async def open(self, connect: str | Mapping[str, Any]) -> None:
        """Connect to a DSN, or with asyncpg's own arguments. Raises UNAVAILABLE when nobody answers."""
        if self._pool is not None:
            return
        arguments: dict[str, Any] = {"dsn": connect} if isinstance(connect, str) else dict(connect)

        try:
            self._pool = await asyncpg.create_pool(
                min_size=1,
                max_size=self._max_size,
                connection_class=_Connection,
                command_timeout=self._timeout,
                timeout=min(self._timeout, _CONNECT_TIMEOUT),
                max_inactive_connection_lifetime=_IDLE_LIFETIME,
                # The statements are few, and none of them grows old.
                max_cached_statement_lifetime=0,
                server_settings=SERVER_SETTINGS,
                **arguments,
            )
        except Exception as error:
            raise self.translated(error) from error

    async def close(self, timeout: float = 5) -> None:
        """Wait for running statements, at most `timeout` seconds, and disconnect. May be called again."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await pool.close()
        except Exception as error:
            pool.terminate()
            if not is_outage(error):
                raise

    async def fetch(self, name: str, *arguments: object) -> list[asyncpg.Record]:
        """Run the named statement; all its rows."""
        async with Loan(self, self._timeout) as connection:
            return await connection.fetch(sql(name), *arguments)

    async def fetchrow(self, name: str, *arguments: object) -> asyncpg.Record | None:
        """Run the named statement; its first row or None."""
        async with Loan(self, self._timeout) as connection:
            return await connection.fetchrow(sql(name), *arguments)

    async def execute(self, name: str, *arguments: object) -> None:
        """Run the named statement for its effect."""
        await self.fetchrow(name, *arguments)

    async def together(self, *statements: tuple[Any, ...]) -> list[asyncpg.Record | None]:
        """Run named statements, each with its arguments, in one transaction: all or nothing; each one's first row.

        Each statement sees what was committed before it began, also while an earlier one waited for a lock.
        """
        async with Loan(self, self._timeout) as connection, connection.transaction():
            return [await connection.fetchrow(sql(name), *arguments) for name, *arguments in statements]

    async def ping(self, timeout: float = 2) -> None:
        """One trip to the database; UNAVAILABLE when no connection or then no answer comes within `timeout` seconds."""
        async with Loan(self, timeout) as connection:
            await connection.fetchval("SELECT 1", timeout=timeout)

    def translated(self, error: Exception) -> Exception:
        """What callers are told: an outage as UNAVAILABLE, anything else as it is."""
        if not is_outage(error):
            return error
        return ParleyError(ErrorCode.UNAVAILABLE, "the database is away; try again", retry_after=_RETRY_AFTER)


class Loan:
    """A connection for one statement, or one transaction. Not a generator: every statement of the server passes here.

    Waiting for one takes at most `timeout` seconds. Outages of the database are raised as UNAVAILABLE.
    """

    __slots__ = ("_connection", "_database", "_pool", "_timeout")

    def __init__(self, database: Database, timeout: float) -> None:
        self._database = database
        self._pool = database.pool
        self._timeout = timeout

    async def __aenter__(self) -> _Borrowed:
        # asyncpg bounds a wait by a task of its own, which costs as much as a statement; where nobody has to wait for a
        # connection, making one is bounded anyway.
        bound = None if self._pool.get_idle_size() else self._timeout
        try:
            self._connection = await self._pool.acquire(timeout=bound)
        except Exception as error:
            raise self._database.translated(error) from error
        return self._connection

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        match exc:
            case None:
                await self._pool.release(self._connection)
            case asyncio.CancelledError():
                # By itself the pool would wait for the cancellation of the statement as long as for a connection.
                with suppress(TimeoutError):
                    await self._pool.release(self._connection, timeout=_CANCEL_PATIENCE)
            case asyncpg.InternalClientError() | TimeoutError():
                # Nothing resets a connection on its way back, so one that is out of step must not go there. Nor one
                # whose statement took too long: a database that hangs does not answer its cancellation either, and the
                # pool would wait as long again for that.
                await self._cut()
            case _:
                await self._give_up()
        if isinstance(exc, Exception):
            told = self._database.translated(exc)
            if told is not exc:
                raise told from exc

    async def _cut(self) -> None:
        self._connection.terminate()
        await self._pool.release(self._connection)

    async def _give_up(self) -> None:
        """Take back what a statement failed on; what is wrong with the connection itself is over with it."""
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await self._pool.release(self._connection)


def columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Rows turned into one list a column, as `unnest` takes them."""
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
