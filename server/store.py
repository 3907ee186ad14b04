"""The PostgreSQL that the configuration names: one of yours by its URL, or else an own one in the data directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from protocol.errors import ErrorCode, ParleyError
from server.config import DatabaseSettings
from server.config.secrets import hidden_url
from storage import migrations
from storage.embedded import EmbeddedPostgres, default_data_dir
from storage.pool import is_outage

__all__ = ["Store", "StoreError"]

_CONNECT_TIMEOUT: Final = 10.0


class StoreError(Exception):
    """The database answers, but cannot be used like this; the text is for the operator."""


class Store:
    """Where everything is kept, and how to get there. `start` and `stop` are idempotent."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._url = settings.url
        #: PostgreSQL's version, such as `18.1`, once it has answered.
        self.version: str | None = None
        self.embedded: EmbeddedPostgres | None = None
        if settings.url is None:
            self.embedded = EmbeddedPostgres(_usual_place() if settings.data_dir is None else Path(settings.data_dir))

    @property
    def address(self) -> str | Mapping[str, Any]:
        """What `Database.open` takes; an embedded server must have been started."""
        if self.embedded is not None:
            return self.embedded.connect_args()
        assert self._url is not None, "without a URL there is an embedded server"
        return self._url

    @property
    def name(self) -> str:
        """For people: which PostgreSQL, and where; the URL without its secrets."""
        version = f"PostgreSQL {self.version}" if self.version else "PostgreSQL"
        if self.embedded is not None:
            return f"embedded {version} in {self.embedded.data_dir}"
        return f"{version} at {hidden_url(self._url or '')}"

    async def start(self) -> None:
        """Start the embedded server, if it is that one. Raises storage.embedded.EmbeddedError."""
        if self.embedded is not None:
            await self.embedded.start()

    async def stop(self) -> None:
        """Stop the embedded server, if it is that one."""
        if self.embedded is not None:
            await self.embedded.stop()

    async def migrate(self) -> list[str]:
        """Bring the tables to this version; the names of the migrations that were applied. Raises as `connection`."""
        async with self.connection() as connection:
            return await migrations.migrate(connection)

    async def pending(self) -> list[str]:
        """The names of the migrations that the database lacks. Raises as `connection`."""
        async with self.connection() as connection:
            return [migration.name for migration in await migrations.pending(connection)]

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of its own, beside the pool's: migrations may take longer than a statement of the server may.

        Raises ParleyError(UNAVAILABLE) when nobody answers, StoreError when the database refuses us or holds what this
        version cannot use.
        """
        arguments = {"dsn": self.address} if isinstance(self.address, str) else dict(self.address)
        try:
            connection = await asyncpg.connect(**arguments, timeout=_CONNECT_TIMEOUT)
            found = connection.get_server_version()
            # Since version 10 the second number is what used to be the third.
            self.version = f"{found.major}.{found.micro}"
            try:
                yield connection
            finally:
                await connection.close(timeout=_CONNECT_TIMEOUT)
        except migrations.MigrationError as error:
            raise StoreError(f"{self.name}: {error}") from error
        except Exception as error:
            if is_outage(error):
                raise ParleyError(ErrorCode.UNAVAILABLE, f"{self.name} does not answer", retry_after=1) from error
            if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | ValueError):
                raise StoreError(f"{self.name}: {error}") from error
            raise


def _usual_place() -> Path:
    try:
        return default_data_dir()
    except RuntimeError:
        # Path.home() of a user without a name or a home, as containers have them.
        raise StoreError("this user has no home directory to keep a database in: name one (--data-dir)") from None
