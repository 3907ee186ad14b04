-- What was done, and what it took: from rows, never from counters. Rows of steps outlive their session, all others go with it.

-- name: agent_metrics
-- What an owner's agents did since a time, by agent. $1 owner, $2 since.
SELECT agent_type AS name, count(*) AS count,
       count(*) FILTER (WHERE error_code IS NOT NULL OR finish_reason IN ('error', 'interrupted')) AS failed,
       sum(duration_ms)::bigint AS duration_ms
  FROM requests
 WHERE owner = $1 AND started_at >= $2
 GROUP BY agent_type
 ORDER BY agent_type

-- name: error_metrics
-- What an owner's agents failed of since a time. $1 owner, $2 since.
SELECT error_code AS name, count(*) AS count
  FROM requests
 WHERE owner = $1 AND started_at >= $2 AND error_code IS NOT NULL
 GROUP BY error_code
 ORDER BY error_code

-- name: tool_metrics
-- Calls of an owner's agents since a time that have run, by tool. $1 owner, $2 since.
SELECT c.name, count(*) AS count, count(*) FILTER (WHERE c.state = 'failed') AS failed,
       (1000 * coalesce(sum(extract(epoch FROM c.finished_at - coalesce(c.started_at, c.finished_at))), 0))::bigint AS duration_ms
  FROM sessions s JOIN tool_calls c USING (session_id)
 WHERE s.owner = $1 AND s.last_activity >= $2 AND c.created_at >= $2 AND c.state IN ('completed', 'failed')
 GROUP BY c.name
 ORDER BY c.name

-- name: decision_metrics
-- Approvals of an owner's since a time that are decided, by what became of them. $1 owner, $2 since.
SELECT a.state AS name, count(*) AS count
  FROM sessions s JOIN approvals a USING (session_id)
 WHERE s.owner = $1 AND s.last_activity >= $2 AND a.created_at >= $2 AND a.state <> 'pending'
 GROUP BY a.state
 ORDER BY a.state

-- name: switch_metrics
-- Which agents gave an owner's sessions to which since a time. $1 owner, $2 since.
SELECT w.from_agent || '->' || w.to_agent AS name, count(*) AS count
  FROM sessions s JOIN agent_switches w USING (session_id)
 WHERE s.owner = $1 AND s.last_activity >= $2 AND w.switched_at >= $2
 GROUP BY w.from_agent, w.to_agent
 ORDER BY 1

-- name: metrics_by_session
-- What an owner's sessions took since a time, the latest first, with how many there are. $1 owner, $2 since, $3 limit, $4 offset.
SELECT session_id, count(*) AS requests,
       count(*) FILTER (WHERE error_code IS NOT NULL OR finish_reason IN ('error', 'interrupted')) AS failed,
       sum(duration_ms)::bigint AS duration_ms, sum(prompt_tokens)::bigint AS prompt_tokens,
       sum(completion_tokens)::bigint AS completion_tokens, sum(cost) AS cost, count(*) FILTER (WHERE tools > 0) AS with_tools,
       count(*) OVER () AS total
  FROM requests
 WHERE owner = $1 AND started_at >= $2
 GROUP BY session_id
 ORDER BY max(started_at) DESC, session_id DESC
 LIMIT $3 OFFSET $4

-- name: metrics_of_session
-- What a session took. One row always. $1 session.
SELECT $1::uuid AS session_id, count(*) AS requests,
       count(*) FILTER (WHERE error_code IS NOT NULL OR finish_reason IN ('error', 'interrupted')) AS failed,
       coalesce(sum(duration_ms), 0)::bigint AS duration_ms, coalesce(sum(prompt_tokens), 0)::bigint AS prompt_tokens,
       coalesce(sum(completion_tokens), 0)::bigint AS completion_tokens, sum(cost) AS cost,
       count(*) FILTER (WHERE tools > 0) AS with_tools
  FROM requests
 WHERE session_id = $1

-- name: requests_of_session
-- A session's steps, the latest first. $1 session, $2 limit, $3 before this time, $4 and this turn, $5 and this step, $6 and this attempt.
SELECT turn_id, step, attempt, agent_type, model, started_at, duration_ms, prompt_tokens, completion_tokens, cost, tools,
       finish_reason, error_code
  FROM requests
 WHERE session_id = $1
   AND ($3::timestamptz IS NULL OR (started_at, turn_id, step, attempt) < ($3, $4::uuid, $5::integer, $6::integer))
 ORDER BY started_at DESC, turn_id DESC, step DESC, attempt DESC
 LIMIT $2

-- name: usage_of_owner
-- What an owner used in a span of time: all of it, then by `day`, `model`, `agent` or `session`. $1 owner, $2 since, $3 until, $4 by,
-- $5 most rows.
WITH r AS (SELECT * FROM requests WHERE owner = $1 AND started_at >= $2 AND started_at < $3)
{usage_sums}

-- name: usage_of_session
-- What a session used in a span of time: all of it, then by `day`, `model` or `agent`. $1 session, $2 since, $3 until, $4 by, $5 most rows.
WITH r AS (SELECT * FROM requests WHERE session_id = $1 AND started_at >= $2 AND started_at < $3)
{usage_sums}

-- name: turns_of_session
-- A session's turns in the order of their messages, also those that answer calls of others. $1 session, $2 after this seq, $3 limit.
SELECT m.seq, t.turn_id, t.user_message_id, t.agent_type, t.state, t.created_at, t.finished_at, t.step, t.prompt_tokens,
       t.completion_tokens, t.cost, t.error_code, t.error_message, t.parent_call, t.depth
  FROM messages m JOIN turns t ON t.turn_id = m.turn_id AND t.user_message_id = m.message_id
 WHERE m.session_id = $1 AND m.seq > $2 AND m.role = 'user'
 ORDER BY m.seq
 LIMIT $3
