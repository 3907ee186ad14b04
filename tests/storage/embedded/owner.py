"""A process that owns an embedded PostgreSQL until it is killed, for tests that kill it.

Arguments: the data directory; then, if wanted, `write`: insert numbers, and print each once it is committed.
It says `ready <pid of the server> <DSN>` when the server answers, or `error <message>`, and ends in good order at the
end of its input.
"""

import asyncio
import itertools
import sys
from pathlib import Path

import asyncpg
import structlog

from storage.embedded import EmbeddedError, EmbeddedPostgres


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(data_dir: str, *, write: bool) -> None:
    server = EmbeddedPostgres(Path(data_dir), settings={"fsync": "off"})
    try:
        await server.start()
    except EmbeddedError as error:
        say(f"error {error}")
        return
    assert server._child is not None
    say(f"ready {server._child.pid} {server.dsn()}")
    if write:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute("CREATE TABLE IF NOT EXISTS kept (number bigint PRIMARY KEY)")
        first = await connection.fetchval("SELECT coalesce(max(number), 0) + 1 FROM kept")
        for number in itertools.count(first):
            await connection.execute("INSERT INTO kept VALUES ($1)", number)
            say(str(number))
    loop = asyncio.get_running_loop()
    asked = loop.create_future()
    loop.add_reader(sys.stdin, asked.set_result, None)
    await asked
    loop.remove_reader(sys.stdin)
    await server.stop()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(sys.argv[1], write="write" in sys.argv[2:]))
