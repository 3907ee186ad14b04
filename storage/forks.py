"""Sessions that begin as copies of others: what is copied, and the copy, which is made in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from msgspec import Struct

from protocol.errors import ErrorCode, ParleyError
from storage.ids import new_epoch
from storage.pool import Database, columns

__all__ = ["Copy", "Forks", "NewFork", "Place", "SourceMessage"]

#: What is read or written by one statement.
_BATCH: Final = 500
_BATCH_BYTES: Final = 2 << 20
#: The most text that is copied; more than any model takes.
_MOST_BYTES: Final = 64 << 20
#: The id of the command that a fork begins with. Clients' ids have no slash.
_COMMAND_ID: Final = "/fork"


class SourceMessage(Struct, frozen=True):
    """A message of the conversation that is copied; `tool_calls` is the JSON of the calls it made."""

    message_id: UUID
    seq: int
    role: str
    content: str
    reasoning: str | None
    name: str | None
    call_id: UUID | None
    tool_calls: bytes | None
    agent_type: str | None
    finish_reason: str | None
    created_at: datetime

    @property
    def size(self) -> int:
        """About how many bytes it has."""
        return len(self.content) + len(self.reasoning or "") + len(self.tool_calls or b"")


class Copy(Struct, frozen=True, kw_only=True):
    """A message as the fork has it, under its own ids; `body` is that of the event that announces it."""

    message: SourceMessage
    body: bytes


class Place(Struct, frozen=True):
    """A message, and the number of the event that announced it."""

    message_id: UUID
    seq: int
    role: str
    content: str


class NewFork(Struct, frozen=True, kw_only=True):
    """A fork to be made; `copies` are numbered from 1 on, `at` is the source's event up to which they go.

    `body_hash` tells a repeat from another request under the same id.
    """

    session_id: UUID
    owner: str
    source: UUID
    at: int
    agent: str
    title: str
    alias: str | None
    copies: Sequence[Copy]
    body_hash: bytes
    now: datetime
    most_sessions: int


class Forks:
    """Reads what is copied, and makes copies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def source(self, session_id: UUID, until: int, most: int) -> list[SourceMessage]:
        """The conversation up to a number, in order. Raises ParleyError(TOO_LARGE) for more than `most` messages."""
        found: list[SourceMessage] = []
        size, after = 0, 0
        while True:
            rows = await self._database.fetch("fork_source", session_id, after, until, _BATCH, _BATCH_BYTES)
            if not rows:
                return found
            found += [SourceMessage(*row) for row in rows]
            after = found[-1].seq
            size += sum(message.size for message in found[-len(rows) :])
            if len(found) > most or size > _MOST_BYTES:
                raise ParleyError(
                    ErrorCode.TOO_LARGE, f"at most {most} messages and {_MOST_BYTES >> 20} MiB of text are copied"
                )

    async def place(self, session_id: UUID, message_id: UUID) -> Place | None:
        """Where a message of the conversation stands."""
        row = await self._database.fetchrow("fork_place", session_id, message_id)
        return None if row is None else Place(*row)

    async def last_user_message(self, session_id: UUID) -> Place | None:
        """The last message that a user wrote, if any."""
        row = await self._database.fetchrow("last_user_message", session_id)
        return None if row is None else Place(*row)

    async def user_message_after(self, session_id: UUID, seq: int) -> Place | None:
        """The first message that a user wrote after a number, if any."""
        row = await self._database.fetchrow("user_message_after", session_id, seq)
        return None if row is None else Place(*row)

    async def direct_agent(self, session_id: UUID, seq: int) -> bytes | None:
        """The event (`direct_agent_call`) that a message was addressed to one agent; None when it was not."""
        row = await self._database.fetchrow("direct_agent", session_id, seq)
        return None if row is None else row["body"]

    async def acting_agent(self, session_id: UUID, seq: int) -> str:
        """The agent that acted in the session when an event was its last one."""
        row = await self._database.fetchrow("acting_agent", session_id, seq)
        assert row is not None, "an expression is one row"
        return str(row["agent"])

    async def create(self, fork: NewFork) -> bool:
        """Make the fork; False when an earlier delivery of the same request did.

        Raises ParleyError: CONFLICT (the id was used for another request, or the alias is taken), LIMIT_REACHED,
        SESSION_GONE when the source is.
        """
        try:
            made, *_ = await self._database.together(*_statements(fork))
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == "session_aliases_are_unique":
                raise ParleyError(
                    ErrorCode.CONFLICT, f"you have a session {fork.alias!r} already", path="$.session_id"
                ) from error
            if error.constraint_name != "sessions_pkey":
                raise
            await self._check_repeat(fork)
            return False
        if made is None:
            await self._explain(fork)
        return True

    async def _check_repeat(self, fork: NewFork) -> None:
        stored = await self._database.fetchrow("find_command", fork.session_id, _COMMAND_ID)
        if stored is not None and stored["body_hash"] != fork.body_hash:
            raise ParleyError(ErrorCode.CONFLICT, "this Idempotency-Key was used before, with another body")

    async def _explain(self, fork: NewFork) -> None:
        counted = await self._database.fetchrow("count_sessions", fork.owner, True, None)
        if counted is not None and counted[0] >= fork.most_sessions:
            raise ParleyError(
                ErrorCode.LIMIT_REACHED, f"you have as many sessions as you may ({fork.most_sessions}); delete some"
            )
        raise ParleyError(ErrorCode.SESSION_GONE, "the session was deleted")


def _statements(fork: NewFork) -> Iterator[tuple[Any, ...]]:
    key = fork.session_id
    yield (
        "create_fork",
        *(key, fork.owner, new_epoch(), fork.agent, fork.title, fork.now, fork.alias),
        *(fork.source, fork.at, len(fork.copies), fork.most_sessions),
    )
    for batch in _batches(fork.copies):
        rows = [
            (
                *(copy.message.message_id, copy.message.seq, copy.message.role, copy.message.content),
                *(copy.message.reasoning, copy.message.name, copy.message.call_id, copy.message.tool_calls),
                *(copy.message.agent_type, copy.message.finish_reason, copy.message.created_at, copy.body),
            )
            for copy in batch
        ]
        yield ("fill_fork", key, fork.now, *columns(rows, 12))
    yield ("note_fork", key, _COMMAND_ID, fork.body_hash, fork.owner, fork.now)


def _batches(copies: Sequence[Copy]) -> Iterator[Sequence[Copy]]:
    begin = size = 0
    for place, copy in enumerate(copies):
        size += 2 * copy.message.size
        if place - begin >= _BATCH or (size > _BATCH_BYTES and place > begin):
            yield copies[begin:place]
            begin, size = place, 2 * copy.message.size
    if copies[begin:]:
        yield copies[begin:]
