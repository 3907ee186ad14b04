-- Turns, each with the step that is under way. A step belongs to the worker and attempt that claimed it; every write of it
-- is fenced by both, and by the revision that the writer knows.

-- name: advance
-- All that one move of a turn writes: messages, events, calls and their ends, the step's state, the next step or the turn's end.
-- No row means that the step is no longer the caller's, or that this very write happened already.
-- $1 session, $2 turn, $3 step, $4 worker, $5 attempt, $6 revision, $7 now, $8 step's state to be,
-- $9/$10 events; messages by $11 id, $12 ordinal of their event, $13 role, $14 content, $15 reasoning, $16 name, $17 call,
-- $18 tool calls, $19 agent, $20 finish reason; calls by $21 id, $22 name, $23 arguments, $24 executor; $25 calls that ended,
-- $26 and whether they failed; $27 turn's state to be, $28/$29 error, $30/$31 tokens, $32 the next step's message.
WITH s AS MATERIALIZED (
       SELECT session_id, epoch, seq FROM sessions WHERE session_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
     ),
     fresh AS (
       UPDATE turns
          SET revision = turns.revision + 1,
              step_state = CASE WHEN $32::uuid IS NULL THEN $8::text ELSE 'running' END,
              step = turns.step + CASE WHEN $32 IS NULL THEN 0 ELSE 1 END,
              message_id = coalesce($32, turns.message_id),
              attempt = CASE WHEN $32 IS NULL THEN turns.attempt ELSE 1 END,
              content = CASE WHEN $8 = 'running' THEN turns.content ELSE '' END,
              reasoning = CASE WHEN $8 = 'running' THEN turns.reasoning ELSE '' END,
              state = coalesce($27::text, turns.state), error_code = $28, error_message = $29,
              prompt_tokens = turns.prompt_tokens + $30, completion_tokens = turns.completion_tokens + $31,
              finished_at = CASE WHEN $27 IS NULL THEN NULL ELSE $7::timestamptz END
         FROM s
        WHERE turns.turn_id = $2 AND turns.step = $3 AND turns.session_id = s.session_id
          AND turns.worker_id = $4 AND turns.attempt = $5 AND turns.revision = $6 AND turns.finished_at IS NULL
       RETURNING s.session_id, s.epoch, s.seq, turns.cancel_requested
     ),
     new_messages AS (
       INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, reasoning, name, call_id, tool_calls,
                             agent_type, finish_reason, created_at)
       SELECT m.message_id, fresh.session_id, fresh.seq + m.ordinal, $2, m.role, m.content, m.reasoning, m.name, m.call_id,
              m.tool_calls, m.agent_type, m.finish_reason, $7
         FROM fresh, unnest($11::uuid[], $12::integer[], $13::text[], $14::text[], $15::text[], $16::text[], $17::uuid[],
                            $18::bytea[], $19::text[], $20::text[])
              AS m (message_id, ordinal, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason)
     ),
     new_calls AS (
       INSERT INTO tool_calls (call_id, session_id, turn_id, step, ordinal, name, arguments, executor, state, created_at)
       SELECT k.call_id, fresh.session_id, $2, $3, k.ordinal, k.name, k.arguments, k.executor, 'pending', $7
         FROM fresh, unnest($21::uuid[], $22::text[], $23::text[], $24::text[])
              WITH ORDINALITY AS k (call_id, name, arguments, executor, ordinal)
     ),
     ended_calls AS (
       UPDATE tool_calls SET state = 'done', failed = k.failed, finished_at = $7
         FROM fresh, unnest($25::uuid[], $26::boolean[]) AS k (call_id, failed)
        WHERE tool_calls.turn_id = $2 AND tool_calls.step = $3 AND tool_calls.call_id = k.call_id
     ),
     new_events AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT fresh.session_id, fresh.seq + e.ordinal, e.event_type, $7, e.body
         FROM fresh, unnest($9::text[], $10::bytea[]) WITH ORDINALITY AS e (event_type, body, ordinal)
     ),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($9), message_count = sessions.message_count + cardinality($11), last_activity = $7,
              active_turn = CASE WHEN $27 IS NULL THEN sessions.active_turn END
         FROM fresh
        WHERE sessions.session_id = fresh.session_id
       RETURNING sessions.queued
     )
SELECT fresh.epoch, fresh.seq, fresh.cancel_requested, new_head.queued FROM fresh, new_head

-- name: start_queued
-- The turn of the first waiting message begins. No row means that somebody else was faster, or the agent or the order changed.
-- The queue is locked whole because only so it is seen as it was when this statement's wait for the session ended.
-- $1 session, $2 message, $3 agent, $4 that it must still be the session's, $5 turn, $6 the answer's message, $7 worker, $8 now,
-- $9/$10 events, $11 ordinal of the event that announces the message.
WITH s AS MATERIALIZED (
       SELECT session_id, epoch, seq, current_agent
         FROM sessions
        WHERE session_id = $1 AND deleted_at IS NULL AND active_turn IS NULL FOR NO KEY UPDATE
     ),
     waiting AS MATERIALIZED (
       SELECT q.message_id, q.position
         FROM s CROSS JOIN LATERAL (
              SELECT queue.message_id, queue.position FROM queue WHERE queue.session_id = s.session_id FOR UPDATE) q
     ),
     fresh AS (
       DELETE FROM queue USING s
        WHERE queue.session_id = s.session_id AND queue.message_id = $2
          AND $2 = (SELECT message_id FROM waiting ORDER BY position LIMIT 1)
          AND (s.current_agent = $3 OR NOT $4::boolean)
       RETURNING s.session_id, s.epoch, s.seq, queue.content
     ),
     new_message AS (
       INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, created_at)
       SELECT $2, session_id, seq + $11, $5, 'user', content, $8 FROM fresh
     ),
     new_turn AS (
       INSERT INTO turns (turn_id, session_id, user_message_id, agent_type, created_at, message_id, worker_id)
       SELECT $5, session_id, $2, $3, $8, $6, $7 FROM fresh
     ),
     new_events AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT fresh.session_id, fresh.seq + e.ordinal, e.event_type, $8, e.body
         FROM fresh, unnest($9::text[], $10::bytea[]) WITH ORDINALITY AS e (event_type, body, ordinal)
     ),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($9), active_turn = $5, queued = sessions.queued - 1,
              message_count = sessions.message_count + 1, last_activity = $8
         FROM fresh
        WHERE sessions.session_id = fresh.session_id
     )
SELECT epoch, seq FROM fresh

-- name: start_call
-- A call begins to run. No row means that the step is no longer the caller's, or the call ended. $1 call, $2 worker, $3 attempt, $4 now.
UPDATE tool_calls
   SET state = 'running', started_at = $4
  FROM turns
 WHERE tool_calls.call_id = $1 AND tool_calls.state <> 'done'
   AND turns.turn_id = tool_calls.turn_id AND turns.step = tool_calls.step
   AND turns.worker_id = $2 AND turns.attempt = $3 AND turns.step_state = 'tools'
RETURNING tool_calls.call_id

-- name: checkpoint
-- The texts of all messages that a worker is writing, at once. Returns the turns whose steps are still its own.
-- $1 worker, $2 turns, $3 steps, $4 attempts, $5 contents, $6 reasonings.
UPDATE turns
   SET content = k.content, reasoning = k.reasoning
  FROM unnest($2::uuid[], $3::integer[], $4::integer[], $5::text[], $6::text[]) AS k (turn_id, step, attempt, content, reasoning)
 WHERE turns.turn_id = k.turn_id AND turns.step = k.step AND turns.worker_id = $1 AND turns.attempt = k.attempt
   AND turns.step_state = 'running'
RETURNING turns.turn_id

-- name: claim_steps
-- Steps whose worker is gone, or is the caller who does not know of them: claimed by a new attempt.
-- NOT IN and no joins: of a step that somebody claimed in between the condition is asked again, and a join would be asked
-- about the worker that the step had before. $1 worker, $2 turns it runs or is about to start, $3 most to claim.
WITH lost AS (
       SELECT turns.turn_id
         FROM turns
        WHERE turns.finished_at IS NULL
          AND CASE WHEN turns.worker_id = $1 THEN turns.turn_id NOT IN (SELECT unnest($2::uuid[]))
                   ELSE turns.worker_id NOT IN (SELECT worker_id FROM workers WHERE lease_until >= clock_timestamp()) END
        ORDER BY turns.turn_id
        LIMIT $3
          FOR UPDATE SKIP LOCKED
     )
UPDATE turns
   SET worker_id = $1, attempt = turns.attempt + 1, revision = turns.revision + 1
  FROM lost
 WHERE turns.turn_id = lost.turn_id
RETURNING turns.session_id, turns.turn_id, turns.step, turns.message_id, turns.step_state AS state, turns.attempt,
          turns.revision, turns.content, turns.reasoning, turns.agent_type, turns.user_message_id, turns.created_at,
          turns.cancel_requested, turns.prompt_tokens, turns.completion_tokens

-- name: turn_now
-- How a turn stands: asked when a write of it found nothing to write. $1 turn.
SELECT turns.worker_id, turns.step, turns.attempt, turns.revision, turns.cancel_requested, sessions.queued
  FROM turns JOIN sessions USING (session_id)
 WHERE turns.turn_id = $1

-- name: calls_of_step
-- The calls of one step in the order given by the agent. $1 turn, $2 step.
SELECT call_id, name, arguments, executor, state FROM tool_calls WHERE turn_id = $1 AND step = $2 ORDER BY ordinal

-- name: cancelled_turns
-- Those of the given turns that somebody asked to stop, or that are gone with their session. $1 turns.
SELECT asked.turn_id
  FROM unnest($1::uuid[]) AS asked (turn_id) LEFT JOIN turns USING (turn_id)
 WHERE turns.turn_id IS NULL OR turns.cancel_requested

-- name: next_queued
-- The first waiting message of an idle session, with the session's agent. $1 session.
SELECT q.message_id, q.content, q.agent_type, q.command_id, q.client_id, s.current_agent
  FROM sessions s JOIN queue q USING (session_id)
 WHERE s.session_id = $1 AND s.active_turn IS NULL AND s.deleted_at IS NULL
 ORDER BY q.position
 LIMIT 1

-- name: waiting_sessions
-- Idle sessions in which somebody waits: a process ended between a turn and the next. $1 most to return.
SELECT DISTINCT queue.session_id
  FROM queue JOIN sessions USING (session_id)
 WHERE sessions.active_turn IS NULL AND sessions.deleted_at IS NULL
 LIMIT $1

-- name: renew_worker
-- The worker is alive for another lease. $1 worker, $2 host, $3 process, $4 seconds.
INSERT INTO workers (worker_id, host, process, lease_until)
VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => $4))
    ON CONFLICT (worker_id) DO UPDATE SET lease_until = EXCLUDED.lease_until

-- name: workers_of_host
-- The workers that were started on this host, to see which of them are gone. $1 host.
SELECT worker_id, process FROM workers WHERE host = $1

-- name: forget_workers
-- These workers are gone: their steps may be claimed at once. $1 workers.
DELETE FROM workers WHERE worker_id = ANY($1::uuid[])

-- name: forget_expired_workers
-- Workers whose lease ended long ago: nothing asks for them any more. $1 seconds.
DELETE FROM workers WHERE lease_until < clock_timestamp() - make_interval(secs => $1)
