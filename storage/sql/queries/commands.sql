-- Commands of clients: each one statement, one transaction, one round trip. The parameters $1 to $8 are the same in all;
-- $9 and $10 are the events, but in user_message, which brings those of two cases.

-- name: user_message
-- Starts a turn when the session is idle, else appends to the queue; the events of both cases come ready-made.
-- $9 message, $10 content, $11 agent, $12 the agent must still be the session's, $13 turn, $14 the answer's message,
-- $15 worker, $16 refuse when busy, $17 most that may wait, $18 title, $19/$20 events when idle, $21/$22 events when busy.
WITH s AS MATERIALIZED ({locked_session}),
     v AS (
       SELECT s.*, s.active_turn IS NULL AND s.queued = 0 AS idle,
              CASE WHEN s.active_turn IS NULL AND s.queued = 0 THEN 'accepted' ELSE 'queued' END AS status,
              $9::uuid AS message_id,
              CASE WHEN s.active_turn IS NULL AND s.queued = 0 THEN $13::uuid END AS turn_id,
              CASE WHEN s.active_turn IS NULL AND s.queued = 0
                   THEN CASE WHEN $12::boolean AND s.current_agent <> $11 THEN 'stale' END
                   WHEN $16::boolean THEN 'busy'
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
       INSERT INTO turns (turn_id, session_id, user_message_id, agent_type, state, created_at)
       SELECT $13, session_id, $9, $11, 'running', $8 FROM fresh WHERE idle
     ),
     new_step AS (
       INSERT INTO steps (turn_id, step, session_id, message_id, state, worker_id, created_at)
       SELECT $13, 1, session_id, $14, 'running', $15, $8 FROM fresh WHERE idle
     ),
     new_entry AS (
       INSERT INTO queue (session_id, message_id, position, content, agent_type, command_id, client_id, user_id, created_at)
       SELECT session_id, $9, seq + 1, $10, CASE WHEN NOT $12 THEN $11 END, $5, $3, $7, $8 FROM fresh WHERE NOT idle
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
-- Asks the running turn to stop; its worker ends it. $9/$10 events.
-- $11 the turn, which must be the one running: who knows its id has a snapshot in which its row can be found.
WITH s AS MATERIALIZED ({locked_session}),
     v AS (
       SELECT s.*, 'accepted'::text AS status, NULL::uuid AS message_id, s.active_turn AS turn_id,
              CASE WHEN s.active_turn IS NULL THEN 'no_active_turn'
                   WHEN s.active_turn IS DISTINCT FROM $11::uuid THEN 'stale' END AS refusal
         FROM s
     ),
     numbered AS ({numbered}),
     c AS ({stored_command}),
     fresh AS (SELECT v.* FROM v, c WHERE c.first_seq > v.seq),
     asked AS (UPDATE turns SET cancel_requested = true FROM fresh WHERE turns.turn_id = fresh.active_turn),
     new_events AS ({announced}),
     new_head AS (
       UPDATE sessions SET seq = fresh.seq + cardinality($9), last_activity = $8
         FROM fresh WHERE sessions.session_id = fresh.session_id
     )
{command_outcome}

-- name: switch_agent
-- Makes another agent the session's own, from its next turn on. $11 agent now, $12 agent to be, $9/$10 events.
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
