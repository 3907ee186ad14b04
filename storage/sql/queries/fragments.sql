-- Pieces that several statements share; `{name}` in a query stands for the piece of that name.

-- name: locked_session
-- The session's row, locked: whoever holds it numbers the events, so commit order is seq order. $1 session, $2 owner.
SELECT session_id, epoch, seq, active_turn, queued, current_agent
  FROM sessions
 WHERE session_id = $1 AND owner = $2 AND deleted_at IS NULL
   FOR NO KEY UPDATE

-- name: numbered
-- The client's own number of this command: one more than its last, or 1. No row means out of order, or no number.
-- Neither does a repeat have one, or a conflict: only what takes effect uses a number up. $3 client, $4 number, $5 command.
INSERT INTO command_numbers (session_id, client_id, n)
SELECT v.session_id, $3::text, $4::bigint
  FROM v
 WHERE v.refusal IS NULL AND $4::bigint IS NOT NULL
   AND ($4 = 1 OR EXISTS (SELECT FROM command_numbers k WHERE k.session_id = v.session_id AND k.client_id = $3))
   AND NOT EXISTS (SELECT FROM commands k WHERE k.session_id = v.session_id AND k.command_id = $5)
    ON CONFLICT (session_id, client_id) DO UPDATE SET n = EXCLUDED.n WHERE command_numbers.n = EXCLUDED.n - 1
RETURNING n

-- name: stored_command
-- The command's row: the new one, or the one that an earlier delivery stored. The update that changes nothing is what makes
-- the earlier row visible: this statement's snapshot may be older than its wait for the session's lock.
-- $5 command, $6 body hash, $7 user, $8 now.
INSERT INTO commands (session_id, command_id, body_hash, first_seq, status, message_id, turn_id, client_id, user_id, created_at)
SELECT v.session_id, $5, $6, v.seq + 1, v.status, v.message_id, v.turn_id, $3, $7, $8
  FROM v
 WHERE v.refusal IS NULL
   AND ($4::bigint IS NULL OR EXISTS (SELECT FROM numbered)
        OR EXISTS (SELECT FROM commands k WHERE k.session_id = v.session_id AND k.command_id = $5))
    ON CONFLICT (session_id, command_id) DO UPDATE SET command_id = EXCLUDED.command_id
RETURNING body_hash, first_seq, status, message_id, turn_id

-- name: announced
-- The events of a fresh command, numbered on from the session's last. $9/$10 events, $8 now.
INSERT INTO events (session_id, seq, event_type, created_at, body)
SELECT fresh.session_id, fresh.seq + e.ordinal, e.event_type, $8, e.body
  FROM fresh, unnest($9::text[], $10::bytea[]) WITH ORDINALITY AS e (event_type, body, ordinal)

-- name: command_outcome
-- What the caller is told: the verdict under the lock, the stored command, and whether it is this very one.
SELECT v.epoch, v.seq, v.refusal, v.active_turn, v.current_agent,
       c.body_hash, c.first_seq, c.status, c.message_id, c.turn_id, coalesce(c.first_seq > v.seq, false) AS fresh
  FROM v LEFT JOIN c ON true

-- name: usage_sums
-- What the steps of `r` took: all of them, then in groups, the latest first. $4 by, $5 most rows.
SELECT grouping(key) = 1 AS all, key, count(*) AS requests, count(DISTINCT turn_id) AS turns,
       coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens, coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens,
       sum(cost) AS cost, count(*) FILTER (WHERE cost IS NULL AND prompt_tokens + completion_tokens > 0) AS unpriced,
       coalesce(sum(duration_ms), 0)::bigint AS duration_ms
  FROM (SELECT *, CASE $4::text WHEN 'day' THEN to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') WHEN 'model' THEN model
                                WHEN 'session' THEN session_id::text ELSE agent_type END AS key
          FROM r) AS keyed
 GROUP BY GROUPING SETS ((), (key))
 ORDER BY 1 DESC, max(started_at) DESC, key
 LIMIT $5
