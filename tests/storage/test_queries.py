"""The query files: described, appending only, and planned for tables that have grown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from storage.queries import _parse, queries, sql
from storage.turns import Advance
from tests.storage.conftest import Open
from tests.storage.scene import AGENT, Scene, event

# Removing a deleted session's rows is the one exception, and what a user asks for by name.
ERASURE = "empty_session"
# All that wait anywhere, to find those for whom nothing runs: the queue is short by nature.
WHOLE = {"waiting_sessions"}
# Indexes of few rows, whatever their tables have grown to.
FEW = {"turns_under_way", "tool_calls_at_clients"}


def test_every_statement_is_described() -> None:
    assert {query.name for query in queries().values() if len(query.description) < 20} == set()
    assert sql("read_events") == queries()["read_events"].text


@pytest.mark.parametrize(
    ("source", "message"),
    [("-- name: a\nSELECT 1", "a has no line that says what it is for")],
)
def test_a_statement_without_a_purpose_is_refused(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(_parse("file", source))


def test_the_rooms_say_what_they_are() -> None:
    storage = Path(__file__).parents[2] / "storage"
    assert (storage / "README.md").read_text().startswith("# ")
    assert (storage / "sql" / "README.md").read_text().startswith("# ")


@pytest.mark.feature("S15")
def test_regression_03_history_is_appended_never_rewritten() -> None:
    rewriting = re.compile(
        r"\b(UPDATE|DELETE\s+FROM|TRUNCATE|MERGE\s+INTO)\s+(?:ONLY\s+)?(events|messages)\b", re.IGNORECASE
    )
    found = {query.name: rewriting.findall(query.text) for query in queries().values()}
    assert {name: hits for name, hits in found.items() if hits and name != ERASURE} == {}
    assert {verb.split()[0].upper() for verb, _ in found[ERASURE]} == {"DELETE"}
    # Nor by an upsert.
    upserts = re.compile(r"INSERT\s+INTO\s+(\w+)(?:(?!INSERT\s+INTO).)*?ON\s+CONFLICT", re.IGNORECASE | re.DOTALL)
    written = {table for query in queries().values() for table in upserts.findall(query.text)}
    assert written == {"commands", "command_numbers", "presence", "session_members", "workers"}


@pytest.mark.feature("S15")
async def test_regression_03_nothing_that_a_session_goes_through_touches_its_past(any_opener: Open) -> None:
    """A trigger on both tables refuses all but INSERT, for each statement in its place."""
    any_scene: Scene = await any_opener()
    await any_scene.rows(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the past is kept'; END $$"
    )
    for table in ("events", "messages"):
        await any_scene.rows(
            f"CREATE TRIGGER keep BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} EXECUTE FUNCTION keep()"
        )
    session = await any_scene.session()
    claim = await any_scene.begun(session)
    one, two = [(await any_scene.say(session, name)).message_id for name in ("one", "two")]
    assert one is not None
    assert two is not None
    await any_scene.reorder(session, "reorder", [two, one])
    await any_scene.remove(session, "remove", one)
    await any_scene.switch(session, "switch", (AGENT, "coder"))
    await any_scene.cancel(session, "cancel", claim.turn_id)
    await any_scene.turns.checkpoint(any_scene.worker, [claim])
    more = Advance(step_state="running", events=[event("tool_call")])
    await any_scene.turns.advance(claim, more, any_scene.now())
    await any_scene.end(claim)
    assert await any_scene.turns.start_waiting(any_scene.start(session, await any_scene.waiting(session))) is not None
    assert await any_scene.turns.claim(any_scene.worker, [], 10) != []
    await any_scene.audit()
    # The control: the triggers are there.
    with pytest.raises(asyncpg.RaiseError, match="the past is kept"):
        await any_scene.sessions.delete(session, any_scene.now())
    assert (await any_scene.sessions.resolve("ada", str(session.session_id))).is_active


@pytest.mark.parametrize("grown", [False, True], ids=["fresh", "grown"])
async def test_no_statement_reads_a_table_from_end_to_end(any_opener: Open, grown: bool) -> None:
    """Plans are made once a connection, for any values: they must suit tables of millions from the first day."""
    any_scene: Scene = await any_opener()
    async with any_scene.database.pool.acquire() as connection:
        if grown:
            await connection.execute(_GROW)
        whole: dict[str, list[str]] = {}
        for query in queries().values():
            values = ", ".join(["NULL"] * len((await connection.prepare(query.text)).get_parameters()))
            await connection.execute(f"PREPARE it AS {query.text}")
            plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE it({values})".replace("()", ""))
            await connection.execute("DEALLOCATE it")
            whole[query.name] = list(_read_whole(json.loads(plan)[0]["Plan"]))
    assert {name: tables for name, tables in whole.items() if tables and name not in WHOLE} == {}


def _read_whole(node: dict[str, Any]) -> Iterator[str]:
    """The tables that a plan reads from end to end, be it by way of an index."""
    table, index = node.get("Relation Name"), node.get("Index Name")
    if table is not None and "Scan" in node["Node Type"] and table != "workers":
        narrowed = "Index Cond" in node or node["Node Type"] == "Bitmap Heap Scan" or index in FEW
        if not narrowed:
            yield f"{node['Node Type']} {index or ''} on {table}"
    for child in node.get("Plans", []):
        yield from _read_whole(child)


_GROW = """
INSERT INTO sessions (session_id, owner, epoch, seq, current_agent, created_at, last_activity)
SELECT gen_random_uuid(), 'owner ' || g / 10, 'e', 5, 'coder', now(), now() FROM generate_series(1, 5000) g;
INSERT INTO session_aliases SELECT owner, session_id::text, session_id FROM sessions;
INSERT INTO events SELECT session_id, g, 'message_created', now(), '{}' FROM sessions, generate_series(1, 5) g;
INSERT INTO messages (message_id, session_id, seq, role, content, created_at)
SELECT gen_random_uuid(), session_id, g, 'user', 'hello', now() FROM sessions, generate_series(1, 3) g;
INSERT INTO commands SELECT session_id, 'c' || g, '', g, 'accepted', NULL, NULL, NULL, 'u', now()
  FROM sessions, generate_series(1, 2) g;
INSERT INTO command_numbers SELECT session_id, 'c', 1 FROM sessions;
INSERT INTO session_members
SELECT session_id, owner || g, 'observer', owner, now() FROM sessions, generate_series(1, 3) g;
INSERT INTO tickets
SELECT sha256(g::text::bytea), 'u' || g / 10, 'all', NULL, NULL, now(), NULL FROM generate_series(1, 5000) g;
INSERT INTO logins SELECT digest, user_id, scope, NULL, expires_at FROM tickets;
INSERT INTO turns (turn_id, session_id, user_message_id, message_id, worker_id, agent_type, created_at, finished_at)
SELECT gen_random_uuid(), session_id, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'coder', now(),
       CASE WHEN random() < 0.99 THEN now() END
  FROM sessions;
INSERT INTO tool_calls (call_id, session_id, turn_id, step, ordinal, name, arguments, executor, state, created_at)
SELECT gen_random_uuid(), session_id, turn_id, 1, 1, 't', '{}', 'client',
       CASE WHEN finished_at IS NULL THEN 'awaiting_approval' ELSE 'completed' END, now()
  FROM turns;
INSERT INTO approvals (approval_id, session_id, turn_id, call_id, owner, agent_type, name, arguments_hash,
                       allowed_decisions, state, created_at)
SELECT gen_random_uuid(), k.session_id, k.turn_id, k.call_id, s.owner, 'coder', 't', '', '{approve}',
       CASE k.state WHEN 'completed' THEN 'approved' ELSE 'pending' END, now()
  FROM tool_calls k JOIN sessions s USING (session_id);
UPDATE approvals SET due_at = now(), expires_at = now() WHERE random() < 0.1;
INSERT INTO approval_rules (rule_id, owner, session_id, scope, tool, effect, created_at, created_by)
SELECT gen_random_uuid(), owner, session_id, 'session', 't', 'allow', now(), owner FROM sessions;
INSERT INTO agent_switches (session_id, seq, from_agent, to_agent, cause, switched_at)
SELECT session_id, 1, 'coder', 'debug', 'client', now() FROM sessions;
INSERT INTO presence (session_id, client_id, worker_id, user_id, role, transport, joined_at)
SELECT session_id, 'c', gen_random_uuid(), owner, 'owner', 'websocket', now() FROM sessions;
INSERT INTO queue SELECT session_id, gen_random_uuid(), g, 'hi', NULL, 'c', NULL, 'u', now()
  FROM sessions, generate_series(1, 2) g WHERE random() < 0.5;
ANALYZE;
"""
