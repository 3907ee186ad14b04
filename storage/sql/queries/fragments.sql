-- Pieces that several statements share; `{name}` in a query stands for the piece of that name.

-- name: locked_session
-- The session's row, locked: whoever holds it numbers the events, so commit order is seq order. $1 session, $2 owner.
SELECT session_id, owner, epoch, seq, active_turn, queued, current_agent, xmin AS version
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

-- name: result_message
-- The message that is a call's result, in the conversation or in the thread of the turn that made the call. $15 message, $11 call,
-- $8 now.
INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, name, call_id, thread, created_at)
       SELECT m.message_id, fresh.session_id, fresh.seq + m.ordinal, fresh.turn_id, m.role, m.content, m.name, $11,
              CASE WHEN fresh.depth > 0 THEN fresh.turn_id END, $8
         FROM fresh, json_to_recordset($15::json) AS m (message_id uuid, ordinal integer, role text, content text, name text)

-- name: outcome_with_claims
-- The same, with the turns that waited and are the worker's now.
SELECT v.epoch, v.seq, v.refusal, v.active_turn, v.current_agent,
       c.body_hash, c.first_seq, c.status, c.message_id, c.turn_id, coalesce(c.first_seq > v.seq, false) AS fresh,
       ARRAY(SELECT roused FROM roused WHERE roused.waits) AS claims
  FROM v LEFT JOIN c ON true

-- name: outcome_of_call
-- The same of a command about a call: how it was settled, and by whom, if somebody was first.
SELECT v.epoch, v.seq, v.refusal, v.active_turn, v.current_agent, v.settled, v.settled_by,
       c.body_hash, c.first_seq, c.status, c.message_id, c.turn_id, coalesce(c.first_seq > v.seq, false) AS fresh,
       ARRAY(SELECT roused FROM roused WHERE roused.waits) AS claims
  FROM v LEFT JOIN c ON true

-- name: behind
-- Whether the session was written to while this statement waited for it, so that its snapshot may miss rows made meanwhile.
s.version <> (SELECT seen.xmin FROM sessions seen WHERE seen.session_id = s.session_id)

-- name: held
-- The step is the caller's, and the turn as he knows it. $2 turn, $3 step, $4 worker, $5 attempt, $6 revision.
turns.turn_id = $2 AND turns.step = $3 AND turns.session_id = s.session_id
          AND turns.worker_id = $4 AND turns.attempt = $5 AND turns.revision = $6 AND turns.finished_at IS NULL

-- name: moved_on
-- What every move sets in the turn's row. $7 now, $8 step's state to be, $25/$26 error, $27/$28 tokens, $29 cost, $24 turn's
-- state to be, $30 the next step's message.
revision = turns.revision + 1,
              step_state = CASE WHEN $30::uuid IS NULL THEN $8::text ELSE 'running' END,
              step = turns.step + CASE WHEN $30 IS NULL THEN 0 ELSE 1 END,
              message_id = coalesce($30, turns.message_id),
              attempt = CASE WHEN $30 IS NULL THEN turns.attempt ELSE 1 END,
              content = CASE WHEN $8 = 'running' THEN turns.content ELSE '' END,
              reasoning = CASE WHEN $8 = 'running' THEN turns.reasoning ELSE '' END,
              error_code = $25, error_message = $26,
              prompt_tokens = turns.prompt_tokens + $27, completion_tokens = turns.completion_tokens + $28,
              cost = CASE WHEN $29::numeric IS NULL THEN turns.cost ELSE coalesce(turns.cost, 0) + $29 END,
              finished_at = CASE WHEN $24::text IS NULL THEN NULL ELSE $7::timestamptz END

-- name: moves_messages
-- The messages of a move. By $11 id, $12 ordinal of their event, $13 role, $14 content, $15 reasoning, $16 name, $17 call, $18 tool
-- calls, $19 agent, $20 finish reason, $21 thread, $22 turn.
INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, reasoning, name, call_id, tool_calls,
                             agent_type, finish_reason, thread, created_at)
       SELECT m.message_id, fresh.session_id, fresh.seq + m.ordinal, coalesce(m.turn_id, $2), m.role, m.content, m.reasoning,
              m.name, m.call_id, m.tool_calls, m.agent_type, m.finish_reason, m.thread, $7
         FROM fresh, unnest($11::uuid[], $12::integer[], $13::text[], $14::text[], $15::text[], $16::text[], $17::uuid[],
                            $18::bytea[], $19::text[], $20::text[], $21::uuid[], $22::uuid[])
              AS m (message_id, ordinal, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, thread,
                    turn_id)

-- name: moves_request
-- What the step took. $31 model, $32 when it began, $33 milliseconds, $34/$35 tokens, $36 cost, $37 calls, $38 how it ended, $39 error,
-- $40 agent.
INSERT INTO requests (turn_id, step, attempt, session_id, owner, agent_type, model, started_at, duration_ms, prompt_tokens,
                             completion_tokens, cost, tools, finish_reason, error_code)
       SELECT $2, $3, $5, fresh.session_id, fresh.owner, $40, $31, $32::timestamptz, $33, $34, $35, $36, $37, $38, $39
         FROM fresh
        WHERE $38::text IS NOT NULL

-- name: moves_events
-- The events of a move. $9/$10.
INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT fresh.session_id, fresh.seq + e.ordinal, e.event_type, $7, e.body
         FROM fresh, unnest($9::text[], $10::bytea[]) WITH ORDINALITY AS e (event_type, body, ordinal)

-- name: steering
-- Whether some of the messages that wait are for the next step of the running turn. Where this snapshot does not show as
-- many as wait, they may be.
new_head.queued > 0
       AND (new_head.queued <> (SELECT count(*) FROM queue WHERE queue.session_id = $1)
            OR EXISTS (SELECT FROM queue WHERE queue.session_id = $1 AND queue.on_busy = 'steer')) AS steering

-- name: rouse
-- Something happened to the calls of an unfinished turn: that is news to it, and if it waits it goes on with `fresh.worker`.
news = turns.news + 1,
              worker_id = CASE WHEN turns.state = 'waiting' THEN fresh.worker ELSE turns.worker_id END,
              attempt = turns.attempt + CASE WHEN turns.state = 'waiting' THEN 1 ELSE 0 END,
              revision = turns.revision + CASE WHEN turns.state = 'waiting' THEN 1 ELSE 0 END,
              state = 'running'

-- name: claimed
-- A claim, as storage/claims.py reads it.
turns.session_id, turns.turn_id, turns.step, turns.message_id, turns.step_state, turns.worker_id, turns.attempt,
                 turns.agent_type, turns.user_message_id, turns.created_at,
                 (SELECT o.owner FROM sessions o WHERE o.session_id = turns.session_id) AS owner,
                 turns.revision, turns.content, turns.reasoning, turns.cancel_requested, turns.prompt_tokens,
                 turns.completion_tokens, turns.news, turns.switches, turns.depth, turns.parent_call, turns.cost

-- name: open_turns
-- The unfinished turns of a session: the active one, and those that answer its open calls. Locked, each in its turn.
SELECT turns.turn_id, turns.state
                FROM turns
               WHERE turns.turn_id = ANY(ARRAY(SELECT s.active_turn UNION ALL
                                               SELECT k.child_turn FROM tool_calls k
                                                WHERE k.session_id = s.session_id AND k.finished_at IS NULL))
                 AND turns.finished_at IS NULL
               ORDER BY turns.turn_id
                 FOR NO KEY UPDATE

-- name: calls_with_turn
-- Calls, each with what its turn and its approval say of it.
SELECT k.call_id, k.session_id, k.turn_id, k.step, k.ordinal, k.name, k.arguments, k.final_arguments, k.executor, k.state, k.read_only,
       k.independent, k.client_id, k.executors, k.child_turn, k.deadline, k.release_at, k.created_at, k.started_at, k.finished_at,
       (SELECT o.owner FROM sessions o WHERE o.session_id = k.session_id) AS owner, t.agent_type,
       CASE WHEN t.step = k.step THEN t.message_id END AS message_id, t.parent_call, CASE WHEN t.depth > 0 THEN t.turn_id END AS thread,
       a.approval_id, a.state AS approval_state, a.arguments_hash AS approval_arguments_hash,
       a.allowed_decisions AS approval_allowed_decisions, a.expires_at AS approval_expires_at, a.rule AS approval_rule,
       a.reason AS approval_reason, a.parameters AS approval_parameters, a.decided_by AS approval_decided_by
  FROM tool_calls k
  JOIN turns t ON t.turn_id = k.turn_id
  LEFT JOIN approvals a ON a.call_id = k.call_id

-- name: approvals_with_call
-- Approvals that nobody has decided, each with its call.
SELECT a.approval_id, a.session_id, a.owner, a.turn_id, a.call_id, t.message_id, a.agent_type, a.name, k.arguments, a.arguments_hash,
       a.allowed_decisions, a.rule, a.reason, a.parameters, a.created_at, a.expires_at
  FROM approvals a
  JOIN tool_calls k ON k.call_id = a.call_id
  JOIN turns t ON t.turn_id = a.turn_id
