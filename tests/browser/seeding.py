"""Sessions with a past, written into the database at once: a thousand turns would take a minute."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from protocol.ids import format_timestamp
from storage.ids import new_id
from tests.support.server import RunningServer

_MESSAGES = """
INSERT INTO messages (message_id, session_id, seq, role, content, agent_type, finish_reason, created_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[],
                     $8::timestamptz[])
"""
_EVENTS = """
INSERT INTO events (session_id, seq, event_type, created_at, body)
SELECT s, n, 'message_created', t, b
  FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::bytea[]) AS e(s, n, t, b)
"""
_SESSION = """
UPDATE sessions SET seq = $2, message_count = $2, last_activity = $3, title = coalesce(title, left($4, 80))
 WHERE session_id = $1
"""


async def past(server: RunningServer, texts: Sequence[str], *, when: datetime | None = None, **body: Any) -> str:
    """A session in which these texts were said, by a person and an agent in turns, at some time; its id."""
    agent_type = body.setdefault("agent_type", "offline")
    session = await server.create_session(**body)
    now = when or server.services.clock.now()
    rows: list[tuple[Any, ...]] = []
    bodies: list[bytes] = []
    for number, text in enumerate(texts, 1):
        message_id, mine = new_id(), number % 2 == 1
        role, agent, ending = ("user", None, None) if mine else ("assistant", agent_type, "stop")
        at = now + timedelta(milliseconds=number)
        rows.append((message_id, session, number, role, text, agent, ending, at))
        payload = {"message_id": message_id, "role": role, "content": text, "timestamp": format_timestamp(at)}
        if not mine:
            payload |= {"agent_type": agent_type, "agent_name": agent_type.capitalize(), "finish_reason": ending}
        bodies.append(msgspec.json.encode(payload))
    columns = [list(column) for column in zip(*rows, strict=True)]
    async with server.services.db.pool.acquire() as connection, connection.transaction():
        await connection.execute(_MESSAGES, *columns)
        await connection.execute(_EVENTS, columns[1], columns[2], columns[7], bodies)
        await connection.execute(_SESSION, session, len(texts), rows[-1][-1], texts[0])
    return session


_TOLD = """
INSERT INTO events (session_id, seq, event_type, created_at, body)
SELECT $1, n, e, t, b FROM unnest($2::bigint[], $3::text[], $4::timestamptz[], $5::bytea[]) AS x(n, e, t, b)
"""


async def told(
    server: RunningServer, events: Sequence[tuple[str, dict[str, Any]]], *, when: datetime | None = None, **body: Any
) -> str:
    """A session whose log holds these events, a second apart; its id. The database has nothing else of them."""
    body.setdefault("agent_type", "offline")
    session = await server.create_session(**body)
    start = when or server.services.clock.now()
    times = [start + timedelta(seconds=number) for number in range(len(events))]
    bodies = []
    for (kind, payload), at in zip(events, times, strict=True):
        stamp = {"timestamp": format_timestamp(at)} if kind == "message_created" else {}
        bodies.append(msgspec.json.encode({**payload, **stamp}))
    messages = sum(kind == "message_created" for kind, _ in events)
    async with server.services.db.pool.acquire() as connection, connection.transaction():
        numbers = list(range(1, len(events) + 1))
        await connection.execute(_TOLD, session, numbers, [kind for kind, _ in events], times, bodies)
        update = "UPDATE sessions SET seq = $2, message_count = $3, last_activity = $4 WHERE session_id = $1"
        await connection.execute(update, session, len(events), messages, times[-1])
    return session
