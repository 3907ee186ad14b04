-- Sessions that begin as copies of others.

-- name: fork_source
-- What is copied: the messages of the conversation in order, up to a count and a size; the first is returned whatever its size.
-- $1 session, $2 after this seq, $3 up to this seq, $4 most messages, $5 most bytes.
SELECT message_id, seq, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at
  FROM (SELECT *, sum(bytes) OVER (ORDER BY seq) - bytes AS bytes_before
          FROM (SELECT *, octet_length(content) + coalesce(octet_length(reasoning), 0) + coalesce(octet_length(tool_calls), 0) AS bytes
                  FROM messages
                 WHERE session_id = $1 AND seq > $2 AND seq <= $3 AND thread IS NULL
                 ORDER BY seq LIMIT $4) AS page) AS sized
 WHERE bytes_before < $5::bigint
 ORDER BY seq

-- name: fork_place
-- Where a message of the conversation stands, and what it says. $1 session, $2 message.
SELECT message_id, seq, role, content FROM messages WHERE session_id = $1 AND message_id = $2 AND thread IS NULL

-- name: last_user_message
-- The last one of the conversation. $1 session.
SELECT message_id, seq, role, content
  FROM messages
 WHERE session_id = $1 AND role = 'user' AND thread IS NULL
 ORDER BY seq DESC
 LIMIT 1

-- name: direct_agent
-- The agent to which alone a message was addressed: the event that says so follows the message. $1 session, $2 seq of the message.
SELECT body FROM events WHERE session_id = $1 AND seq = $2 + 1 AND event_type = 'direct_agent_call'

-- name: acting_agent
-- The agent that acted when an event was the last. $1 session, $2 seq.
SELECT coalesce((SELECT to_agent FROM agent_switches WHERE session_id = $1 AND seq <= $2 ORDER BY seq DESC LIMIT 1),
                (SELECT from_agent FROM agent_switches WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT 1),
                (SELECT current_agent FROM sessions WHERE session_id = $1)) AS agent

-- name: create_fork
-- The copy, with the numbers that it will have when its messages are there; no row when its source is gone or the owner has as many
-- sessions as he may. $1 id, $2 owner, $3 epoch, $4 agent, $5 title, $6 now, $7 alias, $8 source, $9 source's seq, $10 messages, $11 most.
WITH s AS (
       INSERT INTO sessions (session_id, owner, epoch, seq, title, description, current_agent, message_count, created_at, last_activity,
                             project_id, forked_from, forked_at)
       SELECT $1::uuid, $2, $3, $10, $5, f.description, $4, $10, $6::timestamptz, $6,
              CASE WHEN f.owner = $2 THEN f.project_id END, f.session_id, $9::bigint
         FROM sessions f
        WHERE f.session_id = $8 AND f.deleted_at IS NULL
          AND (SELECT count(*) FROM (SELECT FROM sessions WHERE owner = $2 AND deleted_at IS NULL LIMIT $11) AS mine) < $11
       RETURNING *
     ),
     a AS (
       INSERT INTO session_aliases (owner, alias, session_id)
       SELECT $2, $7, session_id FROM s WHERE $7::text IS NOT NULL
       RETURNING alias
     )
SELECT s.*, a.alias FROM s LEFT JOIN a ON true

-- name: fill_fork
-- Some of its messages, each with the event that announces it under the same number. $1 session, $2 now, then one array a column:
-- $3 ids, $4 numbers, $5 roles, $6 contents, $7 reasonings, $8 names, $9 calls, $10 tool calls, $11 agents, $12 finish reasons, $13 times,
-- $14 bodies of the events.
WITH s AS (SELECT session_id FROM sessions WHERE session_id = $1),
     m AS (
       SELECT s.session_id, v.*
         FROM s, unnest($3::uuid[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::uuid[], $10::bytea[], $11::text[],
                        $12::text[], $13::timestamptz[], $14::bytea[])
              AS v (message_id, seq, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at, body)
     ),
     announced AS (
       INSERT INTO events (session_id, seq, event_type, created_at, body)
       SELECT session_id, seq, 'message_created', $2::timestamptz, body FROM m
     )
INSERT INTO messages (message_id, session_id, seq, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at)
SELECT message_id, session_id, seq, role, content, reasoning, name, call_id, tool_calls, agent_type, finish_reason, created_at FROM m

-- name: note_fork
-- What it was asked for with, so that a repeat finds it. No client can send a command of this id. $1 session, $2 id, $3 body hash, $4 user,
-- $5 now.
INSERT INTO commands (session_id, command_id, body_hash, first_seq, status, user_id, created_at)
SELECT session_id, $2, $3, 1, 'accepted', $4, $5 FROM sessions WHERE session_id = $1

-- name: user_message_after
-- The first message that a user wrote after a number. $1 session, $2 seq.
SELECT message_id, seq, role, content
  FROM messages
 WHERE session_id = $1 AND seq > $2 AND role = 'user' AND thread IS NULL
 ORDER BY seq
 LIMIT 1
