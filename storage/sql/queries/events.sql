-- The log of a session's durable events.

-- name: read_events
-- Events after a number, in order, up to a count and a size; the first is returned whatever its size.
-- $1 session, $2 after, $3 most events, $4 most bytes.
SELECT seq, event_type, created_at, body
  FROM (SELECT seq, event_type, created_at, body, sum(length(body)) OVER (ORDER BY seq) - length(body) AS bytes_before
          FROM (SELECT seq, event_type, created_at, body
                  FROM events WHERE session_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS page) AS sized
 WHERE bytes_before < $4::bigint
 ORDER BY seq
