-- Which agent gave a session to which.

-- name: switches_of_session
-- The latest ones, the latest first. $1 session, $2 limit.
SELECT from_agent, to_agent, reason, confidence, cause, switched_at
  FROM agent_switches
 WHERE session_id = $1
 ORDER BY seq DESC
 LIMIT $2

-- name: count_switches
-- How many there were, and when the last was. $1 session.
SELECT count(*) AS count, max(switched_at) AS last FROM agent_switches WHERE session_id = $1
