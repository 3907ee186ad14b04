-- Messages: what people and models read.

-- name: message_page
-- A page of a session's messages in order. $1 session, $2 after this seq, $3 most messages.
SELECT message_id, seq, turn_id, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at
  FROM messages
 WHERE session_id = $1 AND seq > $2
 ORDER BY seq
 LIMIT $3

-- name: message_tail
-- The last messages of a session, in order. $1 session, $2 most messages.
SELECT *
  FROM (SELECT message_id, seq, turn_id, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at
          FROM messages WHERE session_id = $1 ORDER BY seq DESC LIMIT $2) AS latest
 ORDER BY seq
