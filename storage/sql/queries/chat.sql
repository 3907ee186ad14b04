-- What simple chat clients ask: messages by their number on a page, and the log by the clock.

-- name: chat_messages
-- A page of what users and agents said to each other in a session, in order, up to a count and a size (the first is returned whatever
-- its size), with how many such messages there are. One row at least, as the total is that of an empty page too.
-- $1 session, $2 limit, $3 offset, $4 most bytes.
WITH said AS MATERIALIZED (
       SELECT seq FROM messages WHERE session_id = $1 AND role IN ('user', 'assistant') AND thread IS NULL
     ),
     page AS (
       SELECT m.*, sum(octet_length(m.content)) OVER (ORDER BY m.seq) - octet_length(m.content) AS bytes_before
         FROM (SELECT seq FROM said ORDER BY seq LIMIT $2 OFFSET $3) AS s
         JOIN messages m ON m.session_id = $1 AND m.seq = s.seq
     )
SELECT page.message_id, page.role, page.content, page.agent_type, page.created_at, totals.total
  FROM (SELECT count(*) AS total FROM said) AS totals
  LEFT JOIN page ON page.bytes_before < $4::bigint
 ORDER BY page.seq

-- name: seq_at
-- The number of a session's last event that is not later than a time; no row when there is none. $1 session, $2 time.
SELECT seq FROM events WHERE session_id = $1 AND created_at <= $2 ORDER BY seq DESC LIMIT 1

-- name: chat_stats
-- What a user has in all. $1 owner.
SELECT count(*) AS sessions, coalesce(sum(message_count), 0)::bigint AS messages, count(active_turn) AS running_turns,
       coalesce(sum(queued), 0)::bigint AS queued, max(last_activity) AS last_activity
  FROM sessions WHERE owner = $1 AND deleted_at IS NULL
