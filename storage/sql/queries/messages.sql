-- Messages: what people and models read.

-- name: message_page
-- A page of a session's conversation in order, up to a count and a size; the first is returned whatever its size.
-- $1 session, $2 after this seq, $3 most messages, $4 most bytes.
SELECT message_id, seq, turn_id, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at
  FROM (SELECT *, sum(bytes) OVER (ORDER BY seq) - bytes AS bytes_before
          FROM (SELECT *, octet_length(content) + coalesce(octet_length(reasoning), 0) + coalesce(octet_length(tool_calls), 0) AS bytes
                  FROM messages WHERE session_id = $1 AND seq > $2 AND thread IS NULL ORDER BY seq LIMIT $3) AS page) AS sized
 WHERE bytes_before < $4::bigint
 ORDER BY seq

-- name: message_tail
-- The last messages of a session's conversation, in order, up to a count and a size; the very last is returned whatever its size.
-- $1 session, $2 most messages, $3 most bytes.
SELECT message_id, seq, turn_id, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at
  FROM (SELECT *, sum(bytes) OVER (ORDER BY seq DESC) - bytes AS bytes_before
          FROM (SELECT *, octet_length(content) + coalesce(octet_length(reasoning), 0) + coalesce(octet_length(tool_calls), 0) AS bytes
                  FROM messages WHERE session_id = $1 AND thread IS NULL ORDER BY seq DESC LIMIT $2) AS latest) AS sized
 WHERE bytes_before < $3::bigint
 ORDER BY seq

-- name: thread_tail
-- The last messages of a turn that answers a call, in order, up to a count and a size; the very last is returned whatever its size.
-- $1 session, $2 most messages, $3 most bytes, $4 the turn.
SELECT message_id, seq, turn_id, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at
  FROM (SELECT *, sum(bytes) OVER (ORDER BY seq DESC) - bytes AS bytes_before
          FROM (SELECT *, octet_length(content) + coalesce(octet_length(reasoning), 0) + coalesce(octet_length(tool_calls), 0) AS bytes
                  FROM messages WHERE thread = $4 AND session_id = $1 ORDER BY seq DESC LIMIT $2) AS latest) AS sized
 WHERE bytes_before < $3::bigint
 ORDER BY seq
