-- Commands of clients: each one statement, one transaction, one round trip. The parameters $1 to $8 are the same in all but
-- the first two; $9 and $10 are the events, but in user_message, which brings those of two cases.

-- name: user_message_idle
-- Starts a turn in a session that is thought to be idle: what user_message does, with nothing left to decide. No row means
-- that something is not as it was thought to be, or that the command was here before: then user_message decides.
-- The session's row is locked and written in one, and only what that row says is sure after a wait for it. So an earlier
-- delivery that committed during that wait is not seen here; but its command is in the way of this one, and the statement fails.
-- $1 session, $2 owner, $3 client, $4 command, $5 body hash, $6 user, $7 now, $8 message, $9 content, $10 agent, $11 the agent
-- must still be the session's, $12 turn, $13 the answer's message, $14 worker, $15 title, $16/$17 events.
WITH fresh AS (
       UPDATE sessions
          SET seq = seq + cardinality($16::text[]), active_turn = $12, message_count = message_count + 1,
              title = coalesce(title, $15), last_activity = $7
        WHERE session_id = $1 AND owner = $2 AND deleted_at IS NULL AND active_turn IS NULL AND queued = 0
          AND (current_agent = $10 OR NOT $11::boolean)
          AND NOT EXISTS (SELECT FROM commands WHERE commands.session_id = $1 AND commands.command_id = $4)
       RETURNING epoch, seq - cardinality($16::text[]) AS seq
     ),
     new_command AS (
       INSERT INTO commands (session_id, command_id, body_hash, first_seq, status, message_id, turn_id, client_id, user_id, created_at)
       SELECT $1, $4, $5, seq + 1, 'accepted', $8, $12, $3, $6, $7 FROM fresh
     ),
     new_message AS (
       INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, created_at)
       SELECT $8, $1, seq + 1, $12, 'user', $9, $7 FROM fresh
     ),
     new_turn AS (
       INSERT INTO turns (turn_id, session_id, user_message_id, agent_type, created_at, message_id, worker_id)
       SELECT $12, $1, $8, $10, $7, $13, $14 FROM fresh
     ),
     new_events AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT $1, fresh.seq + e.ordinal, e.event_type, $7, e.body
         FROM fresh, unnest($16, $17::bytea[]) WITH ORDINALITY AS e (event_type, body, ordinal)
     )
SELECT epoch, seq FROM fresh

-- name: user_message_busy
-- Appends to the queue of a session that is thought to be busy: what user_message does, with nothing left to decide. No row
-- means that something is not as it was thought to be, or that the command was here before: then user_message decides.
-- $1 session, $2 owner, $3 client, $4 command, $5 body hash, $6 user, $7 now, $8 message, $9 content, $10 agent if the message
-- names one, $11 title, $12 most that may wait, $13/$14 the event, $15 'steer' if it is for the running turn.
WITH fresh AS (
       UPDATE sessions
          SET seq = seq + 1, queued = queued + 1, title = coalesce(title, $11), last_activity = $7
        WHERE session_id = $1 AND owner = $2 AND deleted_at IS NULL AND (active_turn IS NOT NULL OR queued > 0)
          AND queued < $12::integer
          AND NOT EXISTS (SELECT FROM commands WHERE commands.session_id = $1 AND commands.command_id = $4)
       RETURNING epoch, seq
     ),
     new_command AS (
       INSERT INTO commands (session_id, command_id, body_hash, first_seq, status, message_id, client_id, user_id, created_at)
       SELECT $1, $4, $5, seq, 'queued', $8, $3, $6, $7 FROM fresh
     ),
     new_entry AS (
       INSERT INTO queue (session_id, message_id, position, content, agent_type, command_id, client_id, user_id, created_at, on_busy)
       SELECT $1, $8, seq, $9, $10, $4, $3, $6, $7, $15 FROM fresh
     ),
     new_event AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body) SELECT $1, seq, $13, $7, $14 FROM fresh
     )
SELECT epoch, seq - 1 AS seq FROM fresh

-- name: user_message
-- Starts a turn when the session is idle, else appends to the queue; the events of both cases come ready-made. It answers
-- repeats and numbered commands, and says what it refuses.
-- $9 message, $10 content, $11 agent, $12 the agent must still be the session's, $13 turn, $14 the answer's message,
-- $15 worker, $16 what to do when busy, $17 most that may wait, $18 title, $19/$20 events when idle, $21/$22 events when busy.
WITH s AS MATERIALIZED ({locked_session}),
     v AS (
       SELECT s.*, s.active_turn IS NULL AND s.queued = 0 AS idle,
              CASE WHEN s.active_turn IS NULL AND s.queued = 0 THEN 'accepted' ELSE 'queued' END AS status,
              $9::uuid AS message_id,
              CASE WHEN s.active_turn IS NULL AND s.queued = 0 THEN $13::uuid END AS turn_id,
              CASE WHEN s.active_turn IS NULL AND s.queued = 0
                   THEN CASE WHEN $12::boolean AND s.current_agent <> $11 THEN 'stale' END
                   WHEN $16::text = 'reject' THEN 'busy'
                   WHEN $16 = 'interrupt' THEN 'stale'
                   WHEN s.queued >= $17::integer THEN 'queue_full' END AS refusal
         FROM s
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     new_message AS (
       INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, created_at)
       SELECT $9, session_id, seq + 1, $13, 'user', $10, $8 FROM fresh WHERE idle
     ),
     new_turn AS (
       INSERT INTO turns (turn_id, session_id, user_message_id, agent_type, created_at, message_id, worker_id)
       SELECT $13, session_id, $9, $11, $8, $14, $15 FROM fresh WHERE idle
     ),
     new_entry AS (
       INSERT INTO queue (session_id, message_id, position, content, agent_type, command_id, client_id, user_id, created_at, on_busy)
       SELECT session_id, $9, seq + 1, $10, CASE WHEN NOT $12 THEN $11 END, $5, $3, $7, $8, CASE WHEN $16 = 'steer' THEN $16 END
         FROM fresh
        WHERE NOT idle
     ),
     new_events AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT fresh.session_id, fresh.seq + e.ordinal, e.event_type, $8, e.body
         FROM fresh
        CROSS JOIN LATERAL unnest(CASE WHEN fresh.idle THEN $19::text[] ELSE $21::text[] END,
                                  CASE WHEN fresh.idle THEN $20::bytea[] ELSE $22::bytea[] END)
              WITH ORDINALITY AS e (event_type, body, ordinal)
     ),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + CASE WHEN fresh.idle THEN cardinality($19) ELSE cardinality($21) END,
              active_turn = CASE WHEN fresh.idle THEN $13 ELSE fresh.active_turn END,
              queued = fresh.queued + CASE WHEN fresh.idle THEN 0 ELSE 1 END,
              message_count = sessions.message_count + CASE WHEN fresh.idle THEN 1 ELSE 0 END,
              title = coalesce(sessions.title, $18),
              last_activity = $8
         FROM fresh
        WHERE sessions.session_id = fresh.session_id
     )
{command_outcome}

-- name: cancel
-- Asks the running turn to stop, and those that answer its calls; their workers end them, and those that wait are the caller's now.
-- $9/$10 events. $11 the turn, which must be the one running: who knows its id has a snapshot in which its row can be found. The others
-- may have begun during the wait for the session: where it was written to meanwhile, nothing is done. $12 worker.
WITH s AS MATERIALIZED ({locked_session}),
     v AS (
       SELECT s.*, 'accepted'::text AS status, NULL::uuid AS message_id, s.active_turn AS turn_id, $12::uuid AS worker,
              CASE WHEN s.active_turn IS NULL THEN 'no_active_turn'
                   WHEN s.active_turn IS DISTINCT FROM $11::uuid THEN 'stale'
                   WHEN {behind} THEN 'behind' END AS refusal
         FROM s
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     t AS MATERIALIZED (
       SELECT t.turn_id, t.state = 'waiting' AS waits FROM fresh AS s CROSS JOIN LATERAL ({open_turns}) t
     ),
     roused AS (
       UPDATE turns
          SET cancel_requested = true, {rouse}
         FROM fresh, t
        WHERE turns.turn_id = t.turn_id
       RETURNING {claimed}, t.waits
     ),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions SET seq = fresh.seq + cardinality($9), last_activity = $8
         FROM fresh WHERE sessions.session_id = fresh.session_id
     )
{outcome_with_claims}

-- name: interrupt
-- Puts a message before all that wait, and asks the running turn to stop, as `cancel` does. $9/$10 events; the first tells of the
-- message. $11 the turn, which must be the one running; NULL: none runs, but messages wait. $12 worker, $13 message, $14 content,
-- $15 agent if the message names one, $16 title, $17 most that may wait.
WITH s AS MATERIALIZED ({locked_session}),
     v AS (
       SELECT s.*, 'queued'::text AS status, $13::uuid AS message_id, NULL::uuid AS turn_id, $12::uuid AS worker,
              CASE WHEN s.active_turn IS DISTINCT FROM $11::uuid OR (s.active_turn IS NULL AND s.queued = 0) THEN 'stale'
                   WHEN s.queued >= $17::integer THEN 'queue_full'
                   WHEN {behind} THEN 'behind' END AS refusal
         FROM s
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     t AS MATERIALIZED (
       SELECT t.turn_id, t.state = 'waiting' AS waits FROM fresh AS s CROSS JOIN LATERAL ({open_turns}) t
     ),
     roused AS (
       UPDATE turns
          SET cancel_requested = true, {rouse}
         FROM fresh, t
        WHERE turns.turn_id = t.turn_id
       RETURNING {claimed}, t.waits
     ),
     new_entry AS (
       INSERT INTO queue (session_id, message_id, position, content, agent_type, command_id, client_id, user_id, created_at, on_busy)
       SELECT session_id, $13, -seq - 1, $14, $15, $5, $3, $7, $8, 'interrupt' FROM fresh
     ),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($9), queued = fresh.queued + 1, title = coalesce(sessions.title, $16), last_activity = $8
         FROM fresh WHERE sessions.session_id = fresh.session_id
     )
{outcome_with_claims}

-- name: tool_result
-- Stores what a client's tool came to: the call's one result. It is taken from a client that has or had the call, or, where nobody has
-- it, from any. $9/$10 events, $11 call, $12 worker, $13 its state to be, $14 client, $15 the message, as JSON.
WITH s AS MATERIALIZED ({locked_session}),
     k AS MATERIALIZED (
       SELECT t.turn_id, t.depth, t.waits, k.call_id, k.state, k.executor, k.client_id, k.executors, k.finished_at
         FROM s
        CROSS JOIN LATERAL (
              SELECT turns.turn_id, turns.depth, turns.state = 'waiting' AS waits FROM turns
               WHERE turns.turn_id = (SELECT tool_calls.turn_id FROM tool_calls
                                       WHERE tool_calls.call_id = $11::uuid AND tool_calls.session_id = s.session_id)
                 FOR NO KEY UPDATE) t
        CROSS JOIN LATERAL (SELECT * FROM tool_calls WHERE tool_calls.call_id = $11 FOR NO KEY UPDATE) k
     ),
     v AS (
       SELECT s.*, 'accepted'::text AS status, NULL::uuid AS message_id, k.turn_id, k.depth, k.waits, $12::uuid AS worker,
              k.state AS settled, coalesce(k.client_id, (SELECT a.decided_by FROM approvals a WHERE a.call_id = $11)) AS settled_by,
              CASE WHEN k.call_id IS NULL THEN 'no_call'
                   WHEN k.finished_at IS NOT NULL THEN 'resolved'
                   WHEN k.executor <> 'client' THEN 'not_a_clients'
                   WHEN k.state = 'awaiting_approval' THEN 'undecided'
                   WHEN $14::text = ANY(k.executors) OR (k.state = 'ready' AND k.client_id IS NULL) THEN NULL
                   ELSE 'anothers' END AS refusal
         FROM s LEFT JOIN k ON true
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     ended AS (
       UPDATE tool_calls
          SET state = $13::text, finished_at = $8, client_id = coalesce($14, tool_calls.client_id),
              executors = CASE WHEN $14 IS NULL OR $14 = ANY(tool_calls.executors) THEN tool_calls.executors
                               ELSE tool_calls.executors || $14 END
         FROM fresh
        WHERE tool_calls.call_id = $11
     ),
     roused AS (
       UPDATE turns
          SET {rouse}
         FROM fresh
        WHERE turns.turn_id = fresh.turn_id
       RETURNING {claimed}, fresh.waits
     ),
     new_message AS ({result_message}),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($9), last_activity = $8,
              message_count = sessions.message_count + CASE WHEN fresh.depth = 0 THEN json_array_length($15) ELSE 0 END
         FROM fresh WHERE sessions.session_id = fresh.session_id
     )
{outcome_of_call}

-- name: decide
-- Stores what a person decided about a call: the first decision, and none after the approval has expired. $9/$10 events, $11 call, $12
-- worker, $13 the approval's state to be, $14 the call's, $15 the message, if the decision is the call's result, $16 what is to run,
-- $17 feedback, $18 audit, $19 rule; the message and these two are JSON.
WITH s AS MATERIALIZED ({locked_session}),
     k AS MATERIALIZED (
       SELECT t.turn_id, t.depth, t.waits, k.call_id, k.finished_at, k.state AS call_state, a.approval_id, a.state, a.decided_by,
              a.expires_at
         FROM s
        CROSS JOIN LATERAL (
              SELECT turns.turn_id, turns.depth, turns.state = 'waiting' AS waits FROM turns
               WHERE turns.turn_id = (SELECT tool_calls.turn_id FROM tool_calls
                                       WHERE tool_calls.call_id = $11::uuid AND tool_calls.session_id = s.session_id)
                 FOR NO KEY UPDATE) t
        CROSS JOIN LATERAL (SELECT * FROM tool_calls WHERE tool_calls.call_id = $11 FOR NO KEY UPDATE) k
         LEFT JOIN LATERAL (SELECT * FROM approvals WHERE approvals.call_id = $11 FOR NO KEY UPDATE) a ON true
     ),
     v AS (
       SELECT s.*, 'accepted'::text AS status, NULL::uuid AS message_id, k.turn_id, k.depth, k.waits, k.approval_id, $12::uuid AS worker,
              CASE WHEN k.state = 'pending' THEN k.call_state ELSE k.state END AS settled, k.decided_by AS settled_by,
              CASE WHEN k.call_id IS NULL THEN 'no_call'
                   WHEN k.approval_id IS NULL THEN 'no_approval'
                   WHEN k.state <> 'pending' OR k.finished_at IS NOT NULL THEN 'resolved'
                   WHEN k.expires_at <= $8 THEN 'expired' END AS refusal
         FROM s LEFT JOIN k ON true
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     decided AS (
       UPDATE approvals SET state = $13::text, decided_at = $8, decided_by = $7, client_id = $3, feedback = $17::text
         FROM fresh
        WHERE approvals.approval_id = fresh.approval_id
     ),
     moved AS (
       UPDATE tool_calls
          SET state = $14::text, final_arguments = $16::text,
              finished_at = CASE WHEN $14 IN ('completed', 'failed', 'rejected', 'cancelled') THEN $8 END
         FROM fresh
        WHERE tool_calls.call_id = $11
     ),
     roused AS (
       UPDATE turns
          SET {rouse}
         FROM fresh
        WHERE turns.turn_id = fresh.turn_id
       RETURNING {claimed}, fresh.waits
     ),
     new_message AS ({result_message}),
     new_audit AS (
       INSERT INTO audit (at, owner, session_id, event_type, user_id, client_id, transport, turn_id, call_id, tool, decision, cause,
                          arguments, executed, feedback, rule)
       SELECT $8, fresh.owner, fresh.session_id, a.event_type, a.user_id, a.client_id, a.transport, fresh.turn_id, $11, a.tool,
              a.decision, a.cause, a.arguments, a.executed, a.feedback, a.rule
         FROM fresh,
              json_to_recordset($18::json) AS a (event_type text, user_id text, client_id text, transport text, tool text, decision text,
                                                 cause text, arguments text, executed text, feedback text, rule text)
     ),
     new_rule AS (
       INSERT INTO approval_rules (rule_id, owner, session_id, scope, tool, arguments, effect, created_at, created_by, call_id)
       SELECT r.rule_id, fresh.owner, CASE WHEN r.scope = 'session' THEN fresh.session_id END, r.scope, r.tool,
              decode(r.arguments, 'base64'), r.effect, $8, $7, $11
         FROM fresh,
              json_to_recordset($19::json) AS r (rule_id uuid, scope text, tool text, arguments text, effect text)
     ),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($9), last_activity = $8,
              message_count = sessions.message_count + CASE WHEN fresh.depth = 0 THEN json_array_length($15) ELSE 0 END
         FROM fresh WHERE sessions.session_id = fresh.session_id
     )
{outcome_of_call}

-- name: lock_session
-- The session's row, locked for the statements that follow in the same transaction. $1 session, $2 owner.
SELECT session_id FROM sessions WHERE session_id = $1 AND owner = $2 AND deleted_at IS NULL FOR NO KEY UPDATE

-- name: switch_agent
-- Makes another agent the session's own, from its next turn on. $11 agent now, $12 agent to be, $13 why, $14 how sure, $9/$10 events.
WITH s AS MATERIALIZED ({locked_session}),
     v AS (
       SELECT s.*, 'accepted'::text AS status, NULL::uuid AS message_id, NULL::uuid AS turn_id,
              CASE WHEN s.current_agent <> $11 THEN 'stale' END AS refusal
         FROM s
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions SET seq = fresh.seq + cardinality($9), current_agent = $12, last_activity = $8
         FROM fresh WHERE sessions.session_id = fresh.session_id
     ),
     new_switch AS (
       INSERT INTO agent_switches (session_id, seq, from_agent, to_agent, reason, confidence, cause, user_id, switched_at)
       SELECT session_id, seq + 1, $11, $12, $13::text, $14::double precision, 'client', $7, $8 FROM fresh
     )
{command_outcome}

-- name: remove_queued
-- Takes one message out of the queue. $11 message, $9/$10 events.
WITH s AS MATERIALIZED ({locked_session}),
     v AS (
       SELECT s.*, 'accepted'::text AS status, $11::uuid AS message_id, NULL::uuid AS turn_id,
              CASE WHEN q.message_id IS NULL THEN 'not_waiting' END AS refusal
         FROM s LEFT JOIN LATERAL (
              SELECT queue.message_id FROM queue
               WHERE queue.session_id = s.session_id AND queue.message_id = $11 FOR UPDATE) q ON true
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     gone AS (DELETE FROM queue USING fresh WHERE queue.session_id = fresh.session_id AND queue.message_id = $11),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions SET seq = fresh.seq + cardinality($9), queued = fresh.queued - 1, last_activity = $8
         FROM fresh WHERE sessions.session_id = fresh.session_id
     )
{command_outcome}

-- name: reorder_queue
-- Puts the waiting messages into the order given, which must name each of them once. $11 messages, $9/$10 events.
-- They are locked because only so those are left out that were taken away while this statement waited for the session.
WITH s AS MATERIALIZED ({locked_session}),
     waiting AS MATERIALIZED (
       SELECT q.message_id
         FROM s CROSS JOIN LATERAL (
              SELECT queue.message_id FROM queue
               WHERE queue.session_id = s.session_id AND queue.message_id = ANY($11::uuid[]) FOR UPDATE) q
     ),
     v AS (
       SELECT s.*, 'accepted'::text AS status, NULL::uuid AS message_id, NULL::uuid AS turn_id,
              CASE WHEN cardinality($11) <> s.queued OR (SELECT count(*) FROM waiting) <> s.queued
                   THEN 'not_the_queue' END AS refusal
         FROM s
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     moved AS (
       UPDATE queue SET position = fresh.seq + o.ordinal - cardinality($11)
         FROM fresh, unnest($11) WITH ORDINALITY AS o (message_id, ordinal)
        WHERE queue.session_id = fresh.session_id AND queue.message_id = o.message_id
     ),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions SET seq = fresh.seq + cardinality($9), last_activity = $8
         FROM fresh WHERE sessions.session_id = fresh.session_id
     )
{command_outcome}

-- name: find_command
-- What an earlier delivery of a command stored: asked after a refusal, with a snapshot younger than the wait. $1 session, $2 command.
SELECT c.body_hash, c.first_seq, c.status, c.message_id, c.turn_id
  FROM commands c
 WHERE c.session_id = $1 AND c.command_id = $2
