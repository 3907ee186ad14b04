-- Tool calls as clients and their presence see them. Whatever changes a call raises its turn's news. Of a session's rows
-- its own is locked first, then its turns', then its calls'.

-- name: find_call
-- One call of a session, with what its turn and its approval say of it. $1 session, $2 call.
{calls_with_turn}
 WHERE k.session_id = $1 AND k.call_id = $2

-- name: open_calls
-- The calls of a session that have no result, or those of them that run at a client. $1 session, $2 client or NULL.
{calls_with_turn}
 WHERE k.session_id = $1 AND k.finished_at IS NULL AND ($2::text IS NULL OR (k.client_id = $2 AND k.state = 'running'))
 ORDER BY k.created_at, k.turn_id, k.ordinal

-- name: call_progress
-- Moves the deadline of a call that runs at a client. No row means that it does not. $1 session, $2 call, $3 client, $4 deadline.
WITH t AS MATERIALIZED (
       SELECT turns.turn_id
         FROM turns
        WHERE turns.turn_id = (SELECT k.turn_id FROM tool_calls k WHERE k.session_id = $1 AND k.call_id = $2)
          FOR NO KEY UPDATE
     ),
     moved AS (
       UPDATE tool_calls SET deadline = $4::timestamptz
         FROM t
        WHERE tool_calls.call_id = $2 AND tool_calls.turn_id = t.turn_id AND tool_calls.client_id = $3
          AND tool_calls.state = 'running'
       RETURNING t.turn_id
     ),
     told AS (UPDATE turns SET news = turns.news + 1 FROM moved WHERE turns.turn_id = moved.turn_id)
SELECT turn_id FROM moved

-- name: release_calls
-- A client has left: when its calls are to be given to others. Returns the turns concerned; no row means none.
-- $1 session, $2 client, $3 when.
WITH s AS MATERIALIZED (
       SELECT session_id FROM sessions
        WHERE session_id = $1
          AND EXISTS (SELECT FROM tool_calls k WHERE k.session_id = $1 AND k.finished_at IS NULL AND k.client_id = $2)
          FOR NO KEY UPDATE
     ),
     t AS MATERIALIZED (
       SELECT t.turn_id FROM s CROSS JOIN LATERAL (
              SELECT turns.turn_id FROM turns
               WHERE turns.turn_id = ANY(ARRAY(SELECT k.turn_id FROM tool_calls k
                                                WHERE k.session_id = s.session_id AND k.finished_at IS NULL AND k.client_id = $2))
               ORDER BY turns.turn_id FOR NO KEY UPDATE) t
     ),
     moved AS (
       UPDATE tool_calls SET release_at = $3::timestamptz
         FROM t
        WHERE tool_calls.turn_id = t.turn_id AND tool_calls.client_id = $2 AND tool_calls.state = 'running'
          AND tool_calls.release_at IS NULL
       RETURNING t.turn_id
     ),
     told AS (
       UPDATE turns SET news = turns.news + 1
         FROM (SELECT DISTINCT moved.turn_id FROM moved) AS m
        WHERE turns.turn_id = m.turn_id
     )
SELECT DISTINCT turn_id FROM moved

-- name: keep_calls
-- A client is back before its calls were given to others: it keeps them. Returns the turns concerned; no row means none.
-- $1 session, $2 client.
WITH s AS MATERIALIZED (
       SELECT session_id FROM sessions
        WHERE session_id = $1
          AND EXISTS (SELECT FROM tool_calls k
                       WHERE k.session_id = $1 AND k.finished_at IS NULL AND k.client_id = $2 AND k.release_at IS NOT NULL)
          FOR NO KEY UPDATE
     ),
     t AS MATERIALIZED (
       SELECT t.turn_id FROM s CROSS JOIN LATERAL (
              SELECT turns.turn_id FROM turns
               WHERE turns.turn_id = ANY(ARRAY(SELECT k.turn_id FROM tool_calls k
                                                WHERE k.session_id = s.session_id AND k.finished_at IS NULL AND k.client_id = $2))
               ORDER BY turns.turn_id FOR NO KEY UPDATE) t
     ),
     moved AS (
       UPDATE tool_calls SET release_at = NULL
         FROM t
        WHERE tool_calls.turn_id = t.turn_id AND tool_calls.client_id = $2 AND tool_calls.state = 'running'
          AND tool_calls.release_at IS NOT NULL
       RETURNING t.turn_id
     ),
     told AS (
       UPDATE turns SET news = turns.news + 1
         FROM (SELECT DISTINCT moved.turn_id FROM moved) AS m
        WHERE turns.turn_id = m.turn_id
     )
SELECT DISTINCT turn_id FROM moved

-- name: release_calls_of_dead
-- Calls at clients that are on no live process: as if they had just left. Turns that somebody is writing to are left for the next time.
-- $1 when they are to be given to others, $2 most.
WITH gone AS MATERIALIZED (
       SELECT k.call_id, k.turn_id, k.client_id
         FROM tool_calls k
        WHERE k.finished_at IS NULL AND k.client_id IS NOT NULL AND k.release_at IS NULL AND k.state = 'running'
          AND 0 = (SELECT count(*) FROM presence p
                    WHERE p.session_id = k.session_id AND p.client_id = k.client_id AND p.left_at IS NULL
                      AND p.worker_id = ANY(ARRAY(SELECT w.worker_id FROM workers w WHERE w.lease_until >= clock_timestamp())))
        LIMIT $2
     ),
     t AS MATERIALIZED (
       SELECT turns.turn_id FROM turns
        WHERE turns.turn_id IN (SELECT gone.turn_id FROM gone)
        ORDER BY turns.turn_id FOR NO KEY UPDATE SKIP LOCKED
     ),
     moved AS (
       UPDATE tool_calls SET release_at = $1::timestamptz
         FROM t JOIN gone USING (turn_id)
        WHERE tool_calls.call_id = gone.call_id AND tool_calls.client_id = gone.client_id AND tool_calls.state = 'running'
          AND tool_calls.release_at IS NULL
       RETURNING gone.turn_id
     ),
     told AS (
       UPDATE turns SET news = turns.news + 1
         FROM (SELECT DISTINCT moved.turn_id FROM moved) AS m
        WHERE turns.turn_id = m.turn_id
     )
SELECT DISTINCT turn_id FROM moved

-- name: claim_for_tools
-- Tools are offered: waiting turns with calls for them are claimed, and turns that run are told, as they may be about to wait for these
-- very tools. Where the session was written to during the wait for it, calls may be missing from the snapshot: nothing is done.
-- $1 session, $2 worker, $3 names.
WITH s AS MATERIALIZED (
       SELECT session_id, active_turn, xmin AS version FROM sessions
        WHERE session_id = $1 AND deleted_at IS NULL AND active_turn IS NOT NULL
          FOR NO KEY UPDATE
     ),
     fresh AS (SELECT s.*, {behind} AS behind, $2::uuid AS worker FROM s),
     t AS MATERIALIZED (
       SELECT t.turn_id, t.state = 'waiting' AS waits,
              t.state <> 'waiting'
              OR EXISTS (SELECT FROM tool_calls k
                          WHERE k.turn_id = t.turn_id AND k.session_id = s.session_id AND k.finished_at IS NULL
                            AND k.executor = 'client' AND k.state = 'ready' AND k.name = ANY($3::text[])) AS concerned
         FROM fresh AS s CROSS JOIN LATERAL ({open_turns}) t
        WHERE NOT s.behind
     ),
     roused AS (
       UPDATE turns
          SET {rouse}
         FROM fresh, t
        WHERE turns.turn_id = t.turn_id AND t.concerned
       RETURNING {claimed}, t.waits
     )
SELECT fresh.behind, ARRAY(SELECT roused FROM roused WHERE roused.waits) AS claims FROM fresh

-- name: lock_any_session
-- The session's row, locked for the statements that follow in the same transaction. $1 session.
SELECT session_id FROM sessions WHERE session_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
