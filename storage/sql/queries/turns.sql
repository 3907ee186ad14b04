-- Turns, each with the step that is under way. A step belongs to the worker and attempt that claimed it; every write of it
-- is fenced by both, and by the revision that the writer knows.

-- name: advance
-- All that a plain move of a turn writes: messages, events, what the step took, the step's state, the next step or the turn's end.
-- No row means that the step is no longer the caller's, or that this very write happened already. Its parameters are those of
-- `advance_calls` too, as the fragments name them: $1 session, $2 to $6 the claim, $7 now, $8 step's state to be, $9/$10 events, $11 to
-- $22 messages, $23 how many of them are the conversation's, $24 turn's state to be, $25/$26 error, $27/$28 tokens, $29 cost, $30 the
-- next step's message, $31 to $39 what the step took, $40 agent.
WITH s AS MATERIALIZED (
       SELECT session_id, owner, epoch, seq FROM sessions WHERE session_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
     ),
     fresh AS (
       UPDATE turns
          SET {moved_on}, state = coalesce($24, turns.state)
         FROM s
        WHERE {held}
       RETURNING s.session_id, s.owner, s.epoch, s.seq, turns.cancel_requested, turns.news
     ),
     new_messages AS ({moves_messages}),
     new_request AS ({moves_request}),
     new_events AS ({moves_events}),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($9), message_count = sessions.message_count + $23, last_activity = $7,
              active_turn = CASE WHEN $24 IS NULL OR sessions.active_turn <> $2 THEN sessions.active_turn END
         FROM fresh
        WHERE sessions.session_id = fresh.session_id
       RETURNING sessions.queued
     )
SELECT fresh.epoch, fresh.seq, fresh.cancel_requested, fresh.news, new_head.queued,
       {steering}
  FROM fresh, new_head

-- name: advance_calls
-- A move that concerns calls: what `advance` writes, and what becomes of calls, approvals, child turns and the agent. No row: the same,
-- or there is other news than the caller knows, or the call that this turn answers has its result.
-- $41 news that must be all, $42 news at which the turn is parked, $43 new calls, $44 what becomes of the step's calls, $45 new
-- approvals, $46/$47 approvals that nobody decides any more, $48 audit, $49 the agent that goes on, $50 child turns, $51/$52 the call
-- that this turn answers. Lists are JSON, their keys the columns below.
WITH s AS MATERIALIZED (
       SELECT session_id, owner, epoch, seq FROM sessions WHERE session_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
     ),
     asked AS MATERIALIZED (
       SELECT k.call_id, t.turn_id, t.state = 'waiting' AS waits
         FROM s
        CROSS JOIN LATERAL (
              SELECT turns.turn_id, turns.state FROM turns
               WHERE turns.turn_id = (SELECT tool_calls.turn_id FROM tool_calls WHERE tool_calls.call_id = $51::uuid)
                 FOR NO KEY UPDATE) t
        CROSS JOIN LATERAL (
              SELECT tool_calls.call_id FROM tool_calls
               WHERE tool_calls.call_id = $51 AND tool_calls.turn_id = t.turn_id AND tool_calls.state = 'running'
                 FOR NO KEY UPDATE) k
     ),
     fresh AS (
       UPDATE turns
          SET {moved_on},
              state = CASE WHEN turns.news = $42::integer THEN 'waiting' ELSE coalesce($24, turns.state) END,
              agent_type = coalesce($49::json -> 0 ->> 'to_agent', turns.agent_type),
              switches = turns.switches + json_array_length($49)
         FROM s LEFT JOIN asked ON true
        WHERE {held}
          AND ($41::integer IS NULL OR turns.news = $41) AND ($51 IS NULL OR asked.call_id IS NOT NULL)
       RETURNING s.session_id, s.owner, s.epoch, s.seq, turns.cancel_requested, turns.news, turns.depth, turns.worker_id AS worker,
                 turns.state = 'waiting' AS parked
     ),
     new_messages AS ({moves_messages}),
     new_request AS ({moves_request}),
     new_events AS ({moves_events}),
     new_calls AS (
       INSERT INTO tool_calls (call_id, session_id, turn_id, step, ordinal, name, arguments, executor, state, final_arguments, read_only,
                               independent, client_id, executors, child_turn, deadline, release_at, created_at, started_at, finished_at)
       SELECT k.call_id, fresh.session_id, $2, $3, k.ordinal, k.name, k.arguments, k.executor, k.state, k.final_arguments, k.read_only,
              k.independent, k.client_id, k.executors, k.child_turn, k.deadline, k.release_at, $7, k.started_at,
              CASE WHEN k.state IN ('completed', 'failed', 'rejected', 'cancelled') THEN $7 END
         FROM fresh,
              ROWS FROM (json_to_recordset($43::json)
                         AS (call_id uuid, name text, arguments text, executor text, state text, final_arguments text,
                             read_only boolean, independent boolean, client_id text, executors text[], child_turn uuid,
                             deadline timestamptz, release_at timestamptz, started_at timestamptz))
              WITH ORDINALITY AS k (call_id, name, arguments, executor, state, final_arguments, read_only, independent, client_id,
                                    executors, child_turn, deadline, release_at, started_at, ordinal)
     ),
     new_states AS (
       UPDATE tool_calls
          SET state = k.state,
              client_id = CASE WHEN k.dispatched THEN k.client_id ELSE tool_calls.client_id END,
              executors = CASE WHEN k.client_id IS NULL OR k.client_id = ANY(tool_calls.executors) THEN tool_calls.executors
                               ELSE tool_calls.executors || k.client_id END,
              deadline = CASE WHEN k.dispatched THEN k.deadline ELSE tool_calls.deadline END,
              release_at = CASE WHEN k.dispatched THEN k.release_at ELSE tool_calls.release_at END,
              child_turn = coalesce(k.child_turn, tool_calls.child_turn),
              started_at = CASE WHEN k.state = 'running' THEN coalesce(tool_calls.started_at, $7) ELSE tool_calls.started_at END,
              finished_at = CASE WHEN k.state IN ('completed', 'failed', 'rejected', 'cancelled') THEN $7 END
         FROM fresh,
              json_to_recordset($44::json) AS k (call_id uuid, state text, dispatched boolean, client_id text, deadline timestamptz,
                                                 release_at timestamptz, child_turn uuid)
        WHERE tool_calls.turn_id = $2 AND tool_calls.step = $3 AND tool_calls.call_id = k.call_id
          AND tool_calls.state IN ('awaiting_approval', 'ready', 'running')
     ),
     new_approvals AS (
       INSERT INTO approvals (approval_id, session_id, turn_id, call_id, owner, agent_type, name, arguments_hash, allowed_decisions, rule,
                              reason, parameters, created_at, expires_at, due_at)
       SELECT a.approval_id, fresh.session_id, $2, a.call_id, fresh.owner, a.agent_type, a.name, decode(a.arguments_hash, 'base64'),
              a.allowed_decisions, a.rule, a.reason, decode(a.parameters, 'base64'), $7, a.expires_at, LEAST(a.due_at, a.expires_at)
         FROM fresh,
              json_to_recordset($45::json) AS a (approval_id uuid, call_id uuid, agent_type text, name text, arguments_hash text,
                                                 allowed_decisions text[], rule text, reason text, parameters text,
                                                 expires_at timestamptz, due_at timestamptz)
     ),
     closed_approvals AS (
       UPDATE approvals SET state = a.state, decided_at = $7
         FROM fresh, unnest($46::uuid[], $47::text[]) AS a (approval_id, state)
        WHERE approvals.approval_id = a.approval_id AND approvals.turn_id = $2 AND approvals.decided_at IS NULL
     ),
     new_audit AS (
       INSERT INTO audit (at, owner, session_id, event_type, user_id, client_id, transport, turn_id, call_id, tool, decision, cause,
                          arguments, executed, feedback, rule)
       SELECT $7, fresh.owner, fresh.session_id, a.event_type, a.user_id, a.client_id, a.transport, coalesce(a.turn_id, $2), a.call_id,
              a.tool, a.decision, a.cause, a.arguments, a.executed, a.feedback, a.rule
         FROM fresh,
              json_to_recordset($48::json) AS a (event_type text, user_id text, client_id text, transport text, turn_id uuid, call_id uuid,
                                                 tool text, decision text, cause text, arguments text, executed text, feedback text,
                                                 rule text)
     ),
     new_switch AS (
       INSERT INTO agent_switches (session_id, seq, from_agent, to_agent, reason, confidence, cause, turn_id, switched_at)
       SELECT fresh.session_id, fresh.seq + k.ordinal, $40, k.to_agent, k.reason, k.confidence, 'agent', $2, $7
         FROM fresh, json_to_recordset($49) AS k (to_agent text, reason text, confidence double precision, ordinal integer)
     ),
     new_children AS (
       INSERT INTO turns (turn_id, session_id, user_message_id, message_id, worker_id, agent_type, created_at, depth, parent_call,
                          cancel_requested)
       SELECT k.turn_id, fresh.session_id, k.message_id, k.answer_id, fresh.worker, k.agent_type, $7, fresh.depth + 1, k.call_id,
              fresh.cancel_requested
         FROM fresh,
              json_to_recordset($50::json) AS k (turn_id uuid, call_id uuid, agent_type text, message_id uuid, answer_id uuid)
     ),
     new_tasks AS (
       INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, thread, created_at)
       SELECT k.message_id, fresh.session_id, fresh.seq + k.ordinal, k.turn_id, 'user', k.content, k.turn_id, $7
         FROM fresh, json_to_recordset($50) AS k (turn_id uuid, message_id uuid, content text, ordinal integer)
     ),
     answered AS (
       UPDATE tool_calls SET state = $52, finished_at = $7
         FROM fresh, asked
        WHERE tool_calls.call_id = asked.call_id
     ),
     roused AS (
       UPDATE turns
          SET {rouse}
         FROM fresh, asked
        WHERE turns.turn_id = asked.turn_id
       RETURNING {claimed}, asked.waits
     ),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($9), message_count = sessions.message_count + $23, last_activity = $7,
              active_turn = CASE WHEN $24 IS NULL OR sessions.active_turn <> $2 THEN sessions.active_turn END,
              current_agent = CASE WHEN fresh.depth = 0 THEN coalesce($49 -> 0 ->> 'to_agent', sessions.current_agent)
                                   ELSE sessions.current_agent END
         FROM fresh
        WHERE sessions.session_id = fresh.session_id
       RETURNING sessions.queued
     )
SELECT fresh.epoch, fresh.seq, fresh.cancel_requested, fresh.news, fresh.parked, new_head.queued,
       {steering},
       ARRAY(SELECT roused FROM roused WHERE roused.waits) AS claims
  FROM fresh, new_head

-- name: steer
-- Waiting messages become part of the turn that runs. No row means that the step is no longer the caller's, that this very write
-- happened already, or that one of the messages waits no more. $1 session, $2 to $6 the claim, $7 now, $8/$9 events, $10 messages, $11
-- ordinals of the events that announce them.
WITH s AS MATERIALIZED (
       SELECT session_id, epoch, seq FROM sessions WHERE session_id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE
     ),
     taken AS MATERIALIZED (
       SELECT q.message_id, q.content
         FROM s CROSS JOIN LATERAL (
              SELECT queue.message_id, queue.content FROM queue
               WHERE queue.session_id = s.session_id AND queue.message_id = ANY($10::uuid[]) FOR UPDATE) q
     ),
     fresh AS (
       UPDATE turns
          SET revision = turns.revision + 1
         FROM s, (SELECT count(*) AS there FROM taken) AS counted
        WHERE {held} AND counted.there = cardinality($10)
       RETURNING s.session_id, s.epoch, s.seq, turns.cancel_requested, turns.news
     ),
     gone AS (
       DELETE FROM queue USING fresh, taken WHERE queue.session_id = fresh.session_id AND queue.message_id = taken.message_id
     ),
     new_messages AS (
       INSERT INTO messages (message_id, session_id, seq, turn_id, role, content, created_at)
       SELECT taken.message_id, fresh.session_id, fresh.seq + o.ordinal, $2, 'user', taken.content, $7
         FROM fresh, taken JOIN unnest($10, $11::integer[]) AS o (message_id, ordinal) USING (message_id)
     ),
     new_events AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT fresh.session_id, fresh.seq + e.ordinal, e.event_type, $7, e.body
         FROM fresh, unnest($8::text[], $9::bytea[]) WITH ORDINALITY AS e (event_type, body, ordinal)
     ),
     new_head AS (
       UPDATE sessions
          SET seq = fresh.seq + cardinality($8), queued = sessions.queued - cardinality($10),
              message_count = sessions.message_count + cardinality($10), last_activity = $7
         FROM fresh
        WHERE sessions.session_id = fresh.session_id
       RETURNING sessions.queued
     )
SELECT fresh.epoch, fresh.seq, fresh.cancel_requested, fresh.news, new_head.queued,
       EXISTS (SELECT FROM queue
                WHERE queue.session_id = $1 AND queue.on_busy = 'steer' AND queue.message_id <> ALL($10)) AS steering
  FROM fresh, new_head

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
-- Steps whose worker is gone, or is the caller who does not know of them: claimed by a new attempt. Turns that wait have no worker.
-- NOT IN and no joins: of a step that somebody claimed in between the condition is asked again, and a join would be asked
-- about the worker that the step had before. $1 worker, $2 turns it runs or is about to start, $3 most to claim.
WITH lost AS (
       SELECT turns.turn_id
         FROM turns
        WHERE turns.finished_at IS NULL AND turns.state <> 'waiting'
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
RETURNING {claimed}

-- name: claim_due
-- Waiting turns with a call whose time has come, or with an approval that has expired, claimed. Whether they still wait is asked of the
-- locked row; what is due was read before, and the claimant looks again. $1 worker, $2 now, $3 most to claim.
WITH lost AS (
       SELECT turns.turn_id
         FROM turns
        WHERE turns.turn_id = ANY(ARRAY(SELECT tool_calls.turn_id FROM tool_calls
                                         WHERE tool_calls.state IN ('ready', 'running') AND tool_calls.due_at <= $2
                                         UNION
                                        SELECT approvals.turn_id FROM approvals
                                         WHERE approvals.state = 'pending' AND approvals.due_at <= $2 AND approvals.expires_at <= $2))
          AND turns.state = 'waiting'
        ORDER BY turns.turn_id
        LIMIT $3
          FOR UPDATE SKIP LOCKED
     )
UPDATE turns
   SET worker_id = $1, attempt = turns.attempt + 1, revision = turns.revision + 1, state = 'running'
  FROM lost
 WHERE turns.turn_id = lost.turn_id
RETURNING {claimed}

-- name: warn_due
-- Approvals of which people are to be warned now, each once: the next time somebody has to look is when it expires. $1 now, $2 most.
WITH due AS (
       SELECT approvals.approval_id
         FROM approvals
        WHERE approvals.state = 'pending' AND approvals.due_at <= $1 AND approvals.due_at < approvals.expires_at
          AND approvals.expires_at > $1
        ORDER BY approvals.approval_id
        LIMIT $2
          FOR NO KEY UPDATE SKIP LOCKED
     )
UPDATE approvals
   SET due_at = approvals.expires_at
  FROM due
 WHERE approvals.approval_id = due.approval_id
RETURNING approvals.session_id, approvals.approval_id, approvals.call_id, approvals.expires_at

-- name: turn_now
-- How a turn stands: asked when a write of it found nothing to write. $1 turn.
SELECT turns.worker_id, turns.step, turns.attempt, turns.revision, turns.state, turns.finished_at, turns.news,
       turns.cancel_requested, sessions.queued,
       EXISTS (SELECT FROM queue WHERE queue.session_id = sessions.session_id AND queue.on_busy = 'steer') AS steering
  FROM turns JOIN sessions USING (session_id)
 WHERE turns.turn_id = $1

-- name: calls_of_step
-- The calls of one step in the order given by the agent, with the approvals that some wait for, and the turn's news. No row means that
-- the step is no longer the caller's. $1 turn, $2 step, $3 worker, $4 attempt.
SELECT turns.news, turns.cancel_requested, k.call_id, k.name, k.arguments, k.executor, k.state, k.final_arguments, k.read_only,
       k.independent, k.client_id, k.executors, k.child_turn, k.deadline, k.release_at, k.ordinal, k.started_at, a.approval_id,
       a.expires_at
  FROM turns
  LEFT JOIN tool_calls k ON k.turn_id = turns.turn_id AND k.step = turns.step
  LEFT JOIN approvals a ON a.call_id = k.call_id AND a.decided_at IS NULL
 WHERE turns.turn_id = $1 AND turns.step = $2 AND turns.worker_id = $3 AND turns.attempt = $4 AND turns.finished_at IS NULL
 ORDER BY k.ordinal

-- name: news_of_turns
-- How much happened to the turns' calls, and whether somebody asked to stop them. $1 turns.
SELECT turn_id, news, cancel_requested FROM turns WHERE turn_id = ANY($1::uuid[])

-- name: next_queued
-- The first waiting message of an idle session, with the session's agent. $1 session.
SELECT q.message_id, q.content, q.agent_type, q.command_id, q.client_id, s.current_agent, s.owner
  FROM sessions s JOIN queue q USING (session_id)
 WHERE s.session_id = $1 AND s.active_turn IS NULL AND s.deleted_at IS NULL
 ORDER BY q.position
 LIMIT 1

-- name: steering_messages
-- The waiting messages that are for the running turn's next step. $1 session.
SELECT q.message_id, q.content, q.agent_type, q.command_id, q.client_id, s.current_agent, s.owner
  FROM queue q JOIN sessions s USING (session_id)
 WHERE q.session_id = $1 AND q.on_busy = 'steer'
 ORDER BY q.position

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
